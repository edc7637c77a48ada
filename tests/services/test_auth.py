from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from fastq.errors import RateLimited, TooManyFailures, Unauthenticated
from fastq.services import auth
from fastq.services.auth import Authenticator
from fastq.services.keys import KeyRecord
from fastq.services.keys.records import FOR_EVER_US, Changed

SECRET = "client_" + "s" * 32
RECORD = KeyRecord("client_id", "client_****ssss", "n", "o", "client", ("jobs:read",), 1, None, 1)


class Store:
    """One key; counts how often it is asked."""

    asks_elsewhere = False
    trusted_until_us = FOR_EVER_US

    def __init__(self) -> None:
        self.record = RECORD
        self.asked = 0
        self.touched: list[int] = []
        self.changed: Changed
        self.answers = asyncio.Event()
        self.answers.set()

    async def find(self, secret: str) -> KeyRecord | None:
        self.asked += 1
        found = self.record if secret.startswith("client_s") else None
        await self.answers.wait()
        return found

    def touch(self, record: KeyRecord, now_us: int) -> None:
        assert record.key_id == RECORD.key_id
        self.touched.append(now_us)

    def watch(self, changed: Changed) -> None:
        self.changed = changed

    def revoke(self) -> None:
        self.grant(revoked_us=2)

    def grant(self, key_ids: Collection[str] | None = ("client_id",), **fields: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **fields)
        self.changed(key_ids)


@pytest.fixture
def store() -> Store:
    return Store()


class Hands:
    us = 42


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def authenticator(store: Store, hands: Hands) -> Authenticator:
    return Authenticator(store, lambda: hands.us)  # type: ignore[arg-type]


async def refusal(authenticator: Authenticator, header: str | None) -> str:
    assert authenticator.look(header or "") is None
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.principal(header)
    assert SECRET not in str(caught.value)
    return str(caught.value)


async def test_the_principal_of_a_key(authenticator: Authenticator) -> None:
    principal = await authenticator.principal(f"Bearer {SECRET}")
    assert principal == RECORD.principal()
    assert principal.scopes == {"jobs:read"}


@pytest.mark.parametrize("header", [None, ""])
async def test_no_header(authenticator: Authenticator, header: str | None) -> None:
    assert await refusal(authenticator, header) == "Missing Authorization header"


@pytest.mark.parametrize(
    "header",
    ["Basic abc", "Bearer", "Bearer ", "Bearer  ", f"Bearer\t{SECRET}", f"Bearer{SECRET}", SECRET, " "],
)
async def test_another_scheme(authenticator: Authenticator, store: Store, header: str) -> None:
    expected = "Invalid Authorization header format. Expected: Bearer <token>"
    assert await refusal(authenticator, header) == expected
    assert store.asked == 0


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "bEaReR ", "Bearer   "])
async def test_the_scheme_has_no_case(authenticator: Authenticator, scheme: str) -> None:
    assert (await authenticator.principal(scheme + SECRET)).scopes == {"jobs:read"}


@pytest.mark.parametrize("secret", ["client_unknown", "é", "\udcff", "Bearer " + SECRET])
async def test_an_unknown_key(authenticator: Authenticator, secret: str) -> None:
    assert await refusal(authenticator, f"Bearer {secret}") == "Invalid API key"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_scheme_in_any_case(authenticator: Authenticator, scheme: str) -> None:
    assert (await authenticator.principal(f"{scheme} {SECRET}")).key_id == RECORD.key_id


async def test_a_cached_key_is_not_looked_up_again(authenticator: Authenticator, store: Store) -> None:
    header = f"Bearer {SECRET}"
    assert authenticator.look(header) is None
    first = await authenticator.principal(header)
    known = authenticator.look(header)
    assert known is not None
    assert known.principal is first
    assert await authenticator.principal(header) is first
    authenticator.charge(known)
    authenticator.touch(known)
    assert store.asked == 1
    assert store.touched == [42, 42, 42, 42]  # looking is no use of it


async def test_unknown_keys_are_looked_up_each_time(authenticator: Authenticator, store: Store) -> None:
    await refusal(authenticator, "Bearer client_unknown")
    await refusal(authenticator, "Bearer client_unknown")
    assert store.asked == 2
    assert store.touched == []


async def test_a_revocation_takes_effect_with_the_next_request(authenticator: Authenticator, store: Store) -> None:
    await authenticator.principal(f"Bearer {SECRET}")
    store.revoke()
    assert await refusal(authenticator, f"Bearer {SECRET}") == "API key has been revoked"


async def test_a_revocation_during_a_lookup_takes_effect(authenticator: Authenticator, store: Store) -> None:
    """What the store said before the revocation answers no request after it."""
    store.answers.clear()
    early = asyncio.create_task(authenticator.principal(f"Bearer {SECRET}"))
    await asyncio.sleep(0)
    store.revoke()
    store.answers.set()
    with pytest.raises(Unauthenticated, match="API key has been revoked"):
        await early
    assert await refusal(authenticator, f"Bearer {SECRET}") == "API key has been revoked"


async def test_the_cache_is_bounded(
    authenticator: Authenticator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHED_MAX", 10)
    for number in range(25):
        await authenticator.principal(f"Bearer client_s{number}")
        assert len(authenticator._known) <= 10
    assert store.asked == 25


async def test_the_cache_has_no_secrets(authenticator: Authenticator) -> None:
    await authenticator.principal(f"Bearer {SECRET}")
    assert SECRET not in repr(vars(authenticator))


# --- what is known has an end -----------------------------------------------------------------------------------------

HEADER = f"Bearer {SECRET}"
SECOND_US = 1_000_000


@pytest.mark.parametrize("key_ids", [("client_id",), None])
async def test_a_changed_key_is_looked_up_again(
    authenticator: Authenticator, store: Store, key_ids: Collection[str] | None
) -> None:
    await authenticator.principal(HEADER)
    store.grant(key_ids, queues=frozenset({"mail"}))
    assert authenticator.look(HEADER) is None
    assert (await authenticator.principal(HEADER)).queues == {"mail"}


async def test_a_change_of_another_key_keeps_the_cached_one(authenticator: Authenticator, store: Store) -> None:
    await authenticator.principal(HEADER)
    store.changed(("client_another",))
    assert authenticator.look(HEADER) is not None
    assert store.asked == 1


async def test_expiry(authenticator: Authenticator, store: Store, hands: Hands) -> None:
    store.grant(expires_us=100)
    hands.us = 99
    await authenticator.principal(HEADER)
    assert authenticator.look(HEADER) is not None
    hands.us = 100
    assert await refusal(authenticator, HEADER) == "API key has expired"


async def test_no_key_is_cached_longer_than_the_store_is_trusted(
    authenticator: Authenticator, store: Store, hands: Hands
) -> None:
    store.trusted_until_us = 100
    await authenticator.principal(HEADER)
    hands.us = 99
    assert authenticator.look(HEADER) is not None
    hands.us = 100
    assert authenticator.look(HEADER) is None
    await authenticator.principal(HEADER)
    assert store.asked == 2


# --- how often --------------------------------------------------------------------------------------------------------


async def test_a_rate_limit(authenticator: Authenticator, store: Store, hands: Hands) -> None:
    store.grant(rate_limit=2)
    await authenticator.principal(HEADER)
    known = authenticator.look(HEADER)
    assert known is not None
    authenticator.charge(known)
    with pytest.raises(RateLimited):
        authenticator.charge(known)
    with pytest.raises(RateLimited, match="this key may make 2 requests a second") as caught:
        await authenticator.principal(HEADER)
    assert caught.value.retry_after_s == 1
    hands.us += SECOND_US // 2
    await authenticator.principal(HEADER)
    assert len(store.touched) == 3


async def test_a_bucket_outlives_the_cached_key(authenticator: Authenticator, store: Store) -> None:
    store.grant(rate_limit=1)
    await authenticator.principal(HEADER)
    store.changed(None)
    with pytest.raises(RateLimited):
        await authenticator.principal(HEADER)
    store.grant(rate_limit=5)
    await authenticator.principal(HEADER)


async def fail(authenticator: Authenticator, address: str, times: int = 1) -> None:
    for number in range(times):
        with pytest.raises(Unauthenticated):
            await authenticator.principal(f"Bearer client_wrong{number}", address)


async def test_failures_are_throttled_by_address(authenticator: Authenticator, store: Store, hands: Hands) -> None:
    await fail(authenticator, "192.0.2.1", auth.FAILURES_AT_ONCE)
    with pytest.raises(TooManyFailures) as caught:
        await authenticator.principal("Bearer client_wrong", "192.0.2.1")
    assert caught.value.retry_after_s == 1
    await fail(authenticator, "192.0.2.2")
    hands.us += SECOND_US // auth.FAILURES_PER_S
    await fail(authenticator, "192.0.2.1")
    with pytest.raises(TooManyFailures):
        await authenticator.principal("Bearer client_wrong", "192.0.2.1")


async def test_a_cached_key_works_from_an_address_with_failures(authenticator: Authenticator, store: Store) -> None:
    await fail(authenticator, "192.0.2.1", auth.FAILURES_AT_ONCE)
    assert await authenticator.principal(HEADER, "192.0.2.1") == RECORD.principal()


async def test_a_flood_of_wrong_keys_does_not_reach_redis(
    authenticator: Authenticator, store: Store, hands: Hands
) -> None:
    """There a good key that is not known yet waits for its turn; one that is known does not."""
    store.asks_elsewhere = True
    await authenticator.principal(HEADER, "192.0.2.1")
    await fail(authenticator, "192.0.2.1", auth.FAILURES_AT_ONCE)
    asked = store.asked
    for number in range(1000):
        with pytest.raises(TooManyFailures):
            await authenticator.principal(f"Bearer client_{number}", "192.0.2.1")
    with pytest.raises(TooManyFailures):
        await authenticator.principal(f"Bearer {SECRET}2", "192.0.2.1")
    assert store.asked == asked
    await authenticator.principal(HEADER, "192.0.2.1")
    hands.us += SECOND_US // auth.FAILURES_PER_S
    await authenticator.principal(f"Bearer {SECRET}2", "192.0.2.1")


async def test_a_request_without_a_key_is_not_a_failure(authenticator: Authenticator) -> None:
    for _ in range(2 * auth.FAILURES_AT_ONCE):
        with pytest.raises(Unauthenticated):
            await authenticator.principal(None, "192.0.2.1")
    await fail(authenticator, "192.0.2.1")


async def test_one_customers_ipv6_addresses_count_together(authenticator: Authenticator) -> None:
    for number in range(auth.FAILURES_AT_ONCE):
        await fail(authenticator, f"2001:db8::{number + 1:x}")
    with pytest.raises(TooManyFailures):
        await authenticator.principal("Bearer client_wrong", "2001:db8::ffff")
    await fail(authenticator, "2001:db8:0:1::1")
    await fail(authenticator, "not:an:address")
    await fail(authenticator, "::ffff:192.0.2.9", auth.FAILURES_AT_ONCE)
    with pytest.raises(TooManyFailures):
        await authenticator.principal("Bearer client_wrong", "192.0.2.9")


async def test_the_table_of_failures_is_bounded(
    authenticator: Authenticator, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "ADDRESSES_MAX", 10)
    for number in range(25):
        await fail(authenticator, f"192.0.2.{number}")
        assert len(authenticator._failures._buckets) <= 10
    hands.us += SECOND_US
    for number in range(5):
        await fail(authenticator, f"198.51.100.{number}")
    assert len(authenticator._failures._buckets) == 5, "those at rest are forgotten, two for each new one"
