"""From the Authorization header to who asks."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from fastq.commands import Principal
from fastq.errors import Unauthenticated
from fastq.keys import KeyRecord, KeyStore

SCHEME = "Bearer "
CACHED_MAX = 10_000  # keys known without asking the store; past it all are forgotten and asked for again


class Authenticator:
    """Knows the keys that were used lately: one digest and one dict lookup a request.

    Everything is forgotten when any key changes, which is rare, so a revocation holds from the next request on.
    """

    def __init__(self, store: KeyStore, now_us: Callable[[], int]) -> None:
        self._store = store
        self._now_us = now_us
        self._known: dict[bytes, tuple[KeyRecord, Principal]] = {}
        self._generation = 0
        store.watch(self.forget)

    async def principal(self, authorization: str | None) -> Principal:
        """Who makes a request with this header.

        Raises:
            Unauthenticated: no header, another scheme (its word is case-sensitive), an unknown key or a revoked one.
        """
        secret = _secret(authorization)
        digest = _digest(secret)
        known = self._known.get(digest)
        if known is None:
            known = await self._ask(secret, digest)
        record, principal = known
        self._store.touch(record, self._now_us())
        return principal

    def known(self, authorization: str | None) -> Principal | None:
        """The same without waiting: None if only `principal` can tell, whatever it then says."""
        if not authorization or not authorization.startswith(SCHEME):
            return None
        known = self._known.get(_digest(authorization[len(SCHEME) :]))
        if known is None:
            return None
        record, principal = known
        self._store.touch(record, self._now_us())
        return principal

    def forget(self) -> None:
        self._generation += 1
        self._known.clear()

    async def _ask(self, secret: str, digest: bytes) -> tuple[KeyRecord, Principal]:
        generation = self._generation
        record = await self._store.find(secret)
        if record is None:
            raise Unauthenticated("Invalid API key")
        if record.revoked_us is not None:
            raise Unauthenticated("API key has been revoked")
        known = record, record.principal()
        if generation == self._generation:  # else it may have been revoked since the store looked
            if len(self._known) >= CACHED_MAX:
                self._known.clear()
            self._known[digest] = known
        return known


def _secret(authorization: str | None) -> str:
    if not authorization:
        raise Unauthenticated("Missing Authorization header")
    secret = authorization.removeprefix(SCHEME)
    if secret == authorization or not secret:
        raise Unauthenticated("Invalid Authorization header format. Expected: Bearer <token>")
    return secret


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
