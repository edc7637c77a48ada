"""Idempotency keys at the edges of their windows, which random walks hardly meet."""

from __future__ import annotations

from typing import Any

import pytest

from fastq._core import CREATED, REPEATED, Core, CoreSettings
from fastq.errors import IdempotencyFull
from tests.core.agreement import agree
from tests.core.disk import Disk
from tests.core.model import Server
from tests.core.model_jobs import New
from tests.core.world import START_US, World, core_job

MINUTE_US = 60_000_000


def submit_at(world: World, now_us: int, key: str) -> Any:
    """Submit at exactly that time; the world's clock moves by one microsecond before a key. Returns the answer."""
    world.time_passes(now_us - world.now_us - 1)
    answer = world.submit([New(idempotency_key=key)])
    assert world.now_us == now_us
    agree(world, 0)
    return answer if isinstance(answer, str) else answer[0][1]


def test_a_key_is_remembered_for_exactly_its_window() -> None:
    world = World(Server(idempotency_us=90_000_000))
    first_us = world.now_us + 1
    assert submit_at(world, first_us, "k") == CREATED
    assert submit_at(world, first_us + 89_999_999, "k") == REPEATED
    assert submit_at(world, first_us + 90_000_000, "k") == CREATED, "a repetition does not lengthen the window"


def test_no_key_younger_than_a_minute_makes_room_for_another() -> None:
    world = World(Server(idempotency_keys_max=2))
    first_us = world.now_us + 1
    assert submit_at(world, first_us, "a") == CREATED
    assert submit_at(world, first_us + 10, "b") == CREATED
    assert submit_at(world, first_us + MINUTE_US - 1, "c") == "IdempotencyFull"
    assert submit_at(world, first_us + MINUTE_US, "c") == CREATED
    assert world.core.dropped_early == 1
    assert submit_at(world, first_us + MINUTE_US + 1, "b") == REPEATED
    assert submit_at(world, first_us + MINUTE_US + 9, "a") == "IdempotencyFull"
    assert submit_at(world, first_us + MINUTE_US + 10, "a") == CREATED


def test_a_batch_needs_room_for_all_its_keys() -> None:
    world = World(Server(idempotency_keys_max=3))
    assert world.submit([New(idempotency_key=key) for key in "abcd"]) == "IdempotencyFull"
    assert world.transact([], [], [New(idempotency_key=key) for key in "ab"], "t") == "IdempotencyFull"
    assert world.transact([], [], [New(idempotency_key="t")], "t") == "IdempotencyMismatch"
    assert world.transact([], [], [New(idempotency_key="a"), New(idempotency_key="a")], "t")[1][1][1] == REPEATED
    agree(world, 0)


def test_the_same_key_of_another_owner_is_another_key() -> None:
    world = World()
    assert world.submit([New(idempotency_key="k")], "o1")[0][1] == CREATED
    assert world.submit([New(idempotency_key="k", body_digest=9)], "o2")[0][1] == CREATED


def test_expired_keys_leave_memory_and_stay_forgotten_after_a_replay() -> None:
    world = World(Server(idempotency_us=1_000_000))
    for _ in range(5):
        world.submit([New(idempotency_key=key) for key in "abc"])
        world.time_passes(2_000_000)
    assert world.core.idempotency_keys == 3
    world.forget_keys(2)
    assert world.core.idempotency_keys == 0, "keys used at the same time are forgotten together"
    world.restart(Server(idempotency_us=1_000_000_000))
    assert world.core.idempotency_keys == 0


def test_a_batch_does_not_drop_a_key_that_it_repeats() -> None:
    world = World(Server(idempotency_keys_max=2))
    ((old, _),) = world.submit([New(idempotency_key="old")])
    world.submit([New(idempotency_key="newer")])
    world.time_passes(2 * MINUTE_US)
    assert world.submit([New(idempotency_key="old"), New(idempotency_key="third")]) == "IdempotencyFull"
    assert world.submit([New(idempotency_key="old")]) == [(old, REPEATED)]


def test_a_longer_window_after_a_restart_restores_keys_not_yet_forgotten() -> None:
    world = World(Server(idempotency_us=1_000_000))
    ((job_id, _),) = world.submit([New(idempotency_key="k")])
    world.time_passes(2_000_000)
    world.restart(Server(idempotency_us=9_000_000))
    assert world.submit([New(idempotency_key="k")]) == [(job_id, REPEATED)]
    world.restart(Server(idempotency_us=1_000_000))
    world.forget_keys(1)
    world.restart(Server(idempotency_us=9_000_000))
    assert world.submit([New(idempotency_key="k")]) != [(job_id, REPEATED)]


def test_a_key_counts_once_for_each_answer_that_it_remembers() -> None:
    world = World(Server(idempotency_keys_max=10))
    assert world.transact([], [], [New()] * 11, "t") == "IdempotencyFull"
    assert len(world.transact([], [], [New()] * 7, "t")[1]) == 7
    assert world.core.idempotency_count == 7
    assert world.submit([New(idempotency_key=key) for key in "abc"])[2][1] == CREATED
    assert world.submit([New(idempotency_key="d")]) == "IdempotencyFull"
    world.time_passes(MINUTE_US)
    assert world.submit([New(idempotency_key="d")])[0][1] == CREATED
    assert world.core.idempotency_count == 4, "the transaction's answers went together"
    agree(world, 0)


def test_a_lower_maximum_drops_keys_in_slices() -> None:
    """After a restart no command and no slice drops more than its share at once."""
    disk = Disk(64 << 20, 1 << 20)
    disk.open(START_US, 1, CoreSettings(idempotency_keys_max=40_000))
    for n in range(30):
        batch = [core_job(New(idempotency_key=f"{n}.{i}")) for i in range(1000)]
        disk.core.submit_many(START_US + n, batch, owner_id="o1", key_id="k1")
    disk.sync()
    disk.open(START_US + 100, 2, CoreSettings(idempotency_keys_max=100))
    core, one = disk.core, core_job(New(idempotency_key="x"))
    with pytest.raises(IdempotencyFull):
        core.submit(START_US + MINUTE_US - 1, one, owner_id="o1", key_id="k1")
    assert not has_old(core, START_US + MINUTE_US - 1)
    now_us = START_US + MINUTE_US + 50
    core.submit(now_us, one, owner_id="o1", key_id="k1")
    assert 19_000 <= core.idempotency_keys <= 20_001, "one command takes ten thousand"
    slices = 0
    while has_old(core, now_us):
        before = core.idempotency_keys
        core.forget_keys(now_us, 1000)
        assert before - 1000 <= core.idempotency_keys < before
        slices += 1
    assert slices == 19
    assert core.idempotency_keys == 1
    disk.sync()
    core.check()


def has_old(core: Core, now_us: int) -> bool:
    return core.tidy(now_us)
