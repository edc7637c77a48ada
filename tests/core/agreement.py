"""The invariant of core and model: both show the same of every job, queue and page."""

from __future__ import annotations

import pytest

from fastq import _core
from fastq._core import ALL, close_error, close_result, read_event, submit_facts
from fastq.errors import JobNotFound
from tests.core import model_views
from tests.core.model_jobs import Event, Job
from tests.core.model_views import Filter
from tests.core.traffic_agreement import agree_on_traffic
from tests.core.world import World


def agree(world: World, step: int) -> None:
    """Compare everything; histories only of a seventh of the jobs, in turn."""
    world.offer()
    world.core.check()
    jobs = world.model.jobs
    for job in jobs.values():
        agree_on(world, job)
    for job_id in list(jobs)[step % 7 :: 7]:
        agree_on_history(world, jobs[job_id])
    states = [job.state for job in jobs.values()]
    counts = world.core.counts()
    assert counts.pop("jobs") == len(jobs)
    assert counts.pop("delayed") == sum(job.waits and not job.due for job in jobs.values())
    assert counts == {state: states.count(state) for state in counts}
    assert world.core.documents(1) == {name: body for (_, name), body in world.model.documents.items()}
    assert world.core.idempotency_keys == len(world.model.keys.entries)
    assert world.core.idempotency_count == world.model.keys.count
    assert world.core.dropped_early == world.model.keys.dropped_early
    agree_on_queues(world)
    agree_on_owned_queues(world)
    agree_on_traffic(world)


def agree_on(world: World, job: Job) -> None:
    view = world.core.job(world.now_us, ALL, job.job_id)
    expected = {
        "job_id": job.job_id,
        "state": job.shown_state(world.now_us),
        "attempts": job.attempts,
        "max_retries": job.spec.max_retries,
        "priority": job.spec.priority,
        "created_us": job.created_us,
        "run_at_us": job.run_at_us,
        "expires_us": job.spec.expires_us,
        "queue": job.queue,
        "group": job.group,
        "owner_id": job.owner_id,
        "tags": job.spec.tags,
        "worker_id": job.worker_id if job.state == "RUNNING" else "",
        "lease_no": job.lease_no,
        "leased_us": job.leased_us,
        "lease_until_us": job.lease_until_us,
        "ended_us": job.ended_us,
        "outcome": job.outcome,
        "cancel_requested": job.cancel_requested,
        "progress": job.progress,
    }
    assert {name: getattr(view, name) for name in expected} == expected
    facts = submit_facts(world.record(view.place), job.job_id)
    assert (facts.payload, facts.tags, facts.traceparent) == (
        job.spec.payload,
        job.spec.tags,
        job.spec.traceparent,
    )
    assert (facts.unique_key, facts.key_id, facts.lease_ms, facts.backoff) == (
        job.spec.unique_key,
        job.key_id,
        job.spec.lease_ms,
        job.spec.backoff,
    )
    assert (view.close_place is None) == (job.outcome == "")
    if view.close_place is not None:
        assert close_result(world.record(view.close_place), job.job_id) == (job.result, job.error)
        ended = next(event for event in job.history if event.what == "attempt")
        expected = ended.error, ended.error_code, ended.worker_id
        assert close_error(world.record(view.close_place), job.job_id) == expected


def agree_on_history(world: World, job: Job) -> None:
    view = world.core.job(world.now_us, ALL, job.job_id)
    events = [read_event(record) for record in world.history(view.number, view.history_place)]
    names = Event.__dataclass_fields__
    shown = [Event(**{name: getattr(event, name) for name in names}) for event in events]
    assert shown == job.shown_history()


def agree_on_queues(world: World) -> None:
    order = world.model.order
    names = {job.queue for job in world.model.jobs.values()} | set(order.settings)
    assert names <= set(world.core.queues(ALL))
    assert all(order.last_turn.get(name) for name in set(world.core.queues(ALL)) - names), "an empty queue stays"
    for name in names:
        view = world.core.queue(world.now_us, ALL, name)
        expected = model_views.queue(world.model, name)
        assert {field: getattr(view, field) for field in expected} == expected
        groups = {job.group for job in world.model.jobs.values() if job.queue == name}
        assert view.groups >= len(groups) if order.last_turn.get(name) else view.groups == len(groups)
        for group in groups:
            assert world.core.blocked_by(world.now_us, name, group) == order.blocked_by(world.now_us, name, group)
        due_us = world.core.rate_due_us(name)
        assert (due_us if due_us > world.now_us else 0) == order.rate_due_us(world.now_us, name)


def agree_on_owned_queues(world: World) -> None:
    """To an owner there are the queues with its jobs, and in them only these are counted."""
    for owner_id in ("o1", "o2", "nobody"):
        access = _core.Access(owner_id)
        names = {job.queue for job in world.model.jobs.values() if job.owner_id == owner_id}
        places = world.core.queue_places
        assert world.core.queues(access) == sorted(names) == sorted(world.core.queues_in(access, 0, places, ""))
        for name in {job.queue for job in world.model.jobs.values()}:
            view = world.core.queue(world.now_us, access, name)
            expected = model_views.owned_queue(world.model, owner_id, name)
            assert {field: getattr(view, field) for field in expected} == expected


def agree_on_pages(world: World, access: _core.Access, wanted: Filter, limit: int, examine_max: int) -> None:
    before = 0
    while True:
        found = world.core.page(world.now_us, access, _core.Filter(**vars(wanted)), before, limit, examine_max)
        ids = [view.job_id for view in found[0]], found[1]
        assert ids == model_views.page(world.model, world.now_us, access, before, limit, examine_max, wanted)
        if (before := found[1]) == 0:
            break


def agree_on_rising(world: World, access: _core.Access, wanted: Filter, limit: int, examine_max: int) -> None:
    """The pages upwards have the jobs of one page downwards."""
    everything = 1_000_000
    filter = _core.Filter(**vars(wanted))
    jobs, _ = world.core.page(world.now_us, access, filter, 0, everything, everything)
    after, until, found = 0, world.core.next_number, []
    while True:
        page, after = world.core.rising(world.now_us, access, filter, after, until, limit, examine_max)
        assert len(page) <= min(limit, examine_max)
        found += [view.job_id for view in page]
        if after == 0:
            break
    assert found == [view.job_id for view in jobs][::-1]


def agree_on_positions(world: World, access: _core.Access, count_max: int) -> None:
    """Positions, running jobs, and that any other job is absent for this caller."""
    for job_id, job in world.model.jobs.items():
        if not access.has(job.owner_id, job.queue):
            with pytest.raises(JobNotFound):
                world.core.position(access, job_id, count_max)
            continue
        found = world.core.position(access, job_id, 1_000_000)
        assert found == model_views.position(world.model, access, job_id)
        assert world.core.position(access, job_id, count_max)[1] <= min(found[1], count_max)
    jobs = [job for job in world.model.jobs.values() if job.state == "RUNNING" and access.has(job.owner_id, job.queue)]
    views = [view for first in range(0, 100, 3) for view in world.core.running(access, first, first + 3)]
    views += world.core.running(access, 102, 1_000_000)
    assert sorted(view.job_id for view in views) == sorted(job.job_id for job in jobs)


def agree_on_the_timer(world: World) -> None:
    """The core's next deadline is not later than the model's."""
    world.core.advance(world.now_us, 1_000_000)
    expected = model_views.next_due_us(world.model, world.now_us)
    assert world.core.next_due_us() == (1 << 62 if expected is None else expected)
