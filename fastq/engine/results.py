"""What the engine answers with."""

from __future__ import annotations

from dataclasses import dataclass

from fastq._core import Event, JobView


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A lease and what to work on. `payload` is JSON text."""

    job_id: str
    payload: bytes
    token: str
    attempt: int
    lease_until_us: int
    created_us: int
    priority: int
    max_retries: int
    queue: str
    group: str = ""
    tags: tuple[str, ...] = ()
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as a reader sees it.

    `result` and `payload` are JSON text, the latter only if it was asked for; `error` is the last attempt's, empty if
    it had none.
    """

    job_id: str
    state: str
    attempts: int
    max_retries: int
    priority: int
    queue: str
    group: str
    tags: tuple[str, ...]
    created_us: int
    run_at_us: int
    expires_us: int
    lease_until_us: int | None
    worker_id: str
    outcome: str
    cancel_requested: bool
    progress: tuple[int, str, int] | None
    result: bytes | None
    error: str
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class JobsPage:
    """Jobs, the newest first, and the number before which the next page begins: 0 if there is none."""

    jobs: list[JobView]
    before: int


@dataclass(frozen=True, slots=True)
class JobHistory:
    """What happened to a job, the newest first, and who submitted it when."""

    job_id: str
    events: list[Event]
    created_us: int
    key_id: str


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job does not run now.

    reason: `running`, `finished`, `not_due`; `paused`, `concurrency`, `rate_limit`, `group_concurrency`: what holds its
    queue or group back; `no_worker`: nobody asks for jobs of its queue; `behind`: others come first; `next`.
    """

    job_id: str
    state: str
    reason: str
    queue: str
    group: str
    run_at_us: int  # 0 unless it waits for a time
    rate_due_us: int  # when the rate limit lets the next lease go; 0 if it is not in the way
    position: int  # how many come before it in its group, counted up to a bound
    waiting_workers: int  # lease requests that wait for jobs of its queue
    asked_us: int  # when somebody last asked for jobs of its queue; 0 if nobody has since the start
