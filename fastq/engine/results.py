"""Results: the engine's answers."""

from __future__ import annotations

from dataclasses import dataclass

from fastq._core import Event, JobView


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A lease and its job. `payload` is JSON text."""

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

    `result` and `payload` are JSON text; `payload` and `traceparent` are set only on request. `error` is the last
    attempt's; it may be empty.
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
    error_code: str
    ended_us: int
    payload: bytes | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended: the error as it is shown, empty for none, the worker's error code, and the worker."""

    error: str = ""
    error_code: str = ""
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class JobsPage:
    """Jobs, newest first, of a piece of a page. The list goes on with numbers below `before`; 0: it is at its end.

    `ends`: by job id, how the last attempts ended, of those that failed. `unreadable` jobs were not searched: their
    records cannot be read.
    """

    jobs: list[JobView]
    before: int
    ends: dict[str, End]
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A job's events, newest first, and when it was submitted with which key."""

    job_id: str
    events: list[Event]
    created_us: int
    key_id: str


@dataclass(frozen=True, slots=True)
class HeldBack:
    """What keeps the ready jobs of a queue, or of one group, from being leased.

    reason: `paused`, `concurrency`, `rate_limit`, `group_concurrency`: a limit; `no_worker`: no worker asks for jobs of
    the queue; empty: nothing does.
    """

    reason: str
    rate_due_us: int  # when the rate limit allows the next lease; 0 unless the reason is `rate_limit`
    waiting_workers: int  # lease requests that wait for jobs of the queue
    asked_us: int  # when a worker last asked for jobs of the queue; 0: not since the start


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job does not run now.

    reason: `running`, `finished`, `not_due`; `paused`, `concurrency`, `rate_limit`, `group_concurrency`: the limit of
    its queue or group that is reached; `no_worker`: no worker asks for jobs of its queue; `behind`: other jobs come
    first; `next`: it is the next to be leased.
    """

    job_id: str
    state: str
    reason: str
    queue: str
    group: str
    run_at_us: int  # 0 unless the reason is `not_due`
    rate_due_us: int  # when the rate limit allows the next lease; 0 unless the reason is `rate_limit`
    position: int  # how many jobs that the caller sees come before it in its group, counted up to a bound
    waiting_workers: int  # lease requests that wait for jobs of its queue
    asked_us: int  # when a worker last asked for jobs of its queue; 0: not since the start


@dataclass(frozen=True, slots=True)
class LogUse:
    """The space of the log.

    Args:
        used_bytes: its segments with frames take so much.
        live_bytes: a rewrite of everything that is still needed would take so much.
        bound_bytes: above it the log is cleaned.
        segments: files with frames, the one that is written included.
        cleaned_segments: removed since the start.
    """

    used_bytes: int
    live_bytes: int
    bound_bytes: int
    segments: int
    cleaned_segments: int
