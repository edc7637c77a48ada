"""Each record has a check of its own: no changed byte of a payload, result, lease or history is read back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastq._core import (
    ALL,
    close_error,
    close_result,
    history_of,
    is_sound_record,
    read_event,
    submit_facts,
    submit_payload,
)
from fastq.errors import RecordUnreadable
from tests.core.model_jobs import Ack, New
from tests.core.test_cleaning import clean_all
from tests.core.world import World


def changed(record: bytes) -> list[bytes]:
    """The record with each of its bytes changed, one at a time, and cut at each length."""
    flipped = [record[:i] + bytes([record[i] ^ 0x10]) + record[i + 1 :] for i in range(len(record))]
    return flipped + [record[:n] for n in range(len(record))]


def refuse_all(record: bytes, read: Callable[[bytes], object]) -> None:
    """Every change of a record is refused, and so is another record in its place."""
    assert is_sound_record(record)
    read(record)
    for wrong in changed(record):
        assert not is_sound_record(wrong)
        with pytest.raises(RecordUnreadable):
            read(wrong)


def one_of_many(world: World) -> str:
    """A job of a batch that failed once and was then acked."""
    ids = [job_id for job_id, _ in world.submit([New(b'{"amount":%d}' % n, tags=("a",)) for n in range(5)])]
    tokens = dict(zip(ids, world.lease(["default"], limit=5, worker_id="w"), strict=True))
    world.ack(Ack(ids[2], tokens[ids[2]], "error", error="first", wait_ms=0))
    (token,) = world.lease(["default"], worker_id="w")
    world.ack(Ack(ids[2], token, "ok", b'{"paid":17}'))
    return ids[2]


@pytest.mark.parametrize("moved", [False, True])
def test_a_record_that_is_not_as_it_was_written_is_refused(moved: bool) -> None:
    world = World()
    job_id = one_of_many(world)
    if moved:
        clean_all(world)
    view = world.core.job(world.now_us, ALL, job_id)
    assert view.close_place is not None and view.history_place is not None
    refuse_all(world.record(view.place), lambda record: submit_payload(record, job_id))
    refuse_all(world.record(view.place), lambda record: submit_facts(record, job_id))
    refuse_all(world.record(view.close_place), lambda record: close_result(record, job_id))
    refuse_all(world.record(view.close_place), lambda record: close_error(record, job_id))
    for record in world.history(view.number, view.history_place):
        refuse_all(record, read_event)


@pytest.mark.parametrize("moved", [False, True])
def test_a_history_with_a_changed_byte_is_refused(moved: bool) -> None:
    """Of a moved job the history is in one record, together with the payload, which is not part of it."""
    world = World()
    job_id = one_of_many(world)
    if moved:
        clean_all(world)
    view = world.core.job(world.now_us, ALL, job_id)
    assert view.history_place is not None
    record = world.record(view.history_place)
    events = history_of(record, view.number)
    submit = world.record(view.place)
    for wrong in changed(record):
        if moved and wrong.replace(submit, b"") == record.replace(submit, b""):
            continue
        try:
            assert history_of(wrong, view.number) == events
        except RecordUnreadable:
            continue
        assert moved and len(wrong) == len(record) and submit not in wrong, "only the payload's record may differ"


def test_a_record_of_another_job_is_refused() -> None:
    world = World()
    job_id = one_of_many(world)
    other_id = next(job_id for job_id, _ in world.submit([New()]))
    view, other = world.core.job(world.now_us, ALL, job_id), world.core.job(world.now_us, ALL, other_id)
    assert view.close_place is not None and view.history_place is not None
    for read in (
        lambda: submit_payload(world.record(view.place), other_id),
        lambda: close_result(world.record(view.close_place), other_id),
        lambda: close_error(world.record(view.close_place), other_id),
        lambda: history_of(world.record(view.history_place), other.number),
    ):
        with pytest.raises(RecordUnreadable, match="another record is in its place"):
            read()


def test_a_move_carries_the_check_along() -> None:
    """The cleaner copies a record as it is. A byte that changed before the move is still refused after it."""
    world = World()
    job_id = one_of_many(world)
    before = world.core.job(world.now_us, ALL, job_id)
    records = [world.record(place) for place in (before.place, before.close_place) if place is not None]
    clean_all(world)
    after = world.core.job(world.now_us, ALL, job_id)
    assert after.place != before.place
    assert [world.record(place) for place in (after.place, after.close_place) if place is not None] == records
