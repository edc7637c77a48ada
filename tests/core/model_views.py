"""The model's reads, and its retention."""

from __future__ import annotations

from dataclasses import dataclass

from fastq._core import Access
from tests.core.model import Model
from tests.core.model_jobs import TERMINAL, Job

FAILURES = ("error", "lease_expired", "discarded", "poisoned", "unreadable")

REQUEST_US = 60_000_000


@dataclass(frozen=True)
class Filter:
    """The arguments of `Core.page`."""

    state: str = ""
    queue: str = ""
    group: str | None = None
    tag: str = ""
    since_us: int = 0
    begun: bool = False
    failed: bool = False

    def fits(self, now_us: int, job: Job) -> bool:
        return (
            self.state in ("", job.shown_state(now_us))
            and self.queue in ("", job.queue)
            and self.group in (None, job.group)
            and self.tag in ("", *job.spec.tags)
            and job.created_us >= self.since_us
            and (job.lease_no > 0 or not self.begun)
            and (job.outcome in FAILURES or not self.failed)
        )


def page(
    model: Model, now_us: int, access: Access, before: int, limit: int, examine_max: int, wanted: Filter
) -> tuple[list[str], int]:
    """Ids of jobs that match, newest first, and where the next page begins."""
    found: list[str] = []
    newest_first = sorted(model.jobs.values(), key=lambda job: -job.number)
    for looked_at, job in enumerate(job for job in newest_first if before == 0 or job.number < before):
        if len(found) == limit or looked_at == examine_max:
            return found, job.number + 1
        if job.created_us < wanted.since_us:
            break
        if access.has(job.owner_id, job.queue) and wanted.fits(now_us, job):
            found.append(job.job_id)
    return found, 0


def position(model: Model, access: Access, job_id: str) -> tuple[bool, int]:
    """Whether ready jobs of its group come before a ready job, and how many of those exist for the caller."""
    job = model.jobs[job_id]
    if not job.due:
        return False, 0
    ready = model.order.ready(job.queue, job.group)
    first = ready[: ready.index(job)]
    return bool(first), sum(access.has(other.owner_id, other.queue) for other in first)


def queue(model: Model, name: str) -> dict[str, object]:
    """The fields of `QueueView`, without groups, ages and rates."""
    jobs = [job for job in model.jobs.values() if job.queue == name]
    return {
        "name": name,
        "ready": sum(job.due for job in jobs),
        "waiting": sum(job.waits and not job.due for job in jobs),
        "running": sum(job.state == "RUNNING" for job in jobs),
        "finished": {state: sum(job.state == state for job in jobs) for state in TERMINAL},
    }


def owned_queue(model: Model, owner_id: str, name: str) -> dict[str, object]:
    """The fields of `QueueView` to an owner."""
    jobs = [job for job in model.jobs.values() if job.queue == name and job.owner_id == owner_id]
    return {
        "name": name,
        "ready": sum(job.due for job in jobs),
        "waiting": sum(job.waits and not job.due for job in jobs),
        "running": sum(job.state == "RUNNING" for job in jobs),
        "finished": {state: sum(job.state == state for job in jobs) for state in TERMINAL},
        "oldest_ready_us": 0,
        "in_per_s": 0,
        "out_per_s": 0,
        "failed_per_s": 0,
        "groups": 0,
    }


def leased_before(model: Model, now_us: int, key_id: str, request_id: str) -> list[str | None]:
    """The tokens of the request's leases that are still held."""
    return [
        job.token
        for job in model.jobs.values()
        if job.request == (key_id, request_id) and job.leased_us + REQUEST_US > now_us and job.state == "RUNNING"
    ]


def next_due_us(model: Model, now_us: int) -> int | None:
    """The earliest of all lease deadlines, run_at of delayed jobs, and expires_at of waiting jobs."""
    times = [job.lease_until_us or 0 for job in model.jobs.values() if job.state == "RUNNING"]
    times += [job.run_at_us for job in model.jobs.values() if job.waits and job.run_at_us > now_us]
    times += [job.spec.expires_us for job in model.jobs.values() if job.waits and job.spec.expires_us]
    return min(times, default=None)


def forget(model: Model, now_us: int, kept_ms: int, count_max: int, gone: list[str]) -> None:
    """Remove what the core removed, in its order. Assert that they are the oldest; of equal ends any may be."""
    for state in TERMINAL:
        of_state = {job_id for job_id in gone if model.jobs[job_id].state == state}
        check_forgotten(model, now_us, state, kept_ms, count_max, of_state)
    assert all(model.jobs[job_id].state in TERMINAL for job_id in gone)
    for job_id in gone:
        model.remove(now_us, job_id)


def check_forgotten(model: Model, now_us: int, state: str, kept_ms: int, count_max: int, gone: set[str]) -> None:
    rest: list[Job] = []
    expected: list[int] = []
    for name in {job.queue for job in model.jobs.values()}:
        settings = model.order.of(name)
        own_ms = settings.retention_dead_ms if state == "DEAD" else settings.retention_acked_ms
        before_us = now_us - (own_ms if own_ms >= 0 else kept_ms) * 1000
        finished = [job for job in model.jobs.values() if job.queue == name and job.state == state]
        finished.sort(key=lambda job: job.ended_us)
        over = len(finished) - settings.finished_max if settings.finished_max >= 0 else 0
        n = max(over, sum(job.ended_us < before_us for job in finished))
        expected += [job.ended_us for job in finished[:n]]
        rest += finished[n:] if settings.finished_max < 0 else []
        left = [job.ended_us for job in finished if job.job_id in gone]
        assert sorted(left) == [job.ended_us for job in finished[: len(left)]], "not the oldest of its queue"
        assert len(left) >= n
    rest.sort(key=lambda job: job.ended_us)
    expected += [job.ended_us for job in rest[: max(0, len(rest) - count_max)]]
    assert sorted(model.jobs[job_id].ended_us for job_id in gone) == sorted(expected)
