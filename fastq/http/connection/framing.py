"""The headers that decide where a request ends and whose it is. What two readers may read in two ways is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastq.http.connection import limits
from fastq.http.errors import BadHttp

GIVEN_ONCE = {b"authorization": "Authorization", b"idempotency-key": "Idempotency-Key"}
"""A proxy may have checked the other one. Name in lower case -> name."""


@dataclass(frozen=True, slots=True)
class Framing:
    """body_bytes: of a body that is not chunked."""

    chunked: bool
    body_bytes: int


def framing_of(headers: Sequence[tuple[bytes, bytes]], version: str) -> Framing:
    """Return how the body of a request is framed.

    Args:
        headers: (name in lower case, value), as llhttp read them.
        version: `1.1` or `1.0`.
    Raises:
        BadHttp: the headers are ambiguous.
    """
    hosts, lengths, codings, once = [], [], [], set()
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name in GIVEN_ONCE:
            if name in once:
                raise BadHttp(f"the header {GIVEN_ONCE[name]} must be given once")
            once.add(name)
    if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not limits.is_host(hosts[0])):
        raise BadHttp("there must be exactly one valid Host header")
    if codings and (codings != [b"chunked"] or lengths or version == "1.0"):
        raise BadHttp("Transfer-Encoding must be chunked, alone, and without Content-Length")
    return Framing(bool(codings), int(lengths[0]) if lengths else 0)
