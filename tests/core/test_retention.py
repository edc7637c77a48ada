"""What is let go when finished jobs take too much of the log; by age and number the model says it."""

from __future__ import annotations

from tests.core.agreement import agree
from tests.core.model_jobs import Ack, New
from tests.core.model_order import Settings
from tests.core.world import World

KEPT_MS = 1 << 40


def finished(world: World, payload_bytes: int, queue: str) -> str:
    """A job that has just ended, as large as it says."""
    world.time_passes(1)
    ((job_id, _),) = world.submit([New(payload=b'"%s"' % (b"x" * payload_bytes), queue=queue)])
    (token,) = world.lease([queue])
    world.ack(Ack(job_id, token))
    world.offer()
    return str(job_id)


def forget(world: World, bytes_max: int, limit: int = 100) -> list[str]:
    """The ids that went, in order of submission."""
    world.core.forget(world.now_us, "ACKED", KEPT_MS, 1_000_000, bytes_max, limit)
    gone = [job_id for job_id in world.model.jobs if not world.exists(job_id)]
    for job_id in gone:
        world.model.remove(job_id)
    agree(world, 0)
    return gone


def record_bytes(world: World, job_id: str) -> int:
    """What replay needs of a finished job."""
    view = world.core.job(world.now_us, job_id)
    assert view.close_place is not None
    return view.place.bytes + view.close_place.bytes


def test_the_oldest_of_all_queues_go_until_the_rest_fits() -> None:
    world = World()
    jobs = [finished(world, 500 * (1 + k % 3), "abc"[k % 3]) for k in range(9)]
    sizes = [record_bytes(world, job_id) for job_id in jobs]
    assert forget(world, sum(sizes)) == []
    assert forget(world, sum(sizes) - 1) == jobs[:1]
    assert forget(world, sum(sizes[4:]) + 1) == jobs[1:4]
    assert forget(world, 0, limit=2) == jobs[4:6]
    assert forget(world, 0) == jobs[6:]


def test_a_queue_with_a_number_of_its_own_is_left_alone_by_the_servers_bytes() -> None:
    world = World()
    world.configure_queue("a", Settings(finished_max=2))
    own = [finished(world, 2_000, "a") for _ in range(3)]
    others = [finished(world, 500, "b") for _ in range(2)]
    assert forget(world, 1 << 40) == own[:1]
    assert forget(world, record_bytes(world, others[1])) == others[:1]
    assert forget(world, 0) == others[1:]
    assert forget(world, 0) == []


def test_what_is_counted_stays_right_through_moves_and_restarts() -> None:
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
