"""API keys: create, list, revoke, rotate."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import (
    KEY_NAME_BYTES_MAX,
    KEY_QUEUES_MAX,
    KEY_RATE_MAX,
    OVERLAP_MS_DEFAULT,
    OVERLAP_MS_MAX,
    OWNER_ID_BYTES_MAX,
)
from fastq.errors import InvalidRequest, shown
from fastq.http.decoding import decode, null_as_empty, read_body
from fastq.http.errors import Failure
from fastq.http.fields import SMALL_BODY_BYTES_MAX, QueueName, Time, at_most, queue_name, time_us
from fastq.http.long_answers import array_of
from fastq.http.queries import read_query
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import ADMIN, DISK_FULL, SCOPES, TOO_MUCH, WITH_BODY, Answer, Route
from fastq.services.audit import Audit
from fastq.services.keys import KEY_TYPES, Grants, KeyRecord, KeyStore

PAGE_MAX = 10_000
CREATED_DIGITS_MAX = 18
NO_KEY = Answer(404, "the key does not exist", Failure)
# No control characters, no space at an end: people cannot tell such owners apart.
_OWNER_PATTERN = r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?"
_OWNER = re.compile(_OWNER_PATTERN)

Scope = Annotated[str, Meta(extra_json_schema={"enum": list(SCOPES)})]


class CreateKeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """A key to create.

    `scopes` default to those of its type; an admin key has all and takes none. `queues` are the only ones that a worker
    key may lease from. `rate_limit` is in requests a second.
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
            description=f"At most {OWNER_ID_BYTES_MAX} bytes of UTF-8, no control characters, no space at an end.",
            extra_json_schema={"maxLength": OWNER_ID_BYTES_MAX, "pattern": f"^{_OWNER_PATTERN}$"},
        ),
    ]
    type: Annotated[str, Meta(min_length=1, extra_json_schema={"enum": list(KEY_TYPES)})]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=len(SCOPES))] | None = None
    queues: Annotated[list[QueueName], Meta(min_length=1, max_length=KEY_QUEUES_MAX)] | None = None
    rate_limit: Annotated[int, Meta(ge=1, le=KEY_RATE_MAX)] | None = None
    expires_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None


class RotateKeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """How long the old secret works beside the new one."""

    overlap_ms: Annotated[int, Meta(ge=0, le=OVERLAP_MS_MAX)] = OVERLAP_MS_DEFAULT


class KeyShown(msgspec.Struct, forbid_unknown_fields=True):
    """A key. `key` is its secret in the answer to a create or rotate, else the masked secret."""

    key: str
    key_id: str
    name: str
    owner_id: str
    type: Literal["client", "worker", "admin"]
    scopes: list[str]
    created_at: Time
    last_used_at: Time
    revoked_at: Time | msgspec.UnsetType = msgspec.UNSET
    expires_at: Time | msgspec.UnsetType = msgspec.UNSET
    queues: list[str] | msgspec.UnsetType = msgspec.UNSET
    rate_limit: int | msgspec.UnsetType = msgspec.UNSET


class KeyRevoked(msgspec.Struct, forbid_unknown_fields=True):
    message: str
    key: str
    key_id: str
    revoked_at: Time


class KeysQuery(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_MAX
    cursor: Annotated[str, Meta(max_length=128, description="From the header Link of the previous page.")] = ""


_CREATE_KEY = msgspec.json.Decoder(CreateKeyBody)
_ROTATE_KEY = msgspec.json.Decoder(RotateKeyBody)


def create_key_fields(body: bytes, now_us: int) -> tuple[CreateKeyBody, Grants]:
    """Decode POST /admin/keys. `expires_at` is later than `now_us`, Unix microseconds. Raises InvalidRequest."""
    fields = decode(null_as_empty(body), _CREATE_KEY)
    at_most("name", len(fields.name.encode()), KEY_NAME_BYTES_MAX)
    at_most("owner_id", len(fields.owner_id.encode()), OWNER_ID_BYTES_MAX)
    if not _OWNER.fullmatch(fields.owner_id):
        raise InvalidRequest("owner_id must have no control characters and no space at an end")
    if fields.type not in KEY_TYPES:
        given = msgspec.json.encode(shown(fields.type)).decode()
        raise InvalidRequest(f"invalid key type: {given} (must be 'client', 'worker', or 'admin')")
    return fields, Grants(_scopes(fields), _queues(fields), fields.rate_limit, _expires_us(fields, now_us))


def rotate_key_fields(body: bytes) -> RotateKeyBody:
    """Decode POST /admin/keys/{key_id}/rotate. Raises InvalidRequest."""
    return decode(body, _ROTATE_KEY) if body else RotateKeyBody()


def _scopes(fields: CreateKeyBody) -> tuple[str, ...] | None:
    if fields.scopes is None:
        return None
    if fields.type == "admin":
        raise InvalidRequest("scopes must be left out when type is admin: an admin key has all scopes")
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


def _key(record: KeyRecord, key: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "key": key,
        "key_id": record.key_id,
        "name": record.name,
        "owner_id": record.owner_id,
        "type": record.type,
        "scopes": record.scopes,
        "created_at": time_of(record.created_us),
        "last_used_at": time_of(record.last_used_us),
    }
    if record.revoked_us is not None:
        answer["revoked_at"] = time_of(record.revoked_us)
    if record.expires_us is not None:
        answer["expires_at"] = time_of(record.expires_us)
    if record.queues is not None:
        answer["queues"] = sorted(record.queues)
    if record.rate_limit is not None:
        answer["rate_limit"] = record.rate_limit
    return answer


def key_with_secret(secret: str, record: KeyRecord) -> bytes:
    return encode(_key(record, secret))


def keys_listed(records: list[KeyRecord]) -> bytes:
    return encode([_key(record, record.masked) for record in records])


def _cursor(record: KeyRecord) -> str:
    return f"{record.created_us}.{record.key_id}"


def _age(cursor: str) -> tuple[int, str]:
    """Return what `_cursor` made. Raises InvalidRequest."""
    created, point, key_id = cursor.partition(".")
    if not cursor:
        return 0, ""
    if not (point and key_id and created.isascii() and created.isdigit() and len(created) <= CREATED_DIGITS_MAX):
        raise InvalidRequest("cursor must be one that this server returned with a page")
    return int(created), key_id


def key_revoked(record: KeyRecord) -> bytes:
    assert record.revoked_us is not None, "a key store gave back a key that it did not revoke"
    return encode(
        {
            "message": "Key revoked successfully",
            "key": record.masked,
            "key_id": record.key_id,
            "revoked_at": time_of(record.revoked_us),
        }
    )


class ApiKeys:
    """The responders of /keys and /admin/keys. Only the answer to a create or rotate has a secret."""

    def __init__(self, engine: Engine, keys: KeyStore, audit: Audit) -> None:
        self._engine = engine
        self._keys = keys
        self._audit = audit

    async def create(self, req: Request, resp: Response) -> None:
        body = await read_body(req, SMALL_BODY_BYTES_MAX)
        now_us = self._engine.now_us()
        fields, grants = create_key_fields(body, now_us)
        who = req.context.principal
        details = {"name": fields.name, "owner_id": fields.owner_id, "type": fields.type}
        with self._audit.of_change(who, "key.create", **details) as audited:
            secret, record = await self._keys.create(
                fields.name, fields.owner_id, fields.type, now_us, who.key_id, grants=grants
            )
            audited.target = record.key_id
        resp.status = 201
        self._show_secret(resp, secret, record)

    async def rotate(self, req: Request, resp: Response, key_id: str) -> None:
        fields = rotate_key_fields(await read_body(req, SMALL_BODY_BYTES_MAX))
        who = req.context.principal
        with self._audit.of_change(who, "key.rotate", overlap_ms=fields.overlap_ms) as audited:
            audited.target = key_id
            secret, record = await self._keys.rotate(key_id, who, fields.overlap_ms)
        self._show_secret(resp, secret, record)

    @staticmethod
    def _show_secret(resp: Response, secret: str, record: KeyRecord) -> None:
        resp.content_type = JSON
        resp.set_header("Cache-Control", "no-store")
        resp.data = key_with_secret(secret, record)

    async def list_all(self, req: Request, resp: Response) -> None:
        await self._list(req, resp, None)

    async def list_own(self, req: Request, resp: Response) -> None:
        await self._list(req, resp, req.context.principal.owner_id)

    async def _list(self, req: Request, resp: Response, owner_id: str | None) -> None:
        """Answer with an array, as the original does. If there are more keys, the header Link names the next page."""
        query = read_query(req, KeysQuery)
        left, last, more = query.limit, "", False

        async def slices() -> AsyncIterator[list[Any]]:
            nonlocal left, last, more
            async for page in self._keys.pages(owner_id, _age(query.cursor)):
                shown = page[:left]
                if shown:
                    last = _cursor(shown[-1])
                    left -= len(shown)
                    yield [_key(record, record.masked) for record in shown]
                more = len(shown) < len(page)
                if more:
                    return

        resp.data = await array_of(self._engine, req, slices())
        resp.content_type = JSON
        if more:
            resp.append_header("Link", f'<{req.path}?limit={query.limit}&cursor={last}>; rel="next"')

    async def revoke(self, req: Request, resp: Response, key: str) -> None:
        asked_us = self._engine.now_us()
        key = key.strip()  # as the original does
        if not key:
            raise InvalidRequest("key is required")
        with self._audit.of_change(req.context.principal, "key.revoke") as audited:
            record = await self._keys.revoke(key, req.context.principal)
            audited.target = record.key_id
            audited.is_unchanged = (record.revoked_us or 0) < asked_us  # the key was revoked before
        resp.content_type = JSON
        resp.data = key_revoked(record)

    def routes(self) -> list[Route]:
        return [*self._changes(), *self._lists()]

    def _changes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/admin/keys",
                ADMIN,
                self.create,
                "Create a key",
                (
                    Answer(201, "the key with its secret; no other answer shows it", KeyShown),
                    *WITH_BODY,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
                CreateKeyBody,
            ),
            Route(
                "POST",
                "/admin/keys/{key_id}/rotate",
                ADMIN,
                self.rotate,
                "Rotate a key: create a new secret; the old one works for `overlap_ms`",
                (
                    Answer(200, "the key with its new secret; no other answer shows it", KeyShown),
                    NO_KEY,
                    Answer(409, "the key is revoked", Failure),
                    *WITH_BODY,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
                RotateKeyBody,
                body_optional=True,
            ),
            Route(
                "DELETE",
                "/keys/{key}",
                "keys:revoke",
                self.revoke,
                "Revoke a key, given its key_id or its secret",
                (
                    Answer(200, "the key is revoked, now or before", KeyRevoked),
                    NO_KEY,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
            ),
        ]

    def _lists(self) -> list[Route]:
        what = "the keys, the oldest first, with revoked ones; the header Link names the next page if there is one"
        listed = (Answer(200, what, list[KeyShown]),)
        return [
            Route("GET", "/admin/keys", ADMIN, self.list_all, "List all keys", listed, query=KeysQuery),
            Route(
                "GET",
                "/keys",
                "keys:read",
                self.list_own,
                "List the keys of the caller's owner",
                listed,
                query=KeysQuery,
            ),
        ]
