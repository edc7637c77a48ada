"""Keys as documents in the job log: as durable as jobs, without other software."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from heapq import heappop, heappush

import msgspec

from fastq.engine.commands import Principal
from fastq.engine.documents import DocumentKind
from fastq.errors import ApiError, KeyIsRevoked
from fastq.services.keys.records import (
    DEFAULT_SCOPES,
    FOR_EVER_US,
    PLAIN,
    USED_EVERY_US,
    Changed,
    Documents,
    Grants,
    KeyRecord,
    Records,
    digest_of,
    masked,
    new_key_id,
    new_secret,
    require_owner,
)

SLICE = 50  # keys that one record has, before the loop does other work
SYNCED_AT_ONCE = 10_000  # keys whose last uses are written before the log catches up
ENDED_KEPT_US = 30 * 86_400_000_000  # how long revoked and expired keys are shown
REVOKED_MAX = 1_000  # revoked keys that are shown; above it the oldest go

Age = tuple[int, str]  # created_us, key_id: the order of lists


class StoredKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key's document: JSON under its key_id. A later version may add members with defaults."""

    digest: str  # SHA-256 of the secret, hexadecimal
    masked: str
    name: str
    owner_id: str
    type: str
    scopes: tuple[str, ...]
    created_us: int
    last_used_us: int
    revoked_us: int | None = None
    expires_us: int | None = None
    queues: tuple[str, ...] | None = None
    rate_limit: int | None = None
    old_digest: str = ""  # of the secret before the last rotation
    old_until_us: int = 0  # when that secret expires
    is_unseen: bool = False  # the secret was made by a command that has not shown it

    @property
    def ended_us(self) -> int | None:
        """When it was revoked or expires; None if neither."""
        return self.expires_us if self.revoked_us is None else self.revoked_us

    def record(self, key_id: str, last_used_us: int) -> KeyRecord:
        return KeyRecord(
            key_id, self.masked, self.name, self.owner_id, self.type, self.scopes, self.created_us, self.revoked_us,
            last_used_us, self.expires_us, None if self.queues is None else frozenset(self.queues), self.rate_limit,
        )  # fmt: skip


class LogKeyStore:
    """All keys in memory. Every change is a document.

    Keys that ended, by revocation or expiry, are removed after ENDED_KEPT_US, and revoked ones above REVOKED_MAX at
    once. A secret without a key is refused as that of a revoked one is: the log is the only place where keys are.

    A lookup compares digests in a dict. Its time may depend on the digest. Nobody can choose a secret whose digest is
    close to another one, so the time reveals no secret.
    """

    asks_elsewhere = False
    trusted_until_us = FOR_EVER_US

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._keys: dict[str, StoredKey] = {}
        self._id_by_digest: dict[str, str] = {}
        self._used_us: dict[str, int] = {}
        self._watchers: list[Changed] = []
        self._by_age: list[Age] = []
        self._of_owner: dict[str, list[Age]] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()  # the earliest first
        self._gone: list[Age] = []  # a heap of (when it is removed, key_id); entries of other times are outdated
        for key_id, body in documents.documents(DocumentKind.API_KEY).items():
            self._keys[key_id] = msgspec.json.decode(body, type=StoredKey)
        self._by_age = sorted((stored.created_us, key_id) for key_id, stored in self._keys.items())
        for age in self._by_age:
            self._of_owner.setdefault(self._keys[age[1]].owner_id, []).append(age)
        for key_id, stored in sorted(self._keys.items(), key=lambda named: named[1].revoked_us or 0):
            self._note(key_id, stored)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def is_unused(self) -> bool:
        return not self._keys and not self._documents.documents(DocumentKind.KEY_STORE)

    async def claim(self, anew: bool = False) -> None:
        """Do nothing: the log is the store."""

    async def create(
        self, name: str, owner_id: str, type: str, now_us: int, by_key_id: str = "", grants: Grants = PLAIN
    ) -> tuple[str, KeyRecord]:
        secret = new_secret(type)
        return secret, self._make(secret, name, owner_id, type, now_us, by_key_id, grants)

    async def adopt(self, secret: str, name: str, owner_id: str, type: str, now_us: int) -> KeyRecord:
        return self._make(secret, name, owner_id, type, now_us, "", PLAIN)

    def _make(
        self, secret: str, name: str, owner_id: str, type: str, now_us: int, by_key_id: str, grants: Grants
    ) -> KeyRecord:
        key_id = new_key_id(type)
        assert key_id not in self._keys, "72 random bits came up twice"
        stored = StoredKey(
            digest_of(secret),
            masked(secret),
            name,
            owner_id,
            type,
            DEFAULT_SCOPES[type] if grants.scopes is None else grants.scopes,
            now_us,
            now_us,
            expires_us=grants.expires_us,
            queues=None if grants.queues is None else tuple(sorted(grants.queues)),
            rate_limit=grants.rate_limit,
        )
        self._put({key_id: stored}, by_key_id)
        age = (stored.created_us, key_id)
        insort(self._by_age, age)
        insort(self._of_owner.setdefault(owner_id, []), age)
        self._remember(key_id, stored)
        self._remove_ended(2)
        return self._record(key_id)

    async def list(self, owner_id: str | None) -> Records:
        return [record async for page in self.pages(owner_id) for record in page]

    async def pages(self, owner_id: str | None, after: Age = (0, "")) -> AsyncIterator[Records]:
        while True:
            ages = self._by_age if owner_id is None else self._of_owner.get(owner_id, [])
            at = bisect_right(ages, after)
            page = [self._record(key_id) for _, key_id in ages[at : at + SLICE]]
            if not page:
                return
            after = (page[-1].created_us, page[-1].key_id)
            yield page

    async def find(self, secret: str) -> KeyRecord | None:
        digest = digest_of(secret)
        key_id = self._id_by_digest.get(digest)
        if key_id is None:
            return None
        record, stored = self._record(key_id), self._keys[key_id]
        if digest == stored.old_digest:
            record = record.until(stored.old_until_us)
        return record

    async def revoke(self, key_or_id: str, who: Principal) -> KeyRecord:
        key_id, stored = self._named(key_or_id, who)
        if stored.revoked_us is not None:
            return self._record(key_id)
        self._change(key_id, msgspec.structs.replace(stored, revoked_us=self._documents.now_us()), who)
        record = self._record(key_id)
        self._remove_ended(2)
        return record

    async def rotate(
        self, key_id: str, who: Principal, overlap_ms: int, *, is_seen: bool = True
    ) -> tuple[str, KeyRecord]:
        key_id, stored = self._named(key_id, who)
        if stored.revoked_us is not None:
            raise KeyIsRevoked
        secret, now_us = new_secret(stored.type), self._documents.now_us()
        old_digest, old_until_us = stored.digest, now_us + overlap_ms * 1000
        if stored.is_unseen:  # the secret in use is the one before it, if it has not expired
            old_digest, old_until_us = stored.old_digest, old_until_us if stored.old_until_us > now_us else 0
        rotated = msgspec.structs.replace(
            stored,
            digest=digest_of(secret),
            masked=masked(secret),
            old_digest=old_digest,
            old_until_us=old_until_us,
            is_unseen=not is_seen,
        )
        self._change(key_id, rotated, who)
        return secret, self._record(key_id)

    async def note_seen(self, key_id: str, who: Principal) -> None:
        self._change(key_id, msgspec.structs.replace(self._keys[key_id], is_unseen=False), who)

    def touch(self, record: KeyRecord, now_us: int) -> None:
        self._used_us[record.key_id] = now_us

    async def save_used(self, every_us: int = USED_EVERY_US) -> int:
        """Write the last uses, many in a record, no faster than the disk takes them. Also remove keys that ended."""
        moved = [
            key_id for key_id, used_us in self._used_us.items() if used_us - self._keys[key_id].last_used_us >= every_us
        ]
        for at in range(0, len(moved), SLICE):
            if at and at % SYNCED_AT_ONCE == 0:
                await self._documents.caught_up()
            used = {
                key_id: msgspec.structs.replace(self._keys[key_id], last_used_us=self._used_us[key_id])
                for key_id in moved[at : at + SLICE]
                if key_id in self._keys
            }
            self._put(used, "")
            self._keys.update(used)
            await asyncio.sleep(0)
        removed = SLICE
        while removed == SLICE:
            removed = self._remove_ended(SLICE)
            await asyncio.sleep(0)
        return len(moved)

    # --- keys that ended ----------------------------------------------------------------------------------------------

    def _note(self, key_id: str, stored: StoredKey) -> None:
        """Note a key's secrets and its end."""
        self._id_by_digest[stored.digest] = key_id
        if stored.old_digest:
            self._id_by_digest[stored.old_digest] = key_id
        if stored.revoked_us is not None:
            self._revoked[key_id] = None
        else:
            self._revoked.pop(key_id, None)
        if stored.ended_us is not None:
            heappush(self._gone, (stored.ended_us + ENDED_KEPT_US, key_id))

    def _remove_ended(self, limit: int) -> int:
        """Remove up to `limit` keys that ended long ago, or are revoked and too many. Returns how many."""
        if not self._gone and len(self._revoked) <= REVOKED_MAX:
            return 0
        ended: list[str] = []
        now_us = self._documents.now_us()
        for key_id in self._revoked:
            if len(self._revoked) - len(ended) <= REVOKED_MAX or len(ended) == limit:
                break
            ended.append(key_id)
        while self._gone and len(ended) < limit and self._gone[0][0] <= now_us:
            gone_us, key_id = heappop(self._gone)
            stored = self._keys.get(key_id)
            if stored is not None and stored.ended_us == gone_us - ENDED_KEPT_US and key_id not in ended:
                ended.append(key_id)
        if not ended:
            return 0
        try:
            self._documents.drop_documents(DocumentKind.API_KEY, ended)
        except ApiError:  # no room now: they go later
            for key_id in ended:
                self._note(key_id, self._keys[key_id])
            return 0
        for key_id in ended:
            self._remove(key_id)
        return len(ended)

    def _remove(self, key_id: str) -> None:
        stored = self._keys.pop(key_id)
        self._id_by_digest.pop(stored.digest, None)
        self._id_by_digest.pop(stored.old_digest, None)
        self._used_us.pop(key_id, None)
        self._revoked.pop(key_id, None)
        age = (stored.created_us, key_id)
        del self._by_age[bisect_left(self._by_age, age)]
        ages = self._of_owner[stored.owner_id]
        del ages[bisect_left(ages, age)]
        if not ages:
            del self._of_owner[stored.owner_id]
        self._notify(key_id)

    # --- keys ---------------------------------------------------------------------------------------------------------

    def watch(self, changed: Changed) -> None:
        self._watchers.append(changed)

    def _named(self, key_or_id: str, who: Principal) -> tuple[str, StoredKey]:
        """Find a key that `who` may change. Raises KeyNotFound, NotKeyOwner."""
        key_id = self._id_by_digest.get(digest_of(key_or_id), key_or_id)
        stored = self._keys.get(key_id)
        require_owner(who, None if stored is None else stored.owner_id)
        assert stored is not None
        return key_id, stored

    def _record(self, key_id: str) -> KeyRecord:
        stored = self._keys[key_id]
        return stored.record(key_id, max(stored.last_used_us, self._used_us.get(key_id, 0)))

    def _remember(self, key_id: str, stored: StoredKey) -> None:
        if before := self._keys.get(key_id):
            self._id_by_digest.pop(before.digest, None)
            self._id_by_digest.pop(before.old_digest, None)
        self._keys[key_id] = stored
        self._note(key_id, stored)

    def _change(self, key_id: str, stored: StoredKey, who: Principal) -> None:
        """Change a key. The change takes effect with the next request, before it is durable."""
        before = self._keys[key_id]
        self._remember(key_id, stored)
        self._notify(key_id)
        try:
            self._put({key_id: stored}, who.key_id)
        except ApiError:  # nothing was written
            self._remember(key_id, before)
            self._notify(key_id)
            raise

    def _notify(self, key_id: str) -> None:
        for changed in self._watchers:
            changed((key_id,))

    def _put(self, stored: Mapping[str, StoredKey], by_key_id: str) -> None:
        bodies = {key_id: msgspec.json.encode(one) for key_id, one in stored.items()}
        self._documents.put_documents(DocumentKind.API_KEY, bodies, by_key_id)
