from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fastq import auth
from fastq.auth import Authenticator
from fastq.errors import Unauthenticated
from fastq.keys import KeyRecord

SECRET = "client_" + "s" * 32
RECORD = KeyRecord("client_id", "client_****ssss", "n", "o", "client", ("jobs:read",), 1, None, 1)


class Store:
    """One key; counts how often it is asked."""

    def __init__(self) -> None:
        self.record = RECORD
        self.asked = 0
        self.touched: list[int] = []
        self.changed: Callable[[], None]
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

    def watch(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    def revoke(self) -> None:
        self.record = KeyRecord("client_id", "client_****ssss", "n", "o", "client", ("jobs:read",), 1, 2, 1)
        self.changed()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def authenticator(store: Store) -> Authenticator:
    return Authenticator(store, lambda: 42)  # type: ignore[arg-type]


async def refusal(authenticator: Authenticator, header: str | None) -> str:
    assert authenticator.known(header) is None
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.principal(header)
    assert caught.value.status == 401
    assert SECRET not in str(caught.value)
    return str(caught.value)


async def test_who_it_is(authenticator: Authenticator) -> None:
    principal = await authenticator.principal(f"Bearer {SECRET}")
    assert principal == RECORD.principal()
    assert principal.scopes == {"jobs:read"}


@pytest.mark.parametrize("header", [None, ""])
async def test_no_header(authenticator: Authenticator, header: str | None) -> None:
    assert await refusal(authenticator, header) == "Missing Authorization header"


@pytest.mark.parametrize(
    "header",
    ["Basic abc", "Bearer", "Bearer ", f"bearer {SECRET}", f"BEARER {SECRET}", f"Bearer\t{SECRET}", SECRET, " "],
)
async def test_another_scheme(authenticator: Authenticator, store: Store, header: str) -> None:
    expected = "Invalid Authorization header format. Expected: Bearer <token>"
    assert await refusal(authenticator, header) == expected
    assert store.asked == 0


@pytest.mark.parametrize("secret", ["client_unknown", " " + SECRET, "é", "\udcff", "Bearer " + SECRET])
async def test_an_unknown_key(authenticator: Authenticator, secret: str) -> None:
    assert await refusal(authenticator, f"Bearer {secret}") == "Invalid API key"


async def test_a_known_key_is_not_asked_for_again(authenticator: Authenticator, store: Store) -> None:
    header = f"Bearer {SECRET}"
    assert authenticator.known(header) is None
    first = await authenticator.principal(header)
    assert authenticator.known(header) is first
    assert await authenticator.principal(header) is first
    assert store.asked == 1
    assert store.touched == [42, 42, 42]


async def test_unknown_keys_are_asked_for_every_time(authenticator: Authenticator, store: Store) -> None:
    await refusal(authenticator, "Bearer client_unknown")
    await refusal(authenticator, "Bearer client_unknown")
    assert store.asked == 2
    assert store.touched == []


async def test_a_revocation_holds_from_the_next_request_on(authenticator: Authenticator, store: Store) -> None:
    await authenticator.principal(f"Bearer {SECRET}")
    store.revoke()
    assert await refusal(authenticator, f"Bearer {SECRET}") == "API key has been revoked"


async def test_a_revocation_during_a_lookup_is_not_forgotten(authenticator: Authenticator, store: Store) -> None:
    """What the store said before the revocation may still answer that one request, and no later one."""
    store.answers.clear()
    early = asyncio.create_task(authenticator.principal(f"Bearer {SECRET}"))
    await asyncio.sleep(0)
    store.revoke()
    store.answers.set()
    await early
    assert await refusal(authenticator, f"Bearer {SECRET}") == "API key has been revoked"


async def test_what_is_known_is_bounded(
    authenticator: Authenticator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHED_MAX", 10)
    for number in range(25):
        await authenticator.principal(f"Bearer client_s{number}")
        assert len(authenticator._known) <= 10
    assert store.asked == 25


async def test_secrets_are_not_held(authenticator: Authenticator) -> None:
    await authenticator.principal(f"Bearer {SECRET}")
    assert SECRET not in repr(vars(authenticator))
