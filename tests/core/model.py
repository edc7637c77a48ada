"""The rules of a job in plain Python, slow and obvious: the oracle that the core is held against."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

RESTART_GRACE_US = 30_000_000
CLOSINGS_KEPT = 4
REQUEST_US = 60_000_000
ERROR_BYTES_KEPT = 2048


@dataclass
class Job:
    job_id: str
    order: int  # of submission
    payload: bytes
    owner_id: str
    queue: str
    priority: int
    max_retries: int
    created_us: int
    run_at_us: int
    state: str = "READY"
    attempts: int = 0
    lease_until_us: int | None = None
    lease_ms: int = 0
    legacy: bool = False
    token: str | None = None  # of the last lease
    tokens: list[str] = field(default_factory=list)  # of all leases
    closings: list[tuple[str, str, bytes]] = field(default_factory=list)  # token, error, result; newest last
    result: bytes | None = None
    error: str = ""
    expired: bool = False
    failed: bool = False  # an attempt has ended
    ended_us: int = 0
    leased_us: int = 0
    request_id: str = ""  # of the last lease

    def shown_state(self, now_us: int) -> str:
        return "SCHEDULED" if self.state == "READY" and self.run_at_us > now_us else self.state


class Refused(Exception):
    """A command that the rules refuse; `why` is the name of the error that the core raises."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Model:
    """Jobs in order of submission, and documents."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.documents: dict[tuple[int, str], bytes] = {}
        self.submitted = 0

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def submit(self, job: Job) -> None:
        assert job.job_id not in self.jobs
        self.jobs[job.job_id] = job
        self.submitted += 1

    def next_of(self, now_us: int, queues: list[str]) -> Job | None:
        return next((job for queue in queues if (job := self.next_ready(now_us, queue))), None)

    def next_ready(self, now_us: int, queue: str) -> Job | None:
        waiting = [
            job
            for job in self.jobs.values()
            if job.state in ("READY", "RETRY") and job.run_at_us <= now_us and job.queue == queue
        ]
        return min(waiting, key=lambda job: (-job.priority, job.run_at_us, job.created_us, job.order), default=None)

    def lease(self, job: Job, now_us: int, lease_ms: int, legacy: bool, token: str, request_id: str = "") -> None:
        assert token not in job.tokens, "a token was given out twice"
        job.state, job.attempts = "RUNNING", job.attempts + 1
        job.lease_until_us, job.lease_ms, job.legacy = now_us + lease_ms * 1000, lease_ms, legacy
        job.token, job.leased_us, job.request_id = token, now_us, request_id
        job.tokens.append(token)

    def ack(
        self, now_us: int, job_id: str, token: str | None, result: bytes | None, error: str, retry_at_us: int
    ) -> bool:
        job = self.jobs.get(job_id)
        error = error.encode()[:ERROR_BYTES_KEPT].decode("utf-8", "ignore")
        if job is None:
            raise Refused("JobNotFound")
        if token is None:
            if job.state != "RUNNING":
                raise Refused("NotAckable")
            if not job.legacy:
                raise Refused("LeaseLost")
        elif job.state != "RUNNING" or token != job.token:
            if (token, error, result or b"") in job.closings:
                return False
            raise Refused("LeaseLost")
        assert job.token is not None
        job.closings = [*job.closings, (job.token, error, result or b"")][-CLOSINGS_KEPT:]
        job.result, job.error, job.expired = result, error, False
        self.end_attempt(job, now_us, bool(error), retry_at_us)
        return True

    def end_attempt(self, job: Job, now_us: int, failed: bool, retry_at_us: int) -> None:
        job.failed, job.ended_us = True, now_us
        if not failed:
            job.state = "ACKED"
        elif job.attempts < job.max_retries:
            job.state, job.run_at_us = "RETRY", max(now_us, retry_at_us)
        else:
            job.state = "DEAD"

    def expire(self, now_us: int, retry_at: Callable[[int], int]) -> int:
        due = [job for job in self.jobs.values() if job.state == "RUNNING" and (job.lease_until_us or 0) <= now_us]
        for job in due:
            job.result, job.error, job.expired = None, "", True
            self.end_attempt(job, now_us, True, retry_at(job.attempts))
        return len(due)

    def extend(self, now_us: int, job_id: str, token: str, lease_ms: int) -> int:
        job = self.held(job_id, token)
        job.lease_until_us = max(job.lease_until_us or 0, now_us + lease_ms * 1000)
        return job.lease_until_us

    def undelivered(self, job_id: str, token: str) -> bool:
        try:
            job = self.held(job_id, token)
        except Refused:
            return False
        job.attempts -= 1
        job.state = "RETRY" if job.failed else "READY"
        return True

    def held(self, job_id: str, token: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None:
            raise Refused("JobNotFound")
        if job.state != "RUNNING" or token != job.token:
            raise Refused("LeaseLost")
        return job

    def forget(self, state: str, ended_before_us: int, count_max: int, gone: set[str]) -> None:
        """Remove what the core removed, if it was right to: the oldest; of those that ended together, any."""
        finished = sorted((job for job in self.jobs.values() if job.state == state), key=lambda job: job.ended_us)
        over = max(0, len(finished) - count_max)
        too_old = sum(job.ended_us < ended_before_us for job in finished)
        assert len(gone) == max(over, too_old)
        assert sorted(self.jobs[job_id].ended_us for job_id in gone) == [job.ended_us for job in finished[: len(gone)]]
        for job_id in gone:
            del self.jobs[job_id]

    def leased_before(self, now_us: int, request_id: str) -> list[str]:
        """Tokens of those leases of the request that are still held."""
        held = [
            job.token
            for job in self.jobs.values()
            if job.request_id == request_id and job.leased_us + REQUEST_US > now_us and job.state == "RUNNING"
        ]
        return [token for token in held if token is not None]

    def resume(self, now_us: int) -> None:
        for job in self.jobs.values():
            if job.state == "RUNNING":
                grace_us = min(job.lease_ms * 1000, RESTART_GRACE_US)
                job.lease_until_us = max(job.lease_until_us or 0, now_us + grace_us)

    def next_due_us(self, now_us: int) -> int | None:
        """The next deadline or the next delayed job's time, whatever comes first."""
        times = [
            job.lease_until_us if job.state == "RUNNING" else job.run_at_us
            for job in self.jobs.values()
            if job.state == "RUNNING" or (job.state in ("READY", "RETRY") and job.run_at_us > now_us)
        ]
        return min((time for time in times if time is not None), default=None)
