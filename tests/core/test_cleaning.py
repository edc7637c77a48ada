"""Moved jobs, histories and idempotency keys survive the segments that they came from."""

from __future__ import annotations

from itertools import repeat

import pytest

from fastq._core import ALL, REPEATED, read_event
from tests.core.agreement import agree
from tests.core.model import Server
from tests.core.model_jobs import ATTEMPTS_SHOWN, EVENTS_SHOWN, Ack, New
from tests.core.world import World


def next_segment(world: World) -> None:
    """Fill the present segment with records that are not needed."""
    world.sync()
    segment = world.frames[-1].segment if world.frames else 1
    while not world.frames or world.frames[-1].segment == segment:
        world.put_document("filler", bytes(8_000))
        world.offer()
        world.sync()


def clean_all(world: World) -> None:
    """Clean until all present segments are dropped, then restart."""
    next_segment(world)
    newest = world.frames[-1].seq
    while world.core.oldest_frame < newest:
        world.clean_oldest("drop")
    world.restart()
    agree(world, 0)


def history(world: World, job_id: str) -> list[bytes]:
    view = world.core.job(world.now_us, ALL, job_id)
    return world.history(view.number, view.history_place)


def test_an_edited_job_outlives_the_segment_of_its_submit() -> None:
    world = World()
    ((waiting, _), (dead, _)) = world.submit([New(priority=1, idempotency_key="k", body_digest=3), New(priority=9)])
    (token,) = world.lease(["default"])
    world.ack(Ack(dead, token, "discard", b'"result"', "boom"))
    next_segment(world)
    for job_id in (waiting, dead):
        world.edit(job_id, payload=b'"other"', priority=4, queue="mail")
    clean_all(world)
    assert len(world.model.jobs) == 2
    assert world.submit([New(idempotency_key="k", body_digest=3)]) == [(waiting, REPEATED)]
    clean_all(world)
    agree(world, 3)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_job_edited_twice_in_one_segment_is_moved_once(replaced: bool) -> None:
    world = World()
    ((job_id, _),) = world.submit([New(unique_key="u")])
    for n in range(5):
        if replaced:
            world.submit([New(payload=b"%d" % n, unique_key="u", replace=True)])
        else:
            world.edit(job_id, payload=b"%d" % n)
    clean_all(world)
    assert world.model.jobs[job_id].spec.payload == b"4"


def test_the_answers_to_keys_outlive_their_jobs_and_segments() -> None:
    world = World()
    new = New(idempotency_key="k1", body_digest=1)
    ((job_id, _),) = world.submit([new])
    (token,) = world.lease(["default"])
    answer = world.transact([Ack(job_id, token)], [], [New()], "t1", 2)
    world.delete([job_id])
    for _ in range(3):
        clean_all(world)
        assert world.submit([new]) == [(job_id, REPEATED)]
        assert world.transact([], [], [], "t1", 2) == (*answer[:2], True)


def test_a_key_that_expires_during_cleaning_does_not_delay_it() -> None:
    world = World(Server(idempotency_us=1_000_000))
    ((job_id, _),) = world.submit([New(idempotency_key="k1")])
    world.delete([job_id])
    next_segment(world)
    world.time_passes(2_000_000)
    clean_all(world)
    assert world.submit([New(idempotency_key="k1")]) != [(job_id, REPEATED)]


def test_a_history_keeps_its_last_attempts_through_any_number_of_moves() -> None:
    world = World()
    ((job_id, _),) = world.submit([New(max_retries=1000)])
    for n in range(60):
        (token,) = world.lease(["default"], worker_id=f"w{n}")
        world.ack(Ack(job_id, token, "error", error=f"error {n}", wait_ms=0))
        if n % 13 == 0:
            clean_all(world)
    clean_all(world)
    events = [read_event(record) for record in history(world, job_id)]
    assert [event.error for event in events] == [f"error {n}" for n in range(59, 59 - ATTEMPTS_SHOWN, -1)]


def test_a_history_keeps_its_last_events_and_the_result() -> None:
    world = World()
    ((job_id, _),) = world.submit([New()])
    (token,) = world.lease(["default"])
    world.ack(Ack(job_id, token, "discard", b'"kept"', "boom"))
    for n in range(EVENTS_SHOWN + 9):
        world.edit(job_id, priority=n)
    for _ in range(3):
        clean_all(world)
        events = [read_event(record) for record in history(world, job_id)]
        assert len(events) == EVENTS_SHOWN and {event.what for event in events} == {"edited"}
    world.redrive(job_id)
    clean_all(world)


def test_a_history_of_long_errors_stays_within_its_bytes() -> None:
    """Twenty errors of 2 KiB fit; the oldest events are dropped."""
    world = World()
    ((job_id, _),) = world.submit([New(max_retries=1000)])
    for n in range(40):
        (token,) = world.lease(["default"], worker_id="w" * 64)
        world.ack(Ack(job_id, token, "error", error=f"{n}" * 2048, wait_ms=0))
    clean_all(world)
    assert len(history(world, job_id)) == ATTEMPTS_SHOWN


def test_an_older_request_does_not_hide_a_newer_one_when_its_lease_is_moved() -> None:
    world = World()
    world.submit([New(), New()])
    (old,) = world.lease(["default"], lease_ms=3_600_000, request_id="r")
    next_segment(world)
    world.time_passes(61_000_000)
    (new,) = world.lease(["default"], lease_ms=3_600_000, request_id="r")
    assert new != old
    world.clean_oldest("drop")
    assert world.lease(["default"], request_id="r") == [new]


def test_progress_and_cancel_requests_are_moved_with_their_jobs() -> None:
    world = World()
    ((job_id, _),) = world.submit([New(tags=("a", "b"), traceparent="t", lease_ms=5_000, backoff=(7, 1.5, 900))])
    (token,) = world.lease(["default"], worker_id="w")
    world.report(job_id, token, 40, "half of it")
    world.cancel(job_id)
    clean_all(world)
    world.expire(repeat(0.5))
    agree(world, 0)
    assert world.extend_many([(job_id, token)], 0)[0][1] is True, "its worker still learns of the request"
