"""Keys, and the contract of a key store."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from hashlib import sha256
from typing import Protocol

import msgspec

from fastq.engine.commands import Principal
from fastq.errors import KeyNotFound, NotKeyOwner

DEFAULT_SCOPES: dict[str, tuple[str, ...]] = {
    "client": ("jobs:submit", "jobs:read", "keys:read", "keys:revoke"),
    "worker": ("jobs:lease", "jobs:ack", "jobs:read", "keys:read", "keys:revoke"),
    "admin": (
        "jobs:submit", "jobs:read", "jobs:lease", "jobs:ack", "keys:create", "keys:revoke", "keys:read",
    ),
}  # fmt: skip
KEY_TYPES = tuple(DEFAULT_SCOPES)
USED_EVERY_US = 3_600_000_000  # between two writes of one key's last use
SECRET_BYTES, ID_BYTES = 24, 9  # random bytes; in base64 they are a third longer
FOR_EVER_US = 1 << 62

Changed = Callable[[Collection[str] | None], None]
"""Called with the key_ids whose `find` may have a new result; None: all keys."""


class Grants(msgspec.Struct, frozen=True):
    """The options of a new key.

    Args:
        scopes: None: the scopes of its type.
        queues: the only ones whose jobs exist for the key; None: all.
        rate_limit: requests a second; None: no limit.
        expires_us: when it expires; None: never.
    """

    scopes: tuple[str, ...] | None = None
    queues: frozenset[str] | None = None
    rate_limit: int | None = None
    expires_us: int | None = None


PLAIN = Grants()


class KeyRecord(msgspec.Struct, frozen=True):
    """A key without its secret. Times are Unix microseconds."""

    key_id: str
    masked: str
    name: str
    owner_id: str
    type: str
    scopes: tuple[str, ...]
    created_us: int
    revoked_us: int | None
    last_used_us: int
    expires_us: int | None = None
    queues: frozenset[str] | None = None
    rate_limit: int | None = None

    def principal(self, isolated: bool = True) -> Principal:
        """Return who uses the key.

        Args:
            isolated: a client key sees only its owner's jobs.
        """
        expires_us = FOR_EVER_US if self.expires_us is None else self.expires_us
        scopes = frozenset(self.scopes)
        return Principal(self.key_id, self.owner_id, self.type, scopes, self.queues, isolated, expires_us)

    def until(self, end_us: int) -> KeyRecord:
        """Return the record for the key's old secret, which expires at `end_us`."""
        return msgspec.structs.replace(self, expires_us=min(end_us, self.expires_us or FOR_EVER_US))


Records = list[KeyRecord]


class KeyStore(Protocol):
    """A store of keys. A change takes effect when its call returns, and is durable when the log is.

    Methods that ask another process raise KeyStoreUnavailable if it does not answer or is not the right one.
    """

    asks_elsewhere: bool
    """Whether `find` asks another process. Then a flood of wrong keys must not reach it."""

    @property
    def trusted_until_us(self) -> int:
        """Until when the results of `find` are valid, unless `watch` reports a change. Unix microseconds."""

    @property
    def is_unused(self) -> bool:
        """Whether neither the store nor the log ever had a key."""

    async def claim(self, anew: bool = False) -> None:
        """Bind the log in this data directory to this store.

        Args:
            anew: even if the log is bound to another store, or this one was emptied since.
        """

    async def create(
        self, name: str, owner_id: str, type: str, now_us: int, by_key_id: str = "", grants: Grants = PLAIN
    ) -> tuple[str, KeyRecord]:
        """Create a key of one of KEY_TYPES. Return its secret, which the store does not keep, and its record."""

    async def adopt(self, secret: str, name: str, owner_id: str, type: str, now_us: int) -> KeyRecord:
        """Create a key with the given secret."""

    async def list(self, owner_id: str | None) -> list[KeyRecord]:
        """Return the keys of one owner, or all, the oldest first, with revoked ones that are still kept."""

    def pages(self, owner_id: str | None, after: tuple[int, str] = (0, "")) -> AsyncIterator[Records]:
        """Yield the same in pieces, each made in about a millisecond.

        Args:
            after: created_us and key_id of the last key before.
        """

    async def find(self, secret: str) -> KeyRecord | None:
        """Return the key with the secret, even if it is revoked or expired."""

    async def revoke(self, key_or_id: str, who: Principal) -> KeyRecord:
        """Revoke a key, given its id or its secret. A revoked key does not change.

        Raises:
            KeyNotFound.
            NotKeyOwner: the key belongs to another owner and `who` is no admin.
        """

    async def rotate(
        self, key_id: str, who: Principal, overlap_ms: int, *, is_seen: bool = True
    ) -> tuple[str, KeyRecord]:
        """Give a key a new secret. The old secret works for `overlap_ms`; an older one stops at once.

        Args:
            is_seen: False: until `note_seen` nobody has the new secret, and the next rotation replaces it and keeps
                the old one. A Redis key store takes every secret for seen.
        Raises:
            KeyNotFound, NotKeyOwner, KeyIsRevoked.
        """

    async def note_seen(self, key_id: str, who: Principal) -> None:
        """Note that somebody has the secret of the last rotation."""

    def touch(self, record: KeyRecord, now_us: int) -> None:
        """Record the use of a key in memory. `save_used` writes it."""

    async def save_used(self, every_us: int = USED_EVERY_US) -> int:
        """Write the last use of each key whose written one is `every_us` older. Return the number of keys."""

    def watch(self, changed: Changed) -> None:
        """Call `changed` whenever a result of `find` may be outdated."""


class Documents(Protocol):
    """The documents of the engine, as key stores use them."""

    def documents(self, kind: int) -> dict[str, bytes]: ...
    def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None: ...
    def put_documents(self, kind: int, bodies: Mapping[str, bytes], key_id: str = "") -> None:
        """Put documents in one record. Raises DiskFull, Overloaded."""

    def drop_documents(self, kind: int, names: Sequence[str]) -> None:
        """Drop documents in one record. Raises DiskFull, Overloaded."""

    async def durable(self) -> None: ...
    async def caught_up(self) -> None: ...
    def now_us(self) -> int: ...


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def masked(secret: str) -> str:
    """Return the masked secret: its type and its last four characters."""
    return f"{secret.partition('_')[0]}_****{secret[-4:]}"


def new_secret(type: str) -> str:
    return f"{type}_{secrets.token_urlsafe(SECRET_BYTES)}"


def new_key_id(type: str) -> str:
    return f"{type}_{secrets.token_urlsafe(ID_BYTES)}"


def new_store_id() -> str:
    return secrets.token_hex(16)


def require_owner(who: Principal, owner_id: str | None) -> None:
    """Check that `who` may change a key of `owner_id`, None for a key that does not exist.

    Raises:
        KeyNotFound.
        NotKeyOwner: the key belongs to another owner and `who` is no admin.
    """
    if owner_id is None:
        raise KeyNotFound
    if not who.is_admin and who.owner_id != owner_id:
        raise NotKeyOwner
