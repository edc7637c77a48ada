"""Redis stopped, frozen, wiped or restored from an older copy: which keys work. The table of docs/keys.md."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fastq.engine.documents import DocumentKind
from fastq.errors import ApiError, KeyStoreUnavailable, Unauthenticated
from fastq.services.auth import Authenticator
from fastq.services.keys.redis_store import CHECK_S, RedisKeyStore
from tests.services.keys.kept import ADMIN, Kept
from tests.services.keys.valkey import Valkey

pytestmark = pytest.mark.slow

GRACE_US = 60_000_000
PATIENCE_S = 10

IN, UNKNOWN, REVOKED, UNAVAILABLE = "in", "unknown", "revoked", "key_store_unavailable, again in 2 s"


class Door:
    """A server's way in, and four keys: `known` in use, `unseen` not, `revoked` at its end, `wrong` never made."""

    def __init__(self, store: RedisKeyStore, kept: Kept) -> None:
        self.store, self.kept = store, kept
        self.auth = Authenticator(store, lambda: kept.time_us)
        self.secrets = {"wrong": "client_" + "w" * 32}
        self.key_ids: dict[str, str] = {}

    async def make(self, name: str) -> None:
        self.secrets[name], record = await self.store.create(name, "o", "client", self.kept.time_us)
        self.key_ids[name] = record.key_id

    async def tries(self, name: str) -> str:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.auth.principal(f"Bearer {self.secrets[name]}")
        except Unauthenticated as error:
            return REVOKED if "revoked" in str(error) else UNKNOWN
        except KeyStoreUnavailable as error:
            return f"{error.code}, again in {error.retry_after_s} s"
        return IN

    async def who(self) -> dict[str, str]:
        return {name: await self.tries(name) for name in ("known", "unseen", "revoked", "wrong")}

    async def look(self) -> None:
        """As the server does every CHECK_S."""
        await self.store.check()


@contextlib.asynccontextmanager
async def door(valkey: Valkey, kept: Kept) -> AsyncIterator[Door]:
    store = RedisKeyStore(valkey.url, kept, GRACE_US)
    await store.open()
    await store.claim()
    yield Door(store, kept)
    await store.close()


async def with_keys(door: Door) -> None:
    for name in ("known", "unseen", "revoked"):
        await door.make(name)
    await door.store.revoke(door.key_ids["revoked"], ADMIN)
    assert await door.tries("known") == IN


def stop(valkey: Valkey) -> None:
    valkey.stop()


def freeze(valkey: Valkey) -> None:
    valkey.freeze()


def wipe(valkey: Valkey) -> None:
    valkey.wipe()


def replace_by_another(valkey: Valkey) -> None:
    valkey.wipe()
    valkey.do("SET", "fastq:store", "another")


@pytest.mark.parametrize("looked", [False, True], ids=["at once", "after the next look"])
@pytest.mark.parametrize("trouble", [stop, freeze, wipe, replace_by_another])
async def test_an_outage(valkey: Valkey, kept: Kept, trouble: Callable[[Valkey], None], looked: bool) -> None:
    """Keys in use work for the grace period, nobody else gets in, nothing changes; after it nobody does."""
    async with door(valkey, kept) as one:
        await with_keys(one)
        trouble(valkey)
        if looked:
            await one.look()
        assert await one.who() == {
            "known": IN, "unseen": UNAVAILABLE, "revoked": UNAVAILABLE, "wrong": UNAVAILABLE,
        }  # fmt: skip
        await one.look()
        for change in (
            one.store.create("n", "o", "admin", 1),
            one.store.list(None),
            one.store.rotate(one.key_ids["unseen"], ADMIN, 0),
            one.store.revoke(one.key_ids["unseen"], ADMIN),
        ):
            with pytest.raises(KeyStoreUnavailable):
                await change
        kept.time_us += GRACE_US
        assert set((await one.who()).values()) == {UNAVAILABLE}


@pytest.mark.parametrize("trouble", [stop, freeze])
async def test_all_keys_work_after_an_outage(valkey: Valkey, kept: Kept, trouble: Callable[[Valkey], None]) -> None:
    async with door(valkey, kept) as one:
        await with_keys(one)
        trouble(valkey)
        await one.look()
        kept.time_us += GRACE_US
        if trouble is stop:
            valkey.start()
        else:
            valkey.thaw()
        await one.look()
        assert await one.who() == {"known": IN, "unseen": IN, "revoked": REVOKED, "wrong": UNKNOWN}


async def test_a_store_restored_from_an_older_copy(valkey: Valkey, kept: Kept, tmp_path: Path) -> None:
    """A key that was revoked since stays revoked, one that was made since is gone."""
    async with door(valkey, kept) as one:
        for name in ("known", "unseen", "revoked"):
            await one.make(name)
        valkey.copy_to(tmp_path / "copy")
        await one.store.revoke(one.key_ids["revoked"], ADMIN)
        await one.make("later")
        assert await one.tries("known") == await one.tries("later") == IN
        valkey.put_back(tmp_path / "copy")
        assert valkey.do("SISMEMBER", "keys:active", one.key_ids["revoked"]) == 1, "Redis itself has forgotten"
        await one.look()  # finds its connection broken
        await one.look()
        expected = {"known": IN, "unseen": IN, "revoked": REVOKED, "wrong": UNKNOWN}
        assert await one.who() == expected
        assert await one.tries("later") == UNKNOWN
        assert valkey.do("SISMEMBER", "keys:active", one.key_ids["revoked"]) == 0, "and was told again"
    async with door(valkey, kept) as after_a_restart:
        after_a_restart.secrets = one.secrets
        assert await after_a_restart.who() == expected


async def test_a_store_restored_between_two_checks(valkey: Valkey, kept: Kept, tmp_path: Path) -> None:
    async with door(valkey, kept) as one:
        await one.make("revoked")
        valkey.copy_to(tmp_path / "copy")
        await one.store.revoke(one.key_ids["revoked"], ADMIN)
    valkey.put_back(tmp_path / "copy")
    async with door(valkey, kept) as two:
        two.secrets = one.secrets
        assert await two.tries("revoked") == REVOKED


async def test_a_store_restored_without_a_restart(valkey: Valkey, kept: Kept) -> None:
    """Nothing shows that Redis went back in time: whoever asks with a revoked key has it revoked there again."""
    async with door(valkey, kept) as one:
        await with_keys(one)
        valkey.do("HSET", f"api_key:{one.key_ids['revoked']}", "revoked_at", "")
        valkey.do("SMOVE", "keys:revoked", "keys:active", one.key_ids["revoked"])
        assert await one.tries("revoked") == REVOKED
        assert valkey.do("SISMEMBER", "keys:revoked", one.key_ids["revoked"]) == 1
        assert valkey.do("HGET", f"api_key:{one.key_ids['revoked']}", "revoked_at") != ""


async def test_a_revocation_takes_effect_while_redis_stops(valkey: Valkey, kept: Kept) -> None:
    """The log has it, so the answer is a success; Redis is told when it is back."""
    async with door(valkey, kept) as one:
        await with_keys(one)
        kept.syncs.clear()
        revoking = asyncio.create_task(one.store.revoke(one.key_ids["known"], ADMIN))
        async with asyncio.timeout(PATIENCE_S):
            revoked = (DocumentKind.REVOKED_KEY, one.key_ids["known"])
            while revoked not in kept.kept:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
        await asyncio.to_thread(valkey.stop)
        kept.syncs.set()
        assert (await revoking).revoked_us is not None
        assert await one.tries("known") == UNAVAILABLE
        await asyncio.to_thread(valkey.start)
        assert valkey.do("SISMEMBER", "keys:active", one.key_ids["known"]) == 1
        await one.look()
        assert await one.tries("known") == REVOKED
        assert valkey.do("SISMEMBER", "keys:active", one.key_ids["known"]) == 0


async def test_an_emptied_store_is_claimed_only_on_request(valkey: Valkey, kept: Kept) -> None:
    async with door(valkey, kept) as one:
        await with_keys(one)
    valkey.wipe()
    async with door(valkey, kept) as two:
        assert not two.store.is_unused
        with pytest.raises(ApiError):
            await two.make("n")
        await two.store.claim(anew=True)
        await two.make("n")
        assert await two.tries("n") == IN
    async with door(valkey, kept) as three:
        three.secrets = two.secrets
        assert await three.tries("n") == IN


async def test_the_server_checks_redis_by_itself(valkey: Valkey, kept: Kept) -> None:
    """A key revoked at another server is out within a second, without a request."""
    async with door(valkey, kept) as one, door(valkey, Kept()) as other:
        await with_keys(one)
        forgotten = asyncio.Event()
        one.store.watch(lambda _: forgotten.set())
        watching = asyncio.create_task(one.store.watch_store())
        await other.store.revoke(one.key_ids["known"], ADMIN)
        async with asyncio.timeout(1):
            await forgotten.wait()
        assert await one.tries("known") == REVOKED
        assert CHECK_S < 1
        watching.cancel()
