"""Keys as documents in the job log: as durable as jobs, without other software."""

from __future__ import annotations

import asyncio

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
    by_age,
    digest_of,
    masked,
    new_key_id,
    new_secret,
    require_owner,
)

SAVED_AT_ONCE = 100  # writes of last uses before the loop does other work


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

    def record(self, key_id: str, last_used_us: int) -> KeyRecord:
        return KeyRecord(
            key_id, self.masked, self.name, self.owner_id, self.type, self.scopes, self.created_us, self.revoked_us,
            last_used_us, self.expires_us, None if self.queues is None else frozenset(self.queues), self.rate_limit,
        )  # fmt: skip


class LogKeyStore:
    """All keys in memory. Every change is a document.

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
        for key_id, body in documents.documents(DocumentKind.API_KEY).items():
            self._remember(key_id, msgspec.json.decode(body, type=StoredKey))

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
        self._put(key_id, stored, by_key_id)
        self._remember(key_id, stored)
        return self._record(key_id)

    async def list(self, owner_id: str | None) -> list[KeyRecord]:
        records = [self._record(key_id) for key_id in self._keys]
        return by_age([record for record in records if owner_id is None or record.owner_id == owner_id])

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
        return self._record(key_id)

    async def rotate(self, key_id: str, who: Principal, overlap_ms: int) -> tuple[str, KeyRecord]:
        key_id, stored = self._named(key_id, who)
        if stored.revoked_us is not None:
            raise KeyIsRevoked
        secret = new_secret(stored.type)
        rotated = msgspec.structs.replace(
            stored,
            digest=digest_of(secret),
            masked=masked(secret),
            old_digest=stored.digest,
            old_until_us=self._documents.now_us() + overlap_ms * 1000,
        )
        self._change(key_id, rotated, who)
        return secret, self._record(key_id)

    def touch(self, record: KeyRecord, now_us: int) -> None:
        self._used_us[record.key_id] = now_us

    async def save_used(self, every_us: int = USED_EVERY_US) -> int:
        moved = [
            (key_id, used_us)
            for key_id, used_us in self._used_us.items()
            if used_us - self._keys[key_id].last_used_us >= every_us
        ]
        for number, (key_id, used_us) in enumerate(moved, 1):
            stored = msgspec.structs.replace(self._keys[key_id], last_used_us=used_us)
            self._put(key_id, stored, "")
            self._keys[key_id] = stored
            if number % SAVED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return len(moved)

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
        self._id_by_digest[stored.digest] = key_id
        if stored.old_digest:
            self._id_by_digest[stored.old_digest] = key_id

    def _change(self, key_id: str, stored: StoredKey, who: Principal) -> None:
        """Change a key. The change takes effect with the next request, before it is durable."""
        before = self._keys[key_id]
        self._remember(key_id, stored)
        self._notify(key_id)
        try:
            self._put(key_id, stored, who.key_id)
        except ApiError:  # nothing was written
            self._remember(key_id, before)
            self._notify(key_id)
            raise

    def _notify(self, key_id: str) -> None:
        for changed in self._watchers:
            changed((key_id,))

    def _put(self, key_id: str, stored: StoredKey, by_key_id: str) -> None:
        self._documents.put_document(DocumentKind.API_KEY, key_id, msgspec.json.encode(stored), by_key_id)
