"""A unique key's holder that waits past its expires_at gives way, also before its expiry is logged."""

from __future__ import annotations

import pytest

from fastq._core import CREATED, DUPLICATE, CoreSettings
from tests.core.agreement import agree
from tests.core.disk import Disk
from tests.core.model import Server
from tests.core.model_jobs import Ack, New
from tests.core.model_order import Settings
from tests.core.world import START_US, World, core_job

SECOND_US = 1_000_000


def overdue(world: World, queue: str = "default") -> str:
    """A job with the unique key "k" that waits past its expires_at; nobody has logged that."""
    ((job_id, how),) = world.submit([New(queue=queue, unique_key="k", expires_us=world.now_us + SECOND_US)])
    assert how == CREATED
    world.time_passes(SECOND_US - 1)
    assert world.submit([New(queue=queue, unique_key="k")]) == [(job_id, DUPLICATE)], "it holds the key until then"
    world.time_passes(1)
    return job_id  # type: ignore[no-any-return]


def state_of(world: World, job_id: str) -> str:
    return world.model.jobs[job_id].state


def settled(world: World, *, expired: str) -> None:
    assert state_of(world, expired) == "EXPIRED"
    agree(world, 0)
    world.sync()
    world.restart(world.server)
    agree(world, 0)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_a_submit_makes_a_new_job(count: int, replace: bool) -> None:
    world = World()
    old = overdue(world)
    world.watch(old)  # its reader is told
    answers = world.submit([New(unique_key="k", replace=replace)] * count)
    assert answers[0][1] == CREATED
    assert {job_id for job_id, _ in answers} == {answers[0][0]} != {old}
    settled(world, expired=old)


def test_a_transaction_makes_a_new_job() -> None:
    world = World()
    old = overdue(world)
    assert world.transact([], [], [New(unique_key="k")], "t")[1][0][1] == CREATED
    settled(world, expired=old)


def test_a_holder_that_its_transaction_returns_past_its_expiry_gives_way() -> None:
    world = World()
    ((old, _),) = world.submit([New(unique_key="k", max_retries=5, expires_us=world.now_us + SECOND_US)])
    (token,) = world.lease(["default"])
    world.time_passes(2 * SECOND_US)
    assert world.submit([New(unique_key="k")]) == [(old, DUPLICATE)], "it runs"
    acked = Ack(old, token, "error", wait_ms=1000)
    assert world.transact([acked], [], [New(unique_key="k")])[1][0][1] == CREATED
    settled(world, expired=old)


def test_a_redrive_takes_the_key() -> None:
    world = World()
    ((dead, _),) = world.submit([New(unique_key="k", max_retries=0)])
    (token,) = world.lease(["default"])
    world.ack(Ack(dead, token, "discard"))
    old = overdue(world)
    assert world.redrive(dead) is None
    settled(world, expired=old)


def test_a_move_takes_the_key_and_the_place_in_a_full_queue() -> None:
    world = World()
    old = overdue(world, "q1")
    ((moved, _),) = world.submit([New(unique_key="k")])
    world.configure_queue("q1", Settings(max_depth=1))
    assert world.edit(moved, queue="q1") is None
    settled(world, expired=old)


def test_a_new_job_takes_the_place_where_a_limit_is_reached() -> None:
    world = World(Server(owner_depth_max=1))
    world.configure_queue("default", Settings(max_depth=1))
    old = overdue(world)
    assert world.submit([New()]) in ("QueueFull", "OwnerFull")
    assert world.submit([New(unique_key="k")])[0][1] == CREATED
    settled(world, expired=old)


def test_a_batch_has_room_for_the_expiries_of_all_its_holders() -> None:
    """With the longest expiry records: each holder has a history."""
    count = 10_000
    disk = Disk(64 << 20, 16 << 20)
    disk.open(START_US, 1, CoreSettings())
    old = [core_job(New(unique_key=str(n), max_retries=5, expires_us=START_US + SECOND_US)) for n in range(count)]
    disk.core.submit_many(START_US, old, owner_id="o1", key_id="k1")
    for lease in disk.core.lease(START_US, ["default"], count, lease_ms=1000, key_id="k2"):
        disk.core.undelivered(START_US, lease.job_id, lease.token)
    disk.sync()
    new = [core_job(New(payload=b"", unique_key=str(n))) for n in range(count)]
    answers = disk.core.submit_many(START_US + SECOND_US, new, owner_id="o1", key_id="k1")
    assert {how for _, how in answers} == {CREATED}
    counts = disk.core.counts()
    assert (counts["READY"], counts["EXPIRED"]) == (count, count)
    disk.sync()
    disk.core.check()
