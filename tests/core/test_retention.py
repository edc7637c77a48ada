"""Retention by bytes. The model covers retention by age and number."""

from __future__ import annotations

from fastq._core import ALL
from tests.core.agreement import agree
from tests.core.model_jobs import Ack, New
from tests.core.model_order import Settings
from tests.core.world import World

KEPT_MS = 1 << 40


def finished(world: World, payload_bytes: int, queue: str) -> str:
    """Finish a job with a payload of that size. Returns its id."""
    world.time_passes(1)
    ((job_id, _),) = world.submit([New(payload=b'"%s"' % (b"x" * payload_bytes), queue=queue)])
    (token,) = world.lease([queue])
    world.ack(Ack(job_id, token))
    world.offer()
    return str(job_id)


def forget(world: World, bytes_max: int, limit: int = 100) -> list[str]:
    """Run retention. Returns the ids of the removed jobs in order of submission."""
    world.core.retain(KEPT_MS, KEPT_MS, 1_000_000, bytes_max)
    world.core.forget(world.now_us, limit)
    gone = [job_id for job_id in world.model.jobs if not world.exists(job_id)]
    for job_id in gone:
        world.model.remove(world.now_us, job_id)
    agree(world, 0)
    return gone


def record_bytes(world: World, job_id: str) -> int:
    """The length of a finished job's JOB record: its two records, and facts about job, run and one closing."""
    view = world.core.job(world.now_us, ALL, job_id)
    assert view.close_place is not None
    return 32 + view.place.bytes + 36 + 13 + view.close_place.bytes


def test_the_oldest_jobs_of_all_queues_are_removed_until_the_rest_fits() -> None:
    world = World()
    jobs = [finished(world, 500 * (1 + k % 3), "abc"[k % 3]) for k in range(9)]
    sizes = [record_bytes(world, job_id) for job_id in jobs]
    assert forget(world, sum(sizes)) == []
    assert forget(world, sum(sizes) - 1) == jobs[:1]
    assert forget(world, sum(sizes[4:]) + 1) == jobs[1:4]
    assert forget(world, 0, limit=2) == jobs[4:6]
    assert forget(world, 0) == jobs[6:]


def test_a_queue_with_its_own_finished_max_ignores_the_servers_bytes() -> None:
    world = World()
    world.configure_queue("a", Settings(finished_max=2))
    own = [finished(world, 2_000, "a") for _ in range(3)]
    others = [finished(world, 500, "b") for _ in range(2)]
    assert forget(world, 1 << 40) == own[:1]
    assert forget(world, record_bytes(world, others[1])) == others[:1]
    assert forget(world, 0) == others[1:]
    assert forget(world, 0) == []


def test_the_byte_counts_stay_right_after_moves_and_restarts() -> None:
    world = World()
    jobs = [finished(world, 1_000, "a") for _ in range(4)]
    world.sync()
    while world.frames[-1].segment == 1:
        world.put_document("filler", bytes(8_000))
        world.offer()
        world.sync()
    world.clean_oldest("drop")
    world.restart()
    sizes = [record_bytes(world, job_id) for job_id in jobs]
    assert forget(world, sum(sizes[1:])) == jobs[:1]
