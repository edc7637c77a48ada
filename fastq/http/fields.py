"""Fields that several requests have: their types and limits, and the checks that a type cannot express."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from falcon.asgi import Request
from msgspec import Meta

from fastq._core import ATTEMPT_OUTCOMES, EVENTS, STATES
from fastq.engine.commands import (
    KEY_BYTES_MAX,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    PAYLOAD_BYTES_MAX,
    RUN_AT_AHEAD_US_MAX,
    WORKER_ID_BYTES_MAX,
)
from fastq.errors import InvalidRequest
from fastq.http._scan import numbers_fit
from fastq.services.queues import Backoff

SMALL_BODY_BYTES_MAX = 64 << 10  # the body of a request without a payload or a result
BODY_BYTES_MAX = PAYLOAD_BYTES_MAX + SMALL_BODY_BYTES_MAX
DELAY_MS_MAX = RUN_AT_AHEAD_US_MAX // 1000
NUMBER_CHARACTERS_MAX = 400
QUEUE_PATTERN = "[A-Za-z0-9._-]{1,64}"
TOKEN_CHARACTERS_MAX = 200
HOST_BYTES_MAX, VERSION_BYTES_MAX = 255, 64  # of a worker
TRACEPARENT_PATTERN = "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"


def text_of(bytes_max: int) -> Meta:
    """Return the schema of a text of 1 to `bytes_max` bytes."""
    return Meta(
        description=f"At most {bytes_max} bytes of UTF-8, printable characters only.",
        extra_json_schema={"minLength": 1, "maxLength": bytes_max},
    )


Delay = Annotated[int, Meta(ge=0, le=DELAY_MS_MAX)]
LeaseMs = Annotated[int, Meta(ge=LEASE_MS_MIN, le=LEASE_MS_MAX)]
QueueName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{QUEUE_PATTERN}$"})]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Token = Annotated[str, Meta(max_length=TOKEN_CHARACTERS_MAX)]
WorkerId = Annotated[
    str,
    Meta(
        description=f"At most {WORKER_ID_BYTES_MAX} bytes of UTF-8.",
        extra_json_schema={"maxLength": WORKER_ID_BYTES_MAX},
    ),
]
Host = Annotated[str, text_of(HOST_BYTES_MAX)]
Version = Annotated[str, text_of(VERSION_BYTES_MAX)]
if TYPE_CHECKING:
    State = str
    Outcome = str
    EventName = str
else:  # for msgspec, which reads the values at run time; mypy takes only values that are written out
    State = Literal[STATES]
    Outcome = Literal[ATTEMPT_OUTCOMES]
    EventName = Literal[("submitted", *EVENTS)]

_QUEUE = re.compile(QUEUE_PATTERN, re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_TRACEPARENT = re.compile(TRACEPARENT_PATTERN, re.ASCII)


class BackoffBody(Backoff, frozen=True, forbid_unknown_fields=True):
    """After attempt n a job waits a random time of at most base_ms * factor ** (n - 1), limited to cap_ms."""


def queue_name(name: str, field: str) -> str:
    """Return `name` if it is the name of a queue or group. Raises InvalidRequest otherwise."""
    if not _QUEUE.fullmatch(name):
        raise InvalidRequest(f"{field} must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
    return name


def at_most(field: str, length_bytes: int, bytes_max: int) -> None:
    """Raise InvalidRequest if `length_bytes` exceeds `bytes_max`."""
    if length_bytes > bytes_max:
        raise InvalidRequest(f"{field} must be at most {bytes_max} bytes")


def time_us(text: str, field: str) -> int:
    """Parse an RFC 3339 time. Digits after the microseconds are cut off.

    Returns:
        Unix microseconds, 0 for a time before 1970.
    Raises:
        InvalidRequest: `text` is not an RFC 3339 time.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        needs = ": it needs a time zone, such as Z or +02:00" if _RFC3339.fullmatch(f"{text}Z") else ""
        raise InvalidRequest(f"{field} must be an RFC 3339 time{needs}")
    day, minute, second, fraction, offset = match.groups()
    leap_s = 1 if second == "60" else 0
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}:{59 if leap_s else second}{offset.upper()}")
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{field} must be an RFC 3339 time") from None
    return max(0, since // timedelta(microseconds=1) + leap_s * 1_000_000 + int(f"{fraction or '':0<6}"[:6]))


def ahead_us(text: str, field: str, now_us: int) -> int:
    """Parse a time that is at most 10 years after `now_us`. Unix microseconds. Raises InvalidRequest."""
    at_us = time_us(text, field)
    if at_us > now_us + RUN_AT_AHEAD_US_MAX:
        raise InvalidRequest(f"{field} must be at most 10 years ahead")
    return at_us


def printable(text: str, field: str, bytes_max: int = KEY_BYTES_MAX) -> str:
    """Return `text` if it has 1 to `bytes_max` bytes of printable characters. Raises InvalidRequest otherwise."""
    if not 1 <= len(text.encode()) <= bytes_max:
        raise InvalidRequest(f"{field} must be 1 to {bytes_max} bytes")
    if not text.isprintable():
        raise InvalidRequest(f"{field} must have printable characters only")
    return text


def searched(field: str, text: str | None, bytes_max: int) -> str:
    """Return the text that a search looks for, an empty one for None. Raises InvalidRequest."""
    if text is None:
        return ""
    if not text:
        raise InvalidRequest(f"{field} must be of length >= 1")
    at_most(field, len(text.encode("utf-8", "surrogatepass")), bytes_max)
    return text


def about_worker(host: str | None, version: str | None) -> tuple[str, str]:
    """What a worker says about itself, "" for None. Raises InvalidRequest."""
    host = "" if host is None else printable(host, "host", HOST_BYTES_MAX)
    return host, "" if version is None else printable(version, "version", VERSION_BYTES_MAX)


def payload_of(raw: msgspec.Raw) -> bytes:
    """Return the payload's JSON text. Raises InvalidRequest for null, the empty string and a large payload."""
    payload = bytes(raw)
    if payload in (b"null", b'""'):
        raise InvalidRequest("payload is required")
    at_most("payload", len(payload), PAYLOAD_BYTES_MAX)
    readable_numbers("payload", payload)
    return payload


def readable_numbers(field: str, text: bytes) -> None:
    """Raise InvalidRequest if `text` has a number that a JSON library may not parse. All others stay as they are."""
    if not numbers_fit(text, NUMBER_CHARACTERS_MAX):
        raise InvalidRequest(
            f"{field}: each number must have at most {NUMBER_CHARACTERS_MAX} characters and be within ±1.8e308"
        )


def backoff_of(fields: BackoffBody) -> tuple[int, float, int]:
    """Return (base_ms, factor, cap_ms). Raises InvalidRequest."""
    if fields.cap_ms < fields.base_ms:
        raise InvalidRequest("backoff.cap_ms must be >= backoff.base_ms")
    return fields.base_ms, fields.factor, fields.cap_ms


def traceparent_of(header: str | None) -> str:
    """Return the header if it is well-formed, else an empty string, as W3C Trace Context asks."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else ""


def idempotency_key_of(req: Request) -> str:
    """Return the request's idempotency key, an empty string without the header. Raises InvalidRequest."""
    key = req.get_header("Idempotency-Key")
    return "" if key is None else printable(key, "Idempotency-Key")
