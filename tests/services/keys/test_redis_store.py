"""Keys in a real Valkey: the original's and ours, side by side."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import msgspec
import pytest

from fastq.engine.documents import DocumentKind
from fastq.errors import BadSetting, DiskFull, KeyIsRevoked, KeyNotFound, KeyStoreUnavailable, NotKeyOwner
from fastq.services.keys import Grants, redis_store
from fastq.services.keys.opening import opened_keys
from fastq.services.keys.records import DEFAULT_SCOPES, digest_of
from fastq.services.keys.redis_store import RedisKeyStore
from tests.services.keys.kept import ADMIN, OTHER, Kept
from tests.services.keys.valkey import Valkey

GRACE_US = 60_000_000
NOW_US = 1_800_000_000_000_000
ORIGINALS = "worker_" + "o" * 32


async def opened(valkey: Valkey, kept: Kept) -> RedisKeyStore:
    store = RedisKeyStore(valkey.url, kept, GRACE_US)
    await store.open()
    await store.claim()
    return store


@pytest.fixture
async def keys(valkey: Valkey, kept: Kept) -> AsyncIterator[RedisKeyStore]:
    kept.time_us = NOW_US
    store = await opened(valkey, kept)
    yield store
    await store.close()


# --- ours -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_type", ["client", "worker", "admin"])
async def test_a_new_key(valkey: Valkey, keys: RedisKeyStore, key_type: str) -> None:
    secret, record = await keys.create("n", "o", key_type, NOW_US + 5)
    assert re.fullmatch(rf"{key_type}_[A-Za-z0-9_-]{{32}}", secret)
    assert re.fullmatch(rf"{key_type}_[A-Za-z0-9_-]{{12}}", record.key_id)
    assert record.masked == f"{key_type}_****{secret[-4:]}"
    assert record.scopes == DEFAULT_SCOPES[key_type]
    assert (record.created_us, record.last_used_us, record.revoked_us) == (NOW_US, NOW_US, None)
    assert await keys.find(secret) == record
    assert valkey.do("GET", f"api_key_digest:{digest_of(secret)}") == record.key_id
    fields = valkey.do("HGETALL", f"api_key:{record.key_id}")
    assert {name: fields[name] for name in ("key", "created_at", "revoked_at", "digest")} == {
        "key": record.key_id, "created_at": str(NOW_US // 1_000_000), "revoked_at": "", "digest": digest_of(secret),
    }  # fmt: skip
    for name in ("owner:o:keys", f"keys:type:{key_type}", "keys:active"):
        assert valkey.do("SISMEMBER", name, record.key_id) == 1


async def test_the_secret_is_kept_nowhere(valkey: Valkey, keys: RedisKeyStore, kept: Kept) -> None:
    secret, record = await keys.create("n", "o", "client", NOW_US)
    await keys.find(secret)
    rotated, _ = await keys.rotate(record.key_id, ADMIN, 1000)
    for shown in (secret, rotated):
        tail = shown.removeprefix("client_")
        assert tail not in valkey.everything()
        assert tail not in repr(kept.kept) + repr(vars(keys))


async def test_grants(keys: RedisKeyStore) -> None:
    grants = Grants(("jobs:lease",), frozenset({"a", "b"}), 5, NOW_US + 1)
    secret, record = await keys.create("n", "o", "worker", NOW_US, grants=grants)
    assert (record.scopes, record.queues, record.rate_limit, record.expires_us) == tuple(
        getattr(grants, name) for name in ("scopes", "queues", "rate_limit", "expires_us")
    )
    assert await keys.find(secret) == record
    assert await keys.list("o") == [record]


async def test_a_key_id_is_no_secret(keys: RedisKeyStore) -> None:
    _, record = await keys.create("n", "o", "client", NOW_US)
    assert await keys.find(record.key_id) is None


@pytest.mark.parametrize("secret", ["", "x", "client_" + "a" * 32, "é" * 40, "\udcff" * 40, "a*" * 20, "a\r\n" * 20])
async def test_unknown_secrets(keys: RedisKeyStore, secret: str) -> None:
    assert await keys.find(secret) is None


async def test_lists(keys: RedisKeyStore, valkey: Valkey) -> None:
    _, second = await keys.create("2", "a", "client", NOW_US + 2_000_000)
    _, first = await keys.create("1", "a", "worker", NOW_US)
    _, third = await keys.create("3", "b", "client", NOW_US + 4_000_000)
    valkey.do("SADD", "keys:active", "client_that-is-not-there", "client_garbage")
    valkey.do("HSET", "api_key:client_garbage", "key", "client_garbage")
    revoked = await keys.revoke(first.key_id, ADMIN)
    listed = await keys.list(None)
    assert [(one.key_id, one.revoked_us is None) for one in listed] == [
        (first.key_id, False), (second.key_id, True), (third.key_id, True),
    ]  # fmt: skip
    assert revoked.revoked_us is not None
    assert [one.key_id for one in await keys.list("a")] == [first.key_id, second.key_id]
    assert await keys.list("nobody") == []


async def test_the_last_use_is_shown_at_once_and_written_seldom(valkey: Valkey, keys: RedisKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", NOW_US)
    found = await keys.find(secret)
    assert found is not None
    keys.touch(found, NOW_US + 7_000_000)
    assert (await keys.list("o"))[0].last_used_us == NOW_US + 7_000_000
    assert await keys.save_used() == 1
    keys.touch(found, NOW_US + 8_000_000)
    assert await keys.save_used() == 0
    assert valkey.do("HGET", f"api_key:{record.key_id}", "last_used_at") == str(NOW_US // 1_000_000 + 7)
    valkey.do("DEL", f"api_key:{record.key_id}")
    assert await keys.save_used(every_us=1) == 1
    assert valkey.do("EXISTS", f"api_key:{record.key_id}") == 0, "a key that is gone is not made by halves"


# --- revoking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [True, False])
async def test_revoke(valkey: Valkey, keys: RedisKeyStore, kept: Kept, by_id: bool) -> None:
    secret, record = await keys.create("n", "o", "client", NOW_US)
    await keys.find(secret)
    told: list[object] = []
    keys.watch(told.append)
    named = record.key_id if by_id else secret
    revoked = await keys.revoke(named, record.principal())
    assert told == [[record.key_id]]
    assert (DocumentKind.REVOKED_KEY, record.key_id) in kept.kept
    assert (await keys.find(secret)).revoked_us is not None  # type: ignore[union-attr]
    assert valkey.do("HGET", f"api_key:{record.key_id}", "revoked_at") == str(NOW_US // 1_000_000)
    assert valkey.do("SISMEMBER", "keys:active", record.key_id) == 0
    assert valkey.do("SISMEMBER", "keys:revoked", record.key_id) == 1
    puts = kept.puts
    again = await keys.revoke(named, ADMIN)
    assert again.revoked_us is not None
    assert again.revoked_us // 1_000_000 == (revoked.revoked_us or 0) // 1_000_000
    assert kept.puts == puts


async def test_who_may_change(keys: RedisKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", NOW_US)
    for change in (keys.revoke(secret, OTHER), keys.rotate(record.key_id, OTHER, 0)):
        with pytest.raises(NotKeyOwner):
            await change
    for change in (keys.revoke("worker_unknown-and-more", ADMIN), keys.rotate("x", OTHER, 0)):
        with pytest.raises(KeyNotFound):
            await change
    assert await keys.find(secret) == record


async def test_a_revocation_that_the_log_refuses_did_not_happen(keys: RedisKeyStore, kept: Kept) -> None:
    secret, record = await keys.create("n", "o", "client", NOW_US)
    kept.refuses = DiskFull()
    with pytest.raises(DiskFull):
        await keys.revoke(secret, ADMIN)
    assert await keys.find(secret) == record


async def test_a_revocation_is_in_the_log_before_redis_hears_of_it(
    valkey: Valkey, keys: RedisKeyStore, kept: Kept
) -> None:
    secret, record = await keys.create("n", "o", "client", NOW_US)
    kept.syncs.clear()
    revoking = asyncio.create_task(keys.revoke(secret, ADMIN))
    async with asyncio.timeout(10):
        while (DocumentKind.REVOKED_KEY, record.key_id) not in kept.kept:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
    assert valkey.do("SISMEMBER", "keys:active", record.key_id) == 1
    kept.syncs.set()
    await revoking
    assert valkey.do("SISMEMBER", "keys:active", record.key_id) == 0


async def test_another_server_sees_a_revocation_at_its_next_look(valkey: Valkey, keys: RedisKeyStore) -> None:
    """Also one by an original server, which only knows the sets."""
    secret, record = await keys.create("n", "o", "client", NOW_US)
    other = await opened(valkey, Kept())
    told: list[object] = []
    other.watch(told.append)
    await other.find(secret)
    await other.check()
    assert told == []
    await keys.revoke(record.key_id, ADMIN)
    await other.check()
    assert told == [[record.key_id]]
    assert (await other.find(secret)).revoked_us is not None  # type: ignore[union-attr]
    assert redis_store.CHECK_S + redis_store.ANSWER_S / 2 < 1
    await other.close()


# --- rotating ---------------------------------------------------------------------------------------------------------


async def test_rotation(valkey: Valkey, keys: RedisKeyStore, kept: Kept) -> None:
    first, record = await keys.create("n", "o", "client", NOW_US)
    second, rotated = await keys.rotate(record.key_id, ADMIN, overlap_ms=10)
    end_us = kept.time_us + 10_000
    assert rotated == msgspec.structs.replace(record, masked=f"client_****{second[-4:]}")
    assert await keys.find(second) == rotated
    assert await keys.find(first) == msgspec.structs.replace(rotated, expires_us=end_us)
    third, _ = await keys.rotate(record.key_id, record.principal(), overlap_ms=10)
    assert await keys.find(first) is None
    assert (await keys.find(second)).expires_us == kept.time_us + 10_000  # type: ignore[union-attr]
    assert await keys.find(third) is not None
    assert valkey.do("EXISTS", f"api_key_digest:{digest_of(first)}") == 0


async def test_another_server_forgets_what_it_knew_of_a_rotated_key(valkey: Valkey, keys: RedisKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", NOW_US)
    other = await opened(valkey, Kept())
    await other.find(secret)
    told: list[object] = []
    other.watch(told.append)
    await keys.rotate(record.key_id, ADMIN, 0)
    await other.check()
    assert told == [None]
    await other.close()


async def test_a_revoked_key_is_not_rotated(keys: RedisKeyStore) -> None:
    _, record = await keys.create("n", "o", "client", NOW_US)
    await keys.revoke(record.key_id, ADMIN)
    with pytest.raises(KeyIsRevoked):
        await keys.rotate(record.key_id, ADMIN, 0)


# --- a store that the original filled ---------------------------------------------------------------------------------


async def test_the_originals_keys_work(valkey: Valkey, keys: RedisKeyStore) -> None:
    valkey.put_original(ORIGINALS, "ops", ["jobs:lease", "jobs:ack"])
    found = await keys.find(ORIGINALS)
    assert found is not None
    assert re.fullmatch(r"worker_[A-Za-z0-9_-]{12}", found.key_id)
    assert found.masked == "worker_****oooo"
    assert (found.owner_id, found.type, found.scopes) == ("ops", "worker", ("jobs:lease", "jobs:ack"))
    assert (found.created_us, found.last_used_us) == (1_700_000_000_000_000, 1_700_000_000_000_000)
    assert await keys.list("ops") == await keys.list(None) == [found]
    assert ORIGINALS not in repr(await keys.list(None))
    keys.touch(found, NOW_US)
    await keys.save_used(1)
    assert valkey.do("HGET", f"api_key:{ORIGINALS}", "last_used_at") == str(NOW_US // 1_000_000)


@pytest.mark.parametrize("who", ["owner", "admin"])
@pytest.mark.parametrize("by_id", [True, False])
async def test_the_originals_keys_are_revoked(
    valkey: Valkey, keys: RedisKeyStore, kept: Kept, by_id: bool, who: str
) -> None:
    valkey.put_original(ORIGINALS, "ops", ["jobs:lease"])
    found = await keys.find(ORIGINALS)
    assert found is not None
    by = ADMIN if who == "admin" else found.principal()
    await keys.revoke(found.key_id if by_id else ORIGINALS, by)
    assert (await keys.find(ORIGINALS)).revoked_us is not None  # type: ignore[union-attr]
    assert valkey.do("SMEMBERS", "keys:revoked") == {ORIGINALS}
    assert valkey.do("SMEMBERS", "keys:active") == set()
    assert ORIGINALS not in repr(kept.kept), "the log gets no secret"


async def test_what_the_original_revoked_is_revoked(valkey: Valkey, keys: RedisKeyStore) -> None:
    valkey.put_original(ORIGINALS, "ops", ["jobs:lease"], revoked_at="1700000001")
    found = await keys.find(ORIGINALS)
    assert found is not None
    assert found.revoked_us == 1_700_000_001_000_000


async def test_by_a_rotation_the_originals_key_becomes_one_of_ours(valkey: Valkey, keys: RedisKeyStore) -> None:
    valkey.put_original(ORIGINALS, "ops", ["jobs:lease"])
    found = await keys.find(ORIGINALS)
    assert found is not None
    secret, rotated = await keys.rotate(found.key_id, ADMIN, 10)
    assert rotated.key_id == found.key_id
    assert ORIGINALS not in valkey.everything()
    assert await keys.find(secret) == rotated
    assert (await keys.find(ORIGINALS)).expires_us is not None  # type: ignore[union-attr]
    assert valkey.do("SMEMBERS", "owner:ops:keys") == {found.key_id}


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "root"}, {"scopes": "no JSON"}, {"scopes": '{"a": 1}'}, {"created_at": "yesterday"}, {"owner_id": ""},
        {"key": "worker_" + "p" * 32}, {"digest": "0" * 64},
    ],
)  # fmt: skip
async def test_a_hash_that_is_no_key_lets_nobody_in(
    valkey: Valkey, keys: RedisKeyStore, fields: dict[str, str]
) -> None:
    valkey.put_original(ORIGINALS, "ops", ["jobs:lease"])
    valkey.do("HSET", f"api_key:{ORIGINALS}", *(part for field in fields.items() for part in field))
    assert await keys.find(ORIGINALS) is None


# --- which store it is ------------------------------------------------------------------------------------------------


async def test_a_first_start_is_one_without_keys_anywhere(valkey: Valkey, kept: Kept) -> None:
    async def is_unused(documents: Kept) -> bool:
        async with opened_keys(valkey.url, 1000, documents) as store:
            return store.is_unused

    assert await is_unused(kept)
    for kind in (DocumentKind.API_KEY, DocumentKind.REVOKED_KEY, DocumentKind.KEY_STORE):
        used = Kept()
        used.kept[kind, "x"] = b'{"revoked_us":1}'
        if kind == DocumentKind.KEY_STORE:
            used.kept[kind, "redis"] = b"id"
        assert not await is_unused(used)
    valkey.put_original(ORIGINALS, "ops", ["jobs:lease"])
    assert not await is_unused(kept)


async def test_a_first_start_needs_redis(valkey: Valkey, kept: Kept) -> None:
    valkey.stop()
    with pytest.raises(BadSetting, match=r"REDIS_URL: the key store must answer at a first start: Redis: .+"):
        await opened(valkey, kept)


async def test_a_later_start_does_not(valkey: Valkey, kept: Kept) -> None:
    store = await opened(valkey, kept)
    secret, record = await store.create("n", "o", "client", NOW_US)
    await store.close()
    valkey.stop()
    store = await opened(valkey, kept)
    with pytest.raises(KeyStoreUnavailable):
        await store.find(secret)
    valkey.start()
    await store.check()
    assert await store.find(secret) == record
    await store.close()


async def test_no_message_tells_a_secret(valkey: Valkey, keys: RedisKeyStore, caplog: pytest.LogCaptureFixture) -> None:
    valkey.do("SET", f"api_key:{ORIGINALS}", "not a hash")
    with pytest.raises(KeyStoreUnavailable) as caught:
        await keys.find(ORIGINALS)
    assert "WRONGTYPE" in caught.value.detail
    assert ORIGINALS not in caught.value.detail + str(caught.value) + caplog.text
