"""The bodies of requests about keys."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from fastq.engine.commands import (
    KEY_NAME_BYTES_MAX,
    KEY_QUEUES_MAX,
    KEY_RATE_MAX,
    OVERLAP_MS_DEFAULT,
    OVERLAP_MS_MAX,
    OWNER_ID_BYTES_MAX,
)
from fastq.errors import InvalidRequest, shown
from fastq.http.decoding import at_most, decode, queue_name, time_us
from fastq.http.resources.bodies import QueueName
from fastq.http.routes import SCOPES
from fastq.services.keys import KEY_TYPES, Grants

# No control characters, and no space at its ends: nobody can tell such an owner from another.
_OWNER_PATTERN = r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?"
_OWNER = re.compile(_OWNER_PATTERN)

Scope = Annotated[str, Meta(extra_json_schema={"enum": list(SCOPES)})]


class CreateKeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make. `scopes` left out are its type's; an admin key has them all and takes none.

    `queues` bind a worker key: it leases from no other. `rate_limit` is requests a second.
    """

    name: Annotated[
        str,
        Meta(
            min_length=1,
            description=f"At most {KEY_NAME_BYTES_MAX} bytes of UTF-8.",
            extra_json_schema={"maxLength": KEY_NAME_BYTES_MAX},
        ),
    ]
    owner_id: Annotated[
        str,
        Meta(
            min_length=1,
            description=f"At most {OWNER_ID_BYTES_MAX} bytes of UTF-8, no control characters, no space at its ends.",
            extra_json_schema={"maxLength": OWNER_ID_BYTES_MAX, "pattern": f"^{_OWNER_PATTERN}$"},
        ),
    ]
    type: Annotated[str, Meta(min_length=1, extra_json_schema={"enum": list(KEY_TYPES)})]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=len(SCOPES))] | None = None
    queues: Annotated[list[QueueName], Meta(min_length=1, max_length=KEY_QUEUES_MAX)] | None = None
    rate_limit: Annotated[int, Meta(ge=1, le=KEY_RATE_MAX)] | None = None
    expires_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None


class RotateKeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """For how long the secret that the key has now goes on working beside the new one."""

    overlap_ms: Annotated[int, Meta(ge=0, le=OVERLAP_MS_MAX)] = OVERLAP_MS_DEFAULT


_CREATE_KEY = msgspec.json.Decoder(CreateKeyBody)
_ROTATE_KEY = msgspec.json.Decoder(RotateKeyBody)


def create_key_fields(body: bytes, now_us: int) -> tuple[CreateKeyBody, Grants]:
    """Raises InvalidRequest. `now_us`: what `expires_at` is held against, Unix microseconds."""
    fields = decode(body, _CREATE_KEY)
    at_most("name", len(fields.name.encode()), KEY_NAME_BYTES_MAX)
    at_most("owner_id", len(fields.owner_id.encode()), OWNER_ID_BYTES_MAX)
    if not _OWNER.fullmatch(fields.owner_id):
        raise InvalidRequest("owner_id must have no control characters, and no space at its ends")
    if fields.type not in KEY_TYPES:
        given = msgspec.json.encode(shown(fields.type)).decode()
        raise InvalidRequest(f"invalid key type: {given} (must be 'client', 'worker', or 'admin')")
    return fields, Grants(_scopes(fields), _queues(fields), fields.rate_limit, _expires_us(fields, now_us))


def rotate_key_fields(body: bytes) -> RotateKeyBody:
    """Raises InvalidRequest."""
    return decode(body, _ROTATE_KEY) if body else RotateKeyBody()


def _scopes(fields: CreateKeyBody) -> tuple[str, ...] | None:
    if fields.scopes is None:
        return None
    if fields.type == "admin":
        raise InvalidRequest("scopes must be left out when type is admin: such a key may do everything")
    for scope in fields.scopes:
        if scope not in SCOPES:
            raise InvalidRequest(f"scopes must be some of {', '.join(SCOPES)}, not {shown(scope)}")
    return tuple(dict.fromkeys(fields.scopes))


def _queues(fields: CreateKeyBody) -> frozenset[str] | None:
    if fields.queues is None:
        return None
    if fields.type != "worker":
        raise InvalidRequest("queues must be left out unless type is worker")
    return frozenset(queue_name(name, "queues") for name in fields.queues)


def _expires_us(fields: CreateKeyBody, now_us: int) -> int | None:
    if fields.expires_at is None:
        return None
    expires_us = time_us(fields.expires_at, "expires_at")
    if expires_us <= now_us:
        raise InvalidRequest("expires_at must be in the future")
    return expires_us
