"""What the engine answers with."""

from __future__ import annotations

from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as a reader sees it. `result` is JSON text; `error` is the last attempt's, empty if it had none."""

    job_id: str
    state: str
    attempts: int
    max_retries: int
    priority: int
    queue: str
    created_us: int
    run_at_us: int
    lease_until_us: int | None
    result: bytes | None
    error: str
