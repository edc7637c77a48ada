"""Keys in Redis, shared with other servers. Revocations are in the log too.

Redis with its default settings can lose writes. So a revocation is durable in the log before it is written to Redis,
and the log has the id of its store: an empty store or another one is not trusted. While Redis cannot be trusted, cached
keys work for `grace_us`, and all other keys are refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from heapq import merge
from operator import itemgetter
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from fastq.engine.commands import Principal
from fastq.engine.documents import DocumentKind
from fastq.errors import BadSetting, KeyIsRevoked, KeyStoreUnavailable
from fastq.services.keys import redis_layout as layout
from fastq.services.keys.records import (
    DEFAULT_SCOPES,
    PLAIN,
    Changed,
    Documents,
    Grants,
    KeyRecord,
    Records,
    digest_of,
    masked,
    new_key_id,
    new_secret,
    new_store_id,
    require_owner,
)
from fastq.services.keys.redis_layout import ACTIVE, CHANGES, REVOKED, SECOND_US, STORE, KeyInRedis, hash_of
from fastq.services.keys.revocations import Revocations

logger = logging.getLogger("fastq.keys")

ANSWER_S = 1.0  # the timeout of one exchange
CHECK_S = 0.4  # between two checks of found keys: a revocation by another server is seen within 1 s
CONNECTIONS_MAX = 16  # the limit of lookups at a time
FOUND_MAX = 10_000  # keys that a check asks for; a full table is cleared
CHUNK = 500  # last uses in one exchange
LISTED = 100  # keys in one exchange, and in a piece of a list
USED_EVERY_US = 60 * SECOND_US
STORE_NAME = "redis"  # the name of the document with the store's id

Command = tuple[str | bytes | int, ...]
Answers = list[Any]
Members = list[str]


class RedisKeyStore:
    """Keys in Redis. Call `open` first, run `watch_store` while the store is used, and `close` it at the end."""

    asks_elsewhere = True

    def __init__(self, url: str, documents: Documents, grace_us: int) -> None:
        """
        Args:
            url: redis://… or rediss://…
            grace_us: how long found keys are valid while Redis cannot be trusted.
        """
        self._redis = Redis.from_url(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            max_connections=2 * CONNECTIONS_MAX,
        )
        self._documents = documents
        self._grace_us = grace_us
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._watchers: list[Changed] = []
        self._found: dict[str, str] = {}  # key_id -> member, of the keys that `find` returned
        self._used_us: dict[str, tuple[str, int]] = {}  # key_id -> (member, last use)
        self._used_written_us: dict[str, int] = {}
        self._revocations = Revocations(documents)
        store = documents.documents(DocumentKind.KEY_STORE).get(STORE_NAME)
        self._store_id = store.decode() if store else ""  # empty: the log is not bound to a store
        self._changes: bytes | None = None
        self._trouble = "it was not asked yet"  # why Redis cannot be trusted; empty if it can
        self._trusted_until_us = 0
        self._is_unused = False

    # --- start and stop -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Check the store. Raises BadSetting if it does not answer and the log is not bound to it."""
        await self.check()
        if self._store_id:
            return
        if self._trouble:
            raise BadSetting(f"REDIS_URL: the key store must answer at a first start: {self._trouble}")
        (keys,) = await self._ask(("EXISTS", ACTIVE, REVOKED))
        self._is_unused = not keys and not self._revocations and not self._documents.documents(DocumentKind.API_KEY)

    @property
    def is_unused(self) -> bool:
        return self._is_unused

    async def claim(self, anew: bool = False) -> None:
        if self._store_id and not anew:
            return
        _, found = await self._ask(("SET", STORE, new_store_id(), "NX"), ("GET", STORE))
        self._store_id = found.decode()
        self._documents.put_document(DocumentKind.KEY_STORE, STORE_NAME, found)
        await self.check()

    async def watch_store(self) -> None:
        """Check the store periodically until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self.check()
            except Exception as error:  # noqa: BLE001 - after any error new keys are refused until the next check
                self._distrust(f"{type(error).__name__} in a check of the store")

    async def close(self) -> None:
        await self._redis.aclose()

    @property
    def trusted_until_us(self) -> int:
        return self._trusted_until_us

    def watch(self, changed: Changed) -> None:
        self._watchers.append(changed)

    # --- checking found keys ------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Check the store's id, whether keys changed, and which of the found keys are revoked."""
        asked_us, found = self._documents.now_us(), list(self._found.items())
        try:
            marks, *active = await self._ask(
                ("MGET", STORE, CHANGES),
                *([("SMISMEMBER", ACTIVE, *(member for _, member in found))] if found else []),
            )
            if not self._is_ours(marks[0]):
                return
            if self._trouble or marks[1] != self._changes:
                await self._came_back()
                self._changes, self._trouble = marks[1], ""
                self._forget(None)
            elif found:
                self._forget([key_id for (key_id, _), is_active in zip(found, active[0], strict=True) if not is_active])
            self._trusted_until_us = asked_us + self._grace_us
        except KeyStoreUnavailable as error:
            self._distrust(error.detail)

    def _is_ours(self, store_id: bytes | None) -> bool:
        if not self._store_id or store_id == self._store_id.encode():
            return True
        what = "it was emptied" if store_id is None else "it is another store"
        self._distrust(f"{what}, not the one that the log in this data directory is bound to")
        return False

    def _distrust(self, trouble: str) -> None:
        if not self._trouble or trouble != self._trouble:
            logger.warning("the key store cannot be trusted, keys that are not cached are refused: %s", trouble)
        self._trouble = trouble

    async def _came_back(self) -> None:
        """Revoke again what the log says is revoked: the store may be restored from an older copy."""
        if self._trouble and self._trusted_until_us:
            logger.info("the key store can be trusted again")
        if not self._revocations:
            return
        async for members in self._scan_set(ACTIVE):
            revived = []
            for member in members:
                for key_id in (member, layout.derived_key_id(member, member.partition("_")[0])):
                    revoked_us = self._revocations.at_us(key_id)
                    if revoked_us is not None:
                        revived.append(_revocation(member, revoked_us))
            if revived:
                await self._ask(*revived)

    def _forget(self, key_ids: Sequence[str] | None) -> None:
        """Remove found keys and notify the watchers; None: all keys."""
        if key_ids is None:
            self._found.clear()
        elif not key_ids:
            return
        else:
            for key_id in key_ids:
                self._found.pop(key_id, None)
        for changed in self._watchers:
            changed(key_ids)

    # --- lookups ------------------------------------------------------------------------------------------------------

    async def find(self, secret: str) -> KeyRecord | None:
        if not layout.MAY_BE_SECRET.fullmatch(secret):
            return None
        self._require_trust()
        key = await self._by_secret(secret)
        record = None if key is None else key.as_seen_with(secret)
        if key is None or record is None:
            return None
        is_revoked_there = record.revoked_us is not None
        record = self._as_known(record)
        if record.revoked_us is not None:
            if not is_revoked_there:  # Redis lost the revocation
                await self._ask(_revocation(key.member, record.revoked_us))
            return record
        if len(self._found) >= FOUND_MAX:
            self._forget(None)
        self._found[record.key_id] = key.member
        return record

    async def _by_secret(self, secret: str) -> KeyInRedis | None:
        """Return the key with the secret, fastq's or the original's. A key_id is not accepted as a secret."""
        marks, plain = await self._ask(
            ("MGET", STORE, layout.id_of_digest(digest_of(secret))), ("HGETALL", hash_of(secret))
        )
        if not self._is_ours(marks[0]):
            self._require_trust()
        if marks[1] is not None:
            return await self._by_member(marks[1].decode("utf-8", "replace"))
        key = layout.decoded(secret, plain) if plain else None
        return key if key is not None and not key.digest else None

    async def _by_member(self, member: str) -> KeyInRedis | None:
        (fields,) = await self._ask(("HGETALL", hash_of(member)))
        return layout.decoded(member, fields) if fields else None

    async def _named(self, key_or_id: str, who: Principal) -> KeyInRedis:
        """Find a key that `who` may change. Raises KeyNotFound, NotKeyOwner, KeyStoreUnavailable."""
        self._require_trust()
        key = None
        if layout.MAY_BE_SECRET.fullmatch(key_or_id):
            key = await self._by_member(key_or_id) or await self._by_secret(key_or_id)
        if key is None:
            key = await self._derived(key_or_id, None if who.is_admin else who.owner_id)
        require_owner(who, None if key is None else key.record.owner_id)
        assert key is not None
        return key

    async def _derived(self, key_id: str, owner_id: str | None) -> KeyInRedis | None:
        """Find an original key by its derived key_id, among one owner's keys or all."""
        async for members in self._scan(owner_id):
            for member in members:
                if layout.derived_key_id(member, member.partition("_")[0]) == key_id:
                    return await self._by_member(member)
        return None

    async def _scan(self, owner_id: str | None) -> AsyncIterator[Members]:
        """Yield the keys of one owner, or all, a few at a time. One that moves meanwhile may come twice."""
        for name in (ACTIVE, REVOKED) if owner_id is None else (layout.owner_set(owner_id),):
            async for members in self._scan_set(name):
                yield members

    async def _scan_set(self, name: str) -> AsyncIterator[Members]:
        cursor = b"0"
        while True:
            ((cursor, found),) = await self._ask(("SSCAN", name, cursor, "COUNT", LISTED))
            yield [member.decode("utf-8", "replace") for member in found]
            if int(cursor) == 0:
                return

    async def list(self, owner_id: str | None) -> Records:
        return [record async for page in self.pages(owner_id) for record in page]

    async def pages(self, owner_id: str | None, after: tuple[int, str] = (0, "")) -> AsyncIterator[Records]:
        """Redis has no order by age: all keys are read first."""
        self._require_trust()
        runs = []
        async for members in self._scan(owner_id):
            hashes = await self._ask(*(("HGETALL", hash_of(member)) for member in members)) if members else []
            keys = [layout.decoded(member, found) for member, found in zip(members, hashes, strict=True)]
            records = [self._as_known(key.record) for key in keys if key is not None]
            runs.append(sorted((((one.created_us, one.key_id), one) for one in records), key=itemgetter(0)))
        page: Records = []
        for age, record in merge(*runs, key=itemgetter(0)):
            if age > after:
                page.append(record)
                after = age
            if len(page) == LISTED:
                yield page
                page = []
        yield page

    def _as_known(self, record: KeyRecord) -> KeyRecord:
        """Return the record with the revocation in the log and the last use in this process."""
        _, used_us = self._used_us.get(record.key_id, ("", 0))
        revoked_us = record.revoked_us
        if revoked_us is None:
            revoked_us = self._revocations.at_us(record.key_id)
        return msgspec.structs.replace(record, revoked_us=revoked_us, last_used_us=max(record.last_used_us, used_us))

    # --- changes ------------------------------------------------------------------------------------------------------

    async def create(
        self, name: str, owner_id: str, type: str, now_us: int, by_key_id: str = "", grants: Grants = PLAIN
    ) -> tuple[str, KeyRecord]:
        secret = new_secret(type)
        return secret, await self._make(secret, name, owner_id, type, now_us, by_key_id, grants)

    async def adopt(self, secret: str, name: str, owner_id: str, type: str, now_us: int) -> KeyRecord:
        return await self._make(secret, name, owner_id, type, now_us, "", PLAIN)

    async def _make(
        self, secret: str, name: str, owner_id: str, type: str, now_us: int, by_key_id: str, grants: Grants
    ) -> KeyRecord:
        self._require_trust()
        scopes = DEFAULT_SCOPES[type] if grants.scopes is None else grants.scopes
        created_us = now_us - now_us % SECOND_US  # Redis stores whole seconds
        record = KeyRecord(
            new_key_id(type), masked(secret), name, owner_id, type, scopes, created_us, None, created_us,
            grants.expires_us, grants.queues, grants.rate_limit,
        )  # fmt: skip
        made_by: Command = ("HSET", hash_of(record.key_id), "created_by", by_key_id)
        await self._ask(*_stored(KeyInRedis(record.key_id, record, digest_of(secret))), made_by, atomic=True)
        return record

    async def revoke(self, key_or_id: str, who: Principal) -> KeyRecord:
        key = await self._named(key_or_id, who)
        record = self._as_known(key.record)
        if record.revoked_us is None:
            record = msgspec.structs.replace(record, revoked_us=self._revoke_in_log(record.key_id, who))
            assert record.revoked_us is not None
            await self._documents.durable()  # a write to Redis is visible outside of this process
            try:
                await self._ask(_revocation(key.member, record.revoked_us))
            except KeyStoreUnavailable as error:
                self._distrust(error.detail)  # then the next check revokes it in Redis
        return record

    def _revoke_in_log(self, key_id: str, who: Principal) -> int:
        """Revoke a key in the log. It takes effect in this server with the next request, even without Redis."""
        revoked_us = self._revocations.add(key_id, who.key_id)
        self._forget([key_id])
        return revoked_us

    async def rotate(self, key_id: str, who: Principal, overlap_ms: int, **_: bool) -> tuple[str, KeyRecord]:
        """Rotate a key. An original key becomes one of fastq's with the same key_id."""
        key = await self._named(key_id, who)
        secret = new_secret(key.record.type)
        until_us = self._documents.now_us() + overlap_ms * 1000
        async with self._exchange(), self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(hash_of(key.member))
            found: Any = await pipe.execute_command("HGETALL", hash_of(key.member))
            now = layout.decoded(key.member, found) if found else None
            if now is None or self._as_known(now.record).revoked_us is not None:
                raise KeyIsRevoked
            record = msgspec.structs.replace(now.record, masked=masked(secret))
            old_digest = now.digest or digest_of(now.member)
            rotated = KeyInRedis(record.key_id, record, digest_of(secret), old_digest, until_us)
            pipe.multi()  # type: ignore[no-untyped-call]  # redis-py has no types for it
            for command in _rotation(now, rotated):
                pipe.execute_command(*command)
            await pipe.execute()
        self._found.pop(record.key_id, None)
        self._forget([record.key_id])
        return secret, self._as_known(record)

    async def note_seen(self, key_id: str, who: Principal) -> None:
        """Do nothing: every secret is taken for seen."""

    # --- last uses ----------------------------------------------------------------------------------------------------

    def touch(self, record: KeyRecord, now_us: int) -> None:
        member = self._found.get(record.key_id)
        if member is not None:
            self._used_us[record.key_id] = member, now_us

    async def save_used(self, every_us: int = USED_EVERY_US) -> int:
        moved = [
            (key_id, member, used_us)
            for key_id, (member, used_us) in self._used_us.items()
            if used_us - self._used_written_us.get(key_id, 0) >= every_us
        ]
        for start in range(0, len(moved), CHUNK):
            chunk = moved[start : start + CHUNK]
            hashes = [hash_of(member) for _, member, _ in chunk]
            times = [used_us // SECOND_US for *_, used_us in chunk]
            await self._ask(("EVAL", layout.USED, len(chunk), *hashes, *times))
            self._used_written_us.update((key_id, used_us) for key_id, _, used_us in chunk)
        for key_id in [key_id for key_id in self._used_written_us if key_id not in self._found]:
            self._used_written_us.pop(key_id)  # the table of found keys bounds both
            self._used_us.pop(key_id, None)
        return len(moved)

    # --- Redis --------------------------------------------------------------------------------------------------------

    def _require_trust(self) -> None:
        if self._trouble:
            raise KeyStoreUnavailable(self._trouble)

    async def _ask(self, *commands: Command, atomic: bool = False) -> Answers:
        """Return the answers in order. Raises KeyStoreUnavailable, whose detail goes to the log."""
        async with self._exchange(), self._redis.pipeline(transaction=atomic) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: Answers = await pipe.execute()
            return answers

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(2 * ANSWER_S), self._places:
                yield
        except WatchError:
            raise KeyStoreUnavailable("another request changed the key meanwhile; try again") from None
        except (RedisError, OSError) as error:  # a timeout is an OSError
            raise KeyStoreUnavailable(_without_arguments(error)) from None


def _stored(key: KeyInRedis) -> Iterable[Command]:
    """Return the commands that store a fastq key with its digests and sets."""
    fields = layout.encoded(key)
    yield "HSET", hash_of(key.member), *(part for field in fields.items() for part in field)
    for digest in filter(None, (key.digest, key.old_digest)):
        yield "SET", layout.id_of_digest(digest), key.member
    for name in (ACTIVE, layout.owner_set(key.record.owner_id), layout.type_set(key.record.type)):
        yield "SADD", name, key.member


def _rotation(before: KeyInRedis, rotated: KeyInRedis) -> Iterable[Command]:
    yield from _stored(rotated)
    if before.old_digest:
        yield "DEL", layout.id_of_digest(before.old_digest)
    if not before.digest:  # an original key: remove its secret
        yield "DEL", hash_of(before.member)
        for name in (ACTIVE, layout.owner_set(before.record.owner_id), layout.type_set(before.record.type)):
            yield "SREM", name, before.member
    yield "INCR", CHANGES


def _revocation(member: str, revoked_us: int) -> Command:
    return "EVAL", layout.REVOKE, 3, hash_of(member), ACTIVE, REVOKED, member, revoked_us // SECOND_US


def _without_arguments(error: Exception) -> str:
    """Return the error's text without the command's arguments, which may have a secret."""
    text = str(error).rpartition("caused error: ")[2].partition(", with args")[0]
    return f"Redis: {text or type(error).__name__}"
