"""Authentication: from the Authorization header to a principal, with rate limits for keys and failures."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256

from fastq.engine.commands import Principal
from fastq.errors import RateLimited, TooManyFailures, Unauthenticated
from fastq.services.buckets import TokenBucket
from fastq.services.keys import KeyRecord, KeyStore

SCHEME = "bearer"  # in any case
CACHED_MAX = 10_000  # keys; above it the oldest are dropped
FAILURES_AT_ONCE, FAILURES_PER_S = 20, 1  # of one address; above it TooManyFailures
ADDRESSES_MAX = 50_000  # with failures; above it those whose last failure is oldest are dropped
IPV6_PREFIX = 64  # one customer has a whole prefix


@dataclass(frozen=True, slots=True)
class Known:
    record: KeyRecord
    principal: Principal
    bucket: TokenBucket | None


class Authenticator:
    """Authenticates requests, with a cache of recently used keys: a request takes one digest and one dict lookup.

    A change of a key removes it from the cache, so a revocation takes effect with the next request.
    """

    def __init__(self, store: KeyStore, now_us: Callable[[], int], owner_isolation: bool = True) -> None:
        """
        Args:
            owner_isolation: client keys see only their owner's jobs.
        """
        self._store, self._owner_isolation = store, owner_isolation
        self._now_us = now_us
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._digests: dict[str, set[bytes]] = {}  # key_id -> its entries in `_known`: a rotated key has two
        self._buckets: OrderedDict[str, tuple[int, TokenBucket]] = OrderedDict()  # key_id -> (its rate limit, bucket)
        self.generation = 0  # changes when a cached key may have changed
        self._failures = Failures()
        store.watch(self.forget)

    async def principal(self, authorization: str | None, address: str = "") -> Principal:
        """Return the principal of a request with this header.

        Args:
            address: the client's trusted address, empty if unknown. Failures of an unknown address are not counted.
        Raises:
            Unauthenticated: no header, another scheme, or an unknown, revoked or expired key.
            TooManyFailures, RateLimited, KeyStoreUnavailable.
        """
        known = await self._known_of(authorization, address)
        self.charge(known)
        return known.principal

    async def principal_again(self, authorization: str | None, address: str = "") -> Principal:
        """Return the principal of a request that `principal` has counted. Raises as it does, but for RateLimited."""
        return (await self._known_of(authorization, address)).principal

    def is_current(self, who: Principal, generation: int) -> bool:
        """Whether no key has changed since `generation`, and the secret that `who` used is valid now."""
        return generation == self.generation and self._now_us() < min(who.expires_us, self._store.trusted_until_us)

    async def _known_of(self, authorization: str | None, address: str) -> Known:
        secret = _secret(authorization)
        digest = _digest(secret)
        while True:
            now_us = self._now_us()
            known = self._fresh(digest, now_us)
            if known is not None:
                return known
            if self._store.asks_elsewhere:  # so that a flood of wrong keys does not reach the store
                self._failures.check(address, now_us)
            generation = self.generation
            try:
                known = await self._ask(secret, now_us)
            except Unauthenticated:
                self._failures.count(address, now_us)
                raise
            if generation == self.generation:  # else the key may have been revoked since the store read it
                self._cache(digest, known)
                return known

    def look(self, authorization: str) -> Known | None:
        """Return a key from the cache, None if it is not there."""
        secret = _secret_in(authorization)
        return self._fresh(_digest(secret), self._now_us()) if secret else None

    def charge(self, known: Known) -> None:
        """Count a request of the key. Raises RateLimited."""
        now_us = self._now_us()
        if known.bucket is not None and (wait_us := known.bucket.take(now_us)):
            raise RateLimited(known.record.rate_limit or 0, wait_us)
        self._store.touch(known.record, now_us)

    def touch(self, known: Known) -> None:
        """Record the use of a key. The caller charges its bucket."""
        self._store.touch(known.record, self._now_us())

    def until_us(self, known: Known) -> int:
        """Return when the cached key becomes invalid unless it changes before. Unix microseconds."""
        expires_us, trusted_us = known.record.expires_us, self._store.trusted_until_us
        return trusted_us if expires_us is None else min(expires_us, trusted_us)

    def forget(self, key_ids: Collection[str] | None) -> None:
        """Remove these keys from the cache; None: all keys."""
        self.generation += 1
        if key_ids is None:
            self._known.clear()
            self._digests.clear()
            return
        for key_id in key_ids:
            for digest in self._digests.pop(key_id, ()):
                del self._known[digest]

    def _cache(self, digest: bytes, known: Known) -> None:
        if digest not in self._known and len(self._known) >= CACHED_MAX:
            oldest, dropped = self._known.popitem(last=False)
            digests = self._digests[dropped.record.key_id]
            digests.discard(oldest)
            if not digests:
                del self._digests[dropped.record.key_id]
        self._known[digest] = known
        self._digests.setdefault(known.record.key_id, set()).add(digest)

    def _fresh(self, digest: bytes, now_us: int) -> Known | None:
        """Return a key from the cache if it is still valid."""
        known = self._known.get(digest)
        if known is None or now_us >= self._store.trusted_until_us:
            return None
        expires_us = known.record.expires_us
        return known if expires_us is None or now_us < expires_us else None

    async def _ask(self, secret: str, now_us: int) -> Known:
        record = await self._store.find(secret)
        if record is None:
            raise Unauthenticated("Invalid API key")
        if record.revoked_us is not None:
            raise Unauthenticated("API key has been revoked")
        if record.expires_us is not None and record.expires_us <= now_us:
            raise Unauthenticated("API key has expired")
        return Known(record, record.principal(self._owner_isolation), self._bucket(record))

    def _bucket(self, record: KeyRecord) -> TokenBucket | None:
        """Return the key's bucket. It outlives the cached key, so that a dropped one refills no bucket."""
        if record.rate_limit is None:
            return None
        limit, bucket = self._buckets.get(record.key_id, (0, None))
        if bucket is None or limit != record.rate_limit:
            bucket = TokenBucket(record.rate_limit, record.rate_limit)
            self._buckets[record.key_id] = record.rate_limit, bucket
        self._buckets.move_to_end(record.key_id)
        if len(self._buckets) > CACHED_MAX:
            self._buckets.popitem(last=False)
        return bucket


class Failures:
    """Failed authentications by address. They limit only requests with keys that are not cached."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def check(self, address: str, now_us: int) -> None:
        """Raise TooManyFailures if the address has too many failures."""
        bucket = self._buckets.get(_network(address))
        if bucket is not None and (wait_us := bucket.wait_us(now_us)):
            raise TooManyFailures(wait_us)

    def count(self, address: str, now_us: int) -> None:
        """Count a failure. Raises TooManyFailures above the limit."""
        if not address:
            return
        network = _network(address)
        bucket = self._buckets.get(network)
        if bucket is None:
            self._drop_some(now_us)
            bucket = self._buckets[network] = TokenBucket(FAILURES_PER_S, FAILURES_AT_ONCE)
        self._buckets.move_to_end(network)
        if wait_us := bucket.take(now_us):
            raise TooManyFailures(wait_us)

    def _drop_some(self, now_us: int) -> None:
        """Make room for one more: drop the oldest, and two that count no more, so that a burst leaves memory again."""
        for _ in range(2):
            oldest = next(iter(self._buckets), None)
            if oldest is not None and (len(self._buckets) >= ADDRESSES_MAX or self._buckets[oldest].is_full(now_us)):
                del self._buckets[oldest]


def _network(address: str) -> str:
    """Return the network that an address's failures are counted for."""
    if ":" not in address:
        return address
    try:
        whole = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if whole.ipv4_mapped is not None:
        return str(whole.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(whole) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX), IPV6_PREFIX)))


def _secret(authorization: str | None) -> str:
    if not authorization:
        raise Unauthenticated("Missing Authorization header")
    secret = _secret_in(authorization)
    if not secret:
        raise Unauthenticated("Invalid Authorization header format. Expected: Bearer <token>")
    return secret


def _secret_in(authorization: str) -> str:
    """Return the secret in the header's value, an empty string if it has another form."""
    scheme, _, secret = authorization.partition(" ")
    return secret.lstrip(" ") if scheme.lower() == SCHEME else ""


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
