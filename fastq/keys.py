"""API keys. A key's secret is shown once, when it is made; what is kept is its SHA-256, and it is looked up by that."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

import msgspec

from fastq.commands import Principal
from fastq.errors import ApiError, KeyNotFound, NotKeyOwner

DEFAULT_SCOPES: dict[str, tuple[str, ...]] = {
    "client": ("jobs:submit", "jobs:read", "keys:read", "keys:revoke"),
    "worker": ("jobs:lease", "jobs:ack", "jobs:read", "keys:read", "keys:revoke"),
    "admin": (
        "jobs:submit", "jobs:read", "jobs:lease", "jobs:ack", "keys:create", "keys:revoke", "keys:read",
    ),
}  # fmt: skip
KEY_TYPES = tuple(DEFAULT_SCOPES)
KEY_DOCUMENT = 1  # the kind of the documents that keys are kept as
USED_EVERY_US = 3_600_000_000  # `last_used` is written at most this often for one key
SECRET_BYTES, ID_BYTES = 24, 9  # random bytes; a third more characters each


class KeyRecord(msgspec.Struct, frozen=True):
    """What is known about a key, without its secret. Times are Unix microseconds."""

    key_id: str
    masked: str
    name: str
    owner_id: str
    type: str
    scopes: tuple[str, ...]
    created_us: int
    revoked_us: int | None
    last_used_us: int

    def principal(self) -> Principal:
        return Principal(self.key_id, self.owner_id, self.type, frozenset(self.scopes))


class KeyStore(Protocol):
    """Where keys are kept. A change has happened for good when its call returns."""

    async def create(
        self, name: str, owner_id: str, type: str, now_us: int, by_key_id: str = ""
    ) -> tuple[str, KeyRecord]:
        """Make a key of one of KEY_TYPES with its default scopes; its secret, to be shown once, and its record."""

    async def list(self, owner_id: str | None) -> list[KeyRecord]:
        """The keys of one owner, or all; the oldest first, revoked ones included."""

    async def find(self, secret: str) -> KeyRecord | None:
        """The key with that secret, also a revoked one."""

    async def revoke(self, key_or_id: str, who: Principal) -> KeyRecord:
        """End a key, named by its id or its secret. One that was revoked before stays as it was.

        Raises:
            KeyNotFound, or NotKeyOwner: it is another owner's and `who` is no admin.
        """

    def touch(self, record: KeyRecord, now_us: int) -> None:
        """The key was used. Remembered in memory, written now and then by `save_used`."""

    async def save_used(self, every_us: int = USED_EVERY_US) -> int:
        """Write the last use of each key for which it has moved by `every_us` or more; how many those were."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever what `find` said before may be wrong now."""


class Documents(Protocol):
    """The part of the engine that keys are kept in."""

    def documents(self, kind: int) -> dict[str, bytes]: ...
    async def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None: ...
    async def settled(self) -> None: ...
    def now_us(self) -> int: ...


class StoredKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key's document: JSON under its key_id. A later version may add members that have defaults."""

    digest: str  # SHA-256 of the secret, hexadecimal
    masked: str
    name: str
    owner_id: str
    type: str
    scopes: tuple[str, ...]
    created_us: int
    last_used_us: int
    revoked_us: int | None = None

    def record(self, key_id: str, last_used_us: int) -> KeyRecord:
        return KeyRecord(
            key_id, self.masked, self.name, self.owner_id, self.type, self.scopes, self.created_us, self.revoked_us,
            last_used_us,
        )  # fmt: skip


def digest_of(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def masked(secret: str) -> str:
    """What may be shown: the type and the last four of 32 characters."""
    return f"{secret.partition('_')[0]}_****{secret[-4:]}"


class LogKeyStore:
    """Keys as documents of the log that holds the jobs: as durable as those, and nothing to install.

    A lookup compares digests by way of a dict. Its time may depend on the digest, but nobody can steer a digest towards
    another one, so no secret can be found out by that.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._keys: dict[str, StoredKey] = {}
        self._id_by_digest: dict[str, str] = {}
        self._used_us: dict[str, int] = {}
        self._watchers: list[Callable[[], None]] = []
        for key_id, body in documents.documents(KEY_DOCUMENT).items():
            self._remember(key_id, msgspec.json.decode(body, type=StoredKey))

    def __len__(self) -> int:
        return len(self._keys)

    async def create(
        self, name: str, owner_id: str, type: str, now_us: int, by_key_id: str = ""
    ) -> tuple[str, KeyRecord]:
        secret = self.new_secret(type)
        return secret, await self.adopt(secret, name, owner_id, type, now_us, by_key_id)

    @staticmethod
    def new_secret(type: str) -> str:
        return f"{type}_{secrets.token_urlsafe(SECRET_BYTES)}"

    async def adopt(
        self, secret: str, name: str, owner_id: str, type: str, now_us: int, by_key_id: str = ""
    ) -> KeyRecord:
        """Make a key whose secret comes from elsewhere."""
        key_id = f"{type}_{secrets.token_urlsafe(ID_BYTES)}"
        assert key_id not in self._keys, "72 random bits came up twice"
        stored = StoredKey(
            digest_of(secret), masked(secret), name, owner_id, type, DEFAULT_SCOPES[type], now_us, now_us
        )
        await self._put(key_id, stored, by_key_id)
        self._remember(key_id, stored)
        return self._record(key_id)

    async def list(self, owner_id: str | None) -> list[KeyRecord]:
        records = [self._record(key_id) for key_id in self._keys]
        await self._documents.settled()
        shown = [record for record in records if owner_id is None or record.owner_id == owner_id]
        return sorted(shown, key=lambda record: (record.created_us, record.key_id))

    async def find(self, secret: str) -> KeyRecord | None:
        key_id = self._id_by_digest.get(digest_of(secret))
        if key_id is None:
            return None
        record = self._record(key_id)
        if record.revoked_us is not None:
            await self._documents.settled()
        return record

    async def revoke(self, key_or_id: str, who: Principal) -> KeyRecord:
        key_id = self._id_by_digest.get(digest_of(key_or_id), key_or_id)
        stored = self._keys.get(key_id)
        if stored is None:
            raise KeyNotFound
        if not who.is_admin and who.owner_id != stored.owner_id:
            raise NotKeyOwner
        if stored.revoked_us is not None:
            await self._documents.settled()
            return self._record(key_id)
        revoked = msgspec.structs.replace(stored, revoked_us=self._documents.now_us())
        self._change(key_id, revoked)  # from the next request on, not only when it is durable
        try:
            await self._put(key_id, revoked, who.key_id)
        except ApiError:  # refused: nothing was written, so nothing happened
            self._change(key_id, stored)
            raise
        return self._record(key_id)

    def touch(self, record: KeyRecord, now_us: int) -> None:
        self._used_us[record.key_id] = now_us

    async def save_used(self, every_us: int = USED_EVERY_US) -> int:
        moved = [
            (key_id, used_us)
            for key_id, used_us in self._used_us.items()
            if used_us - self._keys[key_id].last_used_us >= every_us
        ]
        for key_id, used_us in moved:
            stored = msgspec.structs.replace(self._keys[key_id], last_used_us=used_us)
            self._keys[key_id] = stored
            await self._put(key_id, stored, "")
        return len(moved)

    def watch(self, changed: Callable[[], None]) -> None:
        self._watchers.append(changed)

    def _record(self, key_id: str) -> KeyRecord:
        stored = self._keys[key_id]
        return stored.record(key_id, max(stored.last_used_us, self._used_us.get(key_id, 0)))

    def _remember(self, key_id: str, stored: StoredKey) -> None:
        self._keys[key_id] = stored
        self._id_by_digest[stored.digest] = key_id

    def _change(self, key_id: str, stored: StoredKey) -> None:
        self._keys[key_id] = stored
        for changed in self._watchers:
            changed()

    async def _put(self, key_id: str, stored: StoredKey, by_key_id: str) -> None:
        await self._documents.put_document(KEY_DOCUMENT, key_id, msgspec.json.encode(stored), by_key_id)
