"""From the Authorization header to who asks; and how often somebody may ask."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256

from fastq.engine.commands import Principal
from fastq.errors import RateLimited, TooManyFailures, Unauthenticated
from fastq.services.buckets import TokenBucket
from fastq.services.keys import KeyRecord, KeyStore

SCHEME = "Bearer "
CACHED_MAX = 10_000  # keys known without asking the store; past it all are forgotten and asked for again
FAILURES_AT_ONCE, FAILURES_PER_S = 20, 1  # of one address, before more are refused as TooManyFailures
ADDRESSES_MAX = 50_000  # that failed lately; past it those forgotten first are those that failed first
IPV6_PREFIX = 64  # what one customer is given: within it addresses cost nothing


@dataclass(frozen=True, slots=True)
class Known:
    record: KeyRecord
    principal: Principal
    bucket: TokenBucket | None


class Authenticator:
    """Knows the keys that were used lately: one digest and one dict lookup a request.

    What is known of a key is forgotten when it changes, so a revocation holds from the next request on.
    """

    def __init__(self, store: KeyStore, now_us: Callable[[], int]) -> None:
        self._store = store
        self._now_us = now_us
        self._known: dict[bytes, Known] = {}
        self._buckets: dict[str, tuple[int, TokenBucket]] = {}  # key_id -> its limit, and what is left of it
        self.generation = 0  # of what is known: another one, and any of it may have changed
        self._failures = Failures()
        store.watch(self.forget)

    async def principal(self, authorization: str | None, address: str = "") -> Principal:
        """Who makes a request with this header.

        Args:
            address: of the client, as far as it is to be believed; empty: not known, then failures are not counted.
        Raises:
            Unauthenticated: no header, another scheme (its word is case-sensitive), an unknown key, one that is revoked
            or at its end; TooManyFailures; RateLimited; KeyStoreUnavailable.
        """
        secret, now_us = _secret(authorization), self._now_us()
        digest = _digest(secret)
        known = self._fresh(digest, now_us)
        if known is None:
            if self._store.asks_elsewhere:  # no flood of wrong keys gets further than this
                self._failures.check(address, now_us)
            try:
                known = await self._ask(secret, digest, now_us)
            except Unauthenticated:
                self._failures.count(address, now_us)
                raise
        self.charge(known)
        return known.principal

    def look(self, authorization: str) -> Known | None:
        """What is known of a key without waiting; None if only `principal` can tell, whatever it then says."""
        if not authorization.startswith(SCHEME):
            return None
        return self._fresh(_digest(authorization[len(SCHEME) :]), self._now_us())

    def charge(self, known: Known) -> None:
        """Its key makes a request. Raises RateLimited."""
        now_us = self._now_us()
        if known.bucket is not None and (wait_us := known.bucket.take(now_us)):
            raise RateLimited(known.record.rate_limit or 0, wait_us)
        self._store.touch(known.record, now_us)

    def touch(self, known: Known) -> None:
        """Its key makes requests that are charged elsewhere."""
        self._store.touch(known.record, self._now_us())

    def until_us(self, known: Known) -> int:
        """How long what is known of a key can be good, if nothing changes."""
        expires_us, trusted_us = known.record.expires_us, self._store.trusted_until_us
        return trusted_us if expires_us is None else min(expires_us, trusted_us)

    def forget(self, key_ids: Collection[str] | None) -> None:
        """What is known of these keys; None: of all."""
        self.generation += 1
        if key_ids is None:
            self._known.clear()
            return
        for digest in [digest for digest, known in self._known.items() if known.record.key_id in key_ids]:
            del self._known[digest]

    def _fresh(self, digest: bytes, now_us: int) -> Known | None:
        """What is known of a key, if it is still good."""
        known = self._known.get(digest)
        if known is None or now_us >= self._store.trusted_until_us:
            return None
        expires_us = known.record.expires_us
        return known if expires_us is None or now_us < expires_us else None

    async def _ask(self, secret: str, digest: bytes, now_us: int) -> Known:
        generation = self.generation
        record = await self._store.find(secret)
        if record is None:
            raise Unauthenticated("Invalid API key")
        if record.revoked_us is not None:
            raise Unauthenticated("API key has been revoked")
        if record.expires_us is not None and record.expires_us <= now_us:
            raise Unauthenticated("API key has expired")
        known = Known(record, record.principal(), self._bucket(record))
        if generation == self.generation:  # else it may have been revoked since the store looked
            if len(self._known) >= CACHED_MAX:
                self._known.clear()
            self._known[digest] = known
        return known

    def _bucket(self, record: KeyRecord) -> TokenBucket | None:
        """Of the key, not of what is known about it: forgetting that gives nobody a full one."""
        if record.rate_limit is None:
            return None
        limit, bucket = self._buckets.get(record.key_id, (0, None))
        if bucket is None or limit != record.rate_limit:
            if len(self._buckets) >= CACHED_MAX:
                self._buckets.clear()
            bucket = TokenBucket(record.rate_limit, record.rate_limit)
            self._buckets[record.key_id] = record.rate_limit, bucket
        return bucket


class Failures:
    """Failed logins by address. Only failures are counted, and only those of keys not known are held back."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}

    def check(self, address: str, now_us: int) -> None:
        """Raises TooManyFailures if the address has failed too often."""
        bucket = self._buckets.get(_network(address))
        if bucket is not None and (wait_us := bucket.wait_us(now_us)):
            raise TooManyFailures(wait_us)

    def count(self, address: str, now_us: int) -> None:
        """One more. Raises TooManyFailures if that is too many."""
        if not address:
            return
        network = _network(address)
        bucket = self._buckets.get(network)
        if bucket is None:
            if len(self._buckets) >= ADDRESSES_MAX:
                self._make_room(now_us)
            bucket = self._buckets[network] = TokenBucket(FAILURES_PER_S, FAILURES_AT_ONCE)
        if wait_us := bucket.take(now_us):
            raise TooManyFailures(wait_us)

    def _make_room(self, now_us: int) -> None:
        """Those that have not failed for a while go; if all have, the tenth that came first."""
        for network in [network for network, bucket in self._buckets.items() if bucket.is_full(now_us)]:
            del self._buckets[network]
        if len(self._buckets) >= ADDRESSES_MAX:
            for network in list(self._buckets)[: max(1, ADDRESSES_MAX // 10)]:
                del self._buckets[network]


def _network(address: str) -> str:
    """What failures are counted by."""
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
    secret = authorization.removeprefix(SCHEME)
    if secret == authorization or not secret:
        raise Unauthenticated("Invalid Authorization header format. Expected: Bearer <token>")
    return secret


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
