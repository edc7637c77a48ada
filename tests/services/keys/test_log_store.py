from __future__ import annotations

import asyncio
import re
from collections.abc import Collection

import msgspec
import pytest

from fastq.engine.documents import DocumentKind
from fastq.errors import DiskFull, KeyIsRevoked, KeyNotFound, NotKeyOwner
from fastq.services.keys import DEFAULT_SCOPES, LogKeyStore, log_store
from fastq.services.keys.log_store import ENDED_KEPT_US, SLICE
from fastq.services.keys.records import USED_EVERY_US, Grants
from tests.services.keys.kept import ADMIN, OTHER, Kept

MINUTE_US = 60_000_000


@pytest.fixture
def keys(kept: Kept) -> LogKeyStore:
    return LogKeyStore(kept)


@pytest.mark.parametrize("key_type", ["client", "worker", "admin"])
async def test_a_new_key(keys: LogKeyStore, key_type: str) -> None:
    secret, record = await keys.create("n", "o", key_type, 7)
    assert re.fullmatch(rf"{key_type}_[A-Za-z0-9_-]{{32}}", secret)
    assert re.fullmatch(rf"{key_type}_[A-Za-z0-9_-]{{12}}", record.key_id)
    assert record.key_id.removeprefix(f"{key_type}_") not in secret
    assert record.masked == f"{key_type}_****{secret[-4:]}"
    assert record.scopes == DEFAULT_SCOPES[key_type]
    assert (record.name, record.owner_id, record.type) == ("n", "o", key_type)
    assert (record.created_us, record.last_used_us, record.revoked_us) == (7, 7, None)
    assert await keys.find(secret) == record


def test_default_scopes() -> None:
    assert " ".join(DEFAULT_SCOPES["client"]) == "jobs:submit jobs:read keys:read keys:revoke"
    assert " ".join(DEFAULT_SCOPES["worker"]) == "jobs:lease jobs:ack jobs:read keys:read keys:revoke"
    assert " ".join(DEFAULT_SCOPES["admin"]) == (
        "jobs:submit jobs:read jobs:lease jobs:ack keys:create keys:revoke keys:read"
    )


async def test_no_two_keys_are_alike(keys: LogKeyStore) -> None:
    made = [await keys.create("n", "o", "client", 1) for _ in range(500)]
    assert len({secret for secret, _ in made}) == len({record.key_id for _, record in made}) == 500


async def test_no_document_has_the_secret(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 1)
    body = kept.kept[DocumentKind.API_KEY, record.key_id]
    tail = secret.removeprefix("client_")
    assert tail.encode() not in body
    assert tail not in repr(vars(keys)) + repr(record) + repr(record.principal())
    assert set(msgspec.json.decode(body)) == {
        "digest", "masked", "name", "owner_id", "type", "scopes", "created_us", "last_used_us",
    }  # fmt: skip


async def test_keys_survive_a_restart(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "worker", 1)
    gone, _ = await keys.create("n", "o", "client", 2)
    revoked = await keys.revoke(gone, ADMIN)
    again = LogKeyStore(kept)
    assert len(again) == 2
    assert await again.find(secret) == record
    assert await again.find(gone) == revoked
    assert revoked.revoked_us is not None


async def test_members_of_a_later_version_do_not_stop_a_start(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 1)
    document = msgspec.json.decode(kept.kept[DocumentKind.API_KEY, record.key_id]) | {"colour": ["a"]}
    kept.kept[DocumentKind.API_KEY, record.key_id] = msgspec.json.encode(document)
    assert await LogKeyStore(kept).find(secret) == record


@pytest.mark.parametrize("secret", ["", "client_unknown", "\udcff", "client_" + "a" * 32, "é" * 40])
async def test_unknown_secrets(keys: LogKeyStore, secret: str) -> None:
    await keys.create("n", "o", "client", 1)
    assert await keys.find(secret) is None


async def test_a_key_id_is_not_a_secret(keys: LogKeyStore) -> None:
    _, record = await keys.create("n", "o", "client", 1)
    assert await keys.find(record.key_id) is None


async def test_lists_are_by_owner_and_by_age(keys: LogKeyStore) -> None:
    _, second = await keys.create("2", "a", "client", 20)
    _, first = await keys.create("1", "a", "worker", 10)
    _, third = await keys.create("3", "b", "client", 30)
    revoked = await keys.revoke(first.key_id, ADMIN)
    assert await keys.list(None) == [revoked, second, third]
    assert await keys.list("a") == [revoked, second]
    assert await keys.list("nobody") == []


@pytest.mark.parametrize("by_id", [True, False])
async def test_revoke(keys: LogKeyStore, by_id: bool) -> None:
    secret, record = await keys.create("n", "o", "client", 1)
    named = record.key_id if by_id else secret
    revoked = await keys.revoke(named, record.principal())
    assert revoked == msgspec.structs.replace(record, revoked_us=1_000_001)
    assert await keys.find(secret) == revoked
    assert await keys.revoke(named, ADMIN) == revoked, "the first time stands"


async def test_who_may_revoke(keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 1)
    with pytest.raises(NotKeyOwner):
        await keys.revoke(secret, OTHER)
    assert await keys.find(secret) == record
    with pytest.raises(KeyNotFound):
        await keys.revoke("worker_unknown", ADMIN)
    with pytest.raises(KeyNotFound):
        await keys.revoke("worker_unknown", OTHER)
    assert (await keys.revoke(secret, ADMIN)).revoked_us
    with pytest.raises(NotKeyOwner):
        await keys.revoke(secret, OTHER)


async def test_a_refused_revocation_changes_nothing(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 1)
    kept.refuses = DiskFull()
    with pytest.raises(DiskFull):
        await keys.revoke(secret, ADMIN)
    assert await keys.find(secret) == record


async def test_a_refused_creation_changes_nothing(kept: Kept, keys: LogKeyStore) -> None:
    kept.refuses = DiskFull()
    with pytest.raises(DiskFull):
        await keys.create("n", "o", "client", 1)
    assert len(keys) == 0


async def test_a_revocation_takes_effect_when_its_call_returns(keys: LogKeyStore) -> None:
    secret, _ = await keys.create("n", "o", "client", 1)
    told: list[Collection[str] | None] = []
    keys.watch(told.append)
    revoked = await keys.revoke(secret, ADMIN)
    assert told == [(revoked.key_id,)]
    assert await keys.find(secret) == await keys.revoke(secret, ADMIN) == revoked
    assert await keys.list(None) == [revoked]


async def test_the_last_use_is_shown_at_once_and_written_rarely(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 0)
    await keys.create("idle", "o", "client", 0)
    keys.touch(record, MINUTE_US)
    used = {shown.name: shown.last_used_us for shown in await keys.list("o")}
    assert used == {"n": MINUTE_US, "idle": 0}
    assert await keys.save_used() == 0
    assert kept.puts == 2
    keys.touch(record, USED_EVERY_US)
    assert await keys.save_used() == 1
    assert await keys.save_used() == 0
    assert kept.puts == 3
    found = await LogKeyStore(kept).find(secret)
    assert found is not None
    assert found.last_used_us == USED_EVERY_US


async def test_at_a_stop_every_use_is_written(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 0)
    keys.touch(record, 5)
    await keys.revoke(secret, ADMIN)
    assert await keys.save_used(every_us=1) == 1
    found = await LogKeyStore(kept).find(secret)
    assert found is not None
    assert (found.last_used_us, found.revoked_us) == (5, 1_000_001)


# --- what a key may do ------------------------------------------------------------------------------------------------

GRANTS = Grants(scopes=("jobs:lease",), queues=frozenset({"a", "b"}), rate_limit=5, expires_us=99)


async def test_grants(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "worker", 1, grants=GRANTS)
    assert (record.scopes, record.queues, record.rate_limit, record.expires_us) == (
        ("jobs:lease",), frozenset({"a", "b"}), 5, 99,
    )  # fmt: skip
    assert record.principal().queues == {"a", "b"}
    assert await LogKeyStore(kept).find(secret) == record


async def test_rotation(kept: Kept, keys: LogKeyStore) -> None:
    first, record = await keys.create("n", "o", "client", 1)
    told: list[object] = []
    keys.watch(told.append)
    second, rotated = await keys.rotate(record.key_id, ADMIN, overlap_ms=10)
    end_us = kept.time_us + 10_000
    assert told == [(record.key_id,)]
    assert rotated == msgspec.structs.replace(record, masked=f"client_****{second[-4:]}")
    for store in (keys, LogKeyStore(kept)):
        assert await store.find(second) == rotated
        assert await store.find(first) == msgspec.structs.replace(rotated, expires_us=end_us)
    third, _ = await keys.rotate(record.key_id, record.principal(), overlap_ms=10)
    for store in (keys, LogKeyStore(kept)):
        assert await store.find(first) is None, "two secrets live, not three"
        assert await store.find(third) is not None
        assert (await store.find(second)).expires_us == kept.time_us + 10_000  # type: ignore[union-attr]


async def test_rotation_does_not_change_a_keys_expiry(keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 1, grants=Grants(expires_us=2))
    await keys.rotate(record.key_id, ADMIN, overlap_ms=10)
    assert (await keys.find(secret)).expires_us == 2  # type: ignore[union-attr]


async def test_who_may_rotate(keys: LogKeyStore) -> None:
    _, record = await keys.create("n", "o", "client", 1)
    with pytest.raises(NotKeyOwner):
        await keys.rotate(record.key_id, OTHER, 0)
    with pytest.raises(KeyNotFound):
        await keys.rotate("client_unknown", ADMIN, 0)
    await keys.revoke(record.key_id, ADMIN)
    with pytest.raises(KeyIsRevoked):
        await keys.rotate(record.key_id, ADMIN, 0)


async def test_a_refused_rotation_changes_nothing(kept: Kept, keys: LogKeyStore) -> None:
    secret, record = await keys.create("n", "o", "client", 1)
    kept.refuses = DiskFull()
    with pytest.raises(DiskFull):
        await keys.rotate(record.key_id, ADMIN, 0)
    assert await keys.find(secret) == record


async def test_a_revocation_ends_both_secrets(keys: LogKeyStore) -> None:
    first, record = await keys.create("n", "o", "client", 1)
    second, _ = await keys.rotate(record.key_id, ADMIN, 60_000)
    await keys.revoke(first, ADMIN)
    for secret in (first, second):
        assert (await keys.find(secret)).revoked_us is not None  # type: ignore[union-attr]


async def test_a_data_directory_with_keys_in_redis_is_not_new(kept: Kept, keys: LogKeyStore) -> None:
    assert keys.is_unused
    kept.kept[DocumentKind.KEY_STORE, "redis"] = b"id"
    assert not keys.is_unused


# --- many keys --------------------------------------------------------------------------------------------------------


async def test_the_uses_of_many_keys_are_written_together_a_slice_in_each_turn(kept: Kept, keys: LogKeyStore) -> None:
    """Also while the log is slow: only one of 10,000 keys waits for it."""
    made = [await keys.create(f"n{n}", "o", "client", n) for n in range(2_500)]
    for _, record in made:
        keys.touch(record, USED_EVERY_US * 2)
    before = kept.puts
    kept.syncs.clear()
    saving = asyncio.create_task(keys.save_used())
    most, records = 0, kept.puts
    for _ in range(2_500 // SLICE + 3):
        await asyncio.sleep(0)
        most, records = max(most, kept.puts - records), kept.puts
    assert saving.done() and await saving == 2_500
    assert most == 1 and kept.puts - before == 2_500 // SLICE
    again = LogKeyStore(kept)
    assert {record.last_used_us for record in await again.list(None)} == {USED_EVERY_US * 2}


async def test_a_key_that_is_revoked_while_uses_are_written_stays_revoked(kept: Kept, keys: LogKeyStore) -> None:
    made = [await keys.create(f"n{n}", "o", "client", n) for n in range(3 * SLICE)]
    for _, record in made:
        keys.touch(record, USED_EVERY_US * 2)
    saving = asyncio.create_task(keys.save_used())
    await asyncio.sleep(0)
    for secret, _ in made[:: SLICE // 2]:
        await keys.revoke(secret, ADMIN)
    await saving
    for store in (keys, LogKeyStore(kept)):
        revoked = [record.name for record in await store.list(None) if record.revoked_us is not None]
        assert revoked == [f"n{n}" for n in range(0, 3 * SLICE, SLICE // 2)]


async def test_revoked_keys_above_the_maximum_go_the_earliest_revoked_first(
    kept: Kept, keys: LogKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_store, "REVOKED_MAX", 3)
    made = [await keys.create(f"n{n}", f"o{n % 2}", "client", n) for n in range(8)]
    for secret, _ in reversed(made[1:]):
        await keys.revoke(secret, ADMIN)
    for store in (keys, LogKeyStore(kept)):
        assert [record.name for record in await store.list(None)] == ["n0", "n1", "n2", "n3"]
        assert [record.name for record in await store.list("o1")] == ["n1", "n3"]
        assert await store.find(made[7][0]) is None, "without a record a secret is refused too"
        assert len(store._keys) == len(store._id_by_digest) == len(store._by_age) == 4
    assert len(kept.kept) == 4


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_key_that_ended_long_ago_goes(kept: Kept, how: str) -> None:
    keys = LogKeyStore(kept)
    until_us = kept.now_us() + 1_000
    secret, record = await keys.create(
        "ended", "o", "client", 1, grants=Grants(expires_us=until_us) if how == "expired" else Grants()
    )
    stays, _ = await keys.create("stays", "o", "client", 2, grants=Grants(expires_us=1 << 60))
    if how == "revoked":
        until_us = (await keys.revoke(secret, ADMIN)).revoked_us or 0
    keys.touch(record, 5)
    kept.time_us = until_us + ENDED_KEPT_US - 10
    await keys.save_used(1)
    assert [one.name for one in await LogKeyStore(kept).list(None)] == ["ended", "stays"]
    kept.time_us = until_us + ENDED_KEPT_US
    told: list[Collection[str] | None] = []
    keys.watch(told.append)
    await keys.save_used(1)
    assert told == [(record.key_id,)]
    for store in (keys, LogKeyStore(kept)):
        assert [one.name for one in await store.list(None)] == ["stays"]
        assert await store.find(secret) is None
        assert await store.find(stays) is not None
    assert keys._used_us == {} and set(keys._of_owner) == {"o"} and len(keys._gone) == 1


async def test_without_room_ended_keys_go_later(kept: Kept, keys: LogKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store, "REVOKED_MAX", 1)
    made = [await keys.create(f"n{n}", "o", "client", n) for n in range(3)]
    full = DiskFull()

    def refuse(_kind: int, _names: object) -> None:
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(kept, "drop_documents", refuse)
        for secret, _ in made:
            await keys.revoke(secret, ADMIN)
        assert len(await keys.list(None)) == 3
    await keys.save_used()
    assert [record.name for record in await keys.list(None)] == ["n2"]


async def test_pages_go_on_where_they_were_while_keys_come_and_go(keys: LogKeyStore) -> None:
    made = [await keys.create(f"n{n}", "o", "client", n) for n in range(4 * SLICE)]
    names: list[str] = []
    async for page in keys.pages("o"):
        assert len(page) <= SLICE
        names += [record.name for record in page]
        await keys.create("early", "o", "client", 1)
        await keys.create("other", "p", "client", 1 << 50)
    assert names == [f"n{n}" for n in range(4 * SLICE)]
    middle = made[SLICE][1]
    rest = [record.name async for page in keys.pages("o", (middle.created_us, middle.key_id)) for record in page]
    assert rest == names[SLICE + 1 :]
