"""What a key is, whatever store keeps it, and what a store must do."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
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
USED_EVERY_US = 3_600_000_000  # `last_used` is written at most this often for one key
SECRET_BYTES, ID_BYTES = 24, 9  # random bytes; a third more characters each
FOR_EVER_US = 1 << 62

Changed = Callable[[Collection[str] | None], None]
"""Told the key_ids about which `find` may now say something else; None: any of them."""


class Grants(msgspec.Struct, frozen=True):
    """What its maker decides about a key beyond name, owner and type.

    Args:
        scopes: None are the type's own.
        queues: the only ones that it may lease from; None: all.
        rate_limit: requests a second; None: no limit.
        expires_us: from then on it is refused; None: never.
    """

    scopes: tuple[str, ...] | None = None
    queues: frozenset[str] | None = None
    rate_limit: int | None = None
    expires_us: int | None = None


PLAIN = Grants()


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
    expires_us: int | None = None
    queues: frozenset[str] | None = None
    rate_limit: int | None = None

    def principal(self) -> Principal:
        return Principal(self.key_id, self.owner_id, self.type, frozenset(self.scopes), self.queues)

    def until(self, end_us: int) -> KeyRecord:
        """The same key as its old secret sees it: at an end by then."""
        return msgspec.structs.replace(self, expires_us=min(end_us, self.expires_us or FOR_EVER_US))


class KeyStore(Protocol):
    """Where keys are kept. A change is in force when its call returns, and for good when the log is durable that far.

    What asks another process raises KeyStoreUnavailable when that cannot be relied on.
    """

    asks_elsewhere: bool
    """Whether `find` leaves this process, so that a flood of wrong keys must not get that far."""

    @property
    def trusted_until_us(self) -> int:
        """Until when what `find` said before holds, unless `watch` tells otherwise."""

    @property
    def is_unused(self) -> bool:
        """Whether there never was a key here, as far as store and log can tell."""

    async def claim(self, anew: bool = False) -> None:
        """From now on the log in this data directory works with this store, and with no other.

        Args:
            anew: also if it worked with another one before, or this one was emptied since.
        """

    async def create(
        self, name: str, owner_id: str, type: str, now_us: int, by_key_id: str = "", grants: Grants = PLAIN
    ) -> tuple[str, KeyRecord]:
        """Make a key of one of KEY_TYPES; its secret, to be shown once, and its record."""

    async def adopt(self, secret: str, name: str, owner_id: str, type: str, now_us: int) -> KeyRecord:
        """Make a key whose secret comes from elsewhere."""

    async def list(self, owner_id: str | None) -> list[KeyRecord]:
        """The keys of one owner, or all; the oldest first, revoked ones included."""

    async def find(self, secret: str) -> KeyRecord | None:
        """The key with that secret, also a revoked one, or one at its end."""

    async def revoke(self, key_or_id: str, who: Principal) -> KeyRecord:
        """End a key, named by its id or its secret. One that was revoked before stays as it was.

        Raises:
            KeyNotFound, or NotKeyOwner: it is another owner's and `who` is no admin.
        """

    async def rotate(self, key_id: str, who: Principal, overlap_ms: int) -> tuple[str, KeyRecord]:
        """Give a key a new secret; the one that it had lives on for `overlap_ms`, any before that ends now.

        Raises:
            KeyNotFound, NotKeyOwner, or KeyIsRevoked.
        """

    def touch(self, record: KeyRecord, now_us: int) -> None:
        """The key was used. Remembered in memory, written now and then by `save_used`."""

    async def save_used(self, every_us: int = USED_EVERY_US) -> int:
        """Write the last use of each key for which it has moved by `every_us` or more; how many those were."""

    def watch(self, changed: Changed) -> None:
        """Call `changed` whenever what `find` said before may be wrong now."""


class Documents(Protocol):
    """The part of the engine that keys are kept in."""

    def documents(self, kind: int) -> dict[str, bytes]: ...
    def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None: ...
    async def durable(self) -> None: ...
    def now_us(self) -> int: ...


def digest_of(secret: str) -> str:
    """SHA-256, hexadecimal."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def masked(secret: str) -> str:
    """What may be shown: the type and the last four of 32 characters."""
    return f"{secret.partition('_')[0]}_****{secret[-4:]}"


def new_secret(type: str) -> str:
    return f"{type}_{secrets.token_urlsafe(SECRET_BYTES)}"


def new_key_id(type: str) -> str:
    return f"{type}_{secrets.token_urlsafe(ID_BYTES)}"


def new_store_id() -> str:
    return secrets.token_hex(16)


def by_age(records: list[KeyRecord]) -> list[KeyRecord]:
    return sorted(records, key=lambda record: (record.created_us, record.key_id))


def require_owner(who: Principal, owner_id: str | None) -> None:
    """Raises KeyNotFound: there is none (None), or NotKeyOwner: it is another's and `who` is no admin."""
    if owner_id is None:
        raise KeyNotFound
    if not who.is_admin and who.owner_id != owner_id:
        raise NotKeyOwner
