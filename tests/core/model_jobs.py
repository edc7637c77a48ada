"""The model's jobs, and the rules that concern one job only."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Backoff = tuple[int, float, int]
"""base_ms, factor, cap_ms"""

CLOSINGS_KEPT = 4
ERROR_BYTES_KEPT = 2048
ATTEMPTS_SHOWN = 20
EVENTS_SHOWN = 50

TERMINAL = ("ACKED", "DEAD", "EXPIRED", "CANCELLED")
WAITING = ("READY", "RETRY")

OUTCOMES = {
    "ok": "ok",
    "error": "error",
    "discard": "discarded",
    "snooze": "snoozed",
    "release": "released",
}
"""An ack's outcome -> the outcome in the history."""


class Refused(Exception):
    """A command that the rules refuse; `why` is the name of the error that the core raises."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class New:
    """A job to submit; the fields are those of `NewJob` and `SubmitOptions`."""

    payload: bytes = b"1"
    max_retries: int = 3
    priority: int = 0
    run_at_us: int = 0
    queue: str = "default"
    group: str = ""
    lease_ms: int = 0
    backoff: Backoff | None = None
    expires_us: int = 0
    unique_key: str = ""
    replace: bool = False
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    idempotency_key: str = ""
    body_digest: int = 0


@dataclass(frozen=True)
class Ack:
    """The end of an attempt; the fields are those of the core's `Ack`."""

    job_id: str
    token: str | None
    outcome: str = "ok"
    result: bytes | None = None
    error: str = ""
    error_code: str = ""
    wait_ms: int = -1
    jitter: float = 0.0

    @property
    def error_kept(self) -> str:
        return self.error.encode()[:ERROR_BYTES_KEPT].decode("utf-8", "ignore")


@dataclass(frozen=True)
class Event:
    """One entry of a job's history; the fields are those of the core's `Event`."""

    what: str
    at_us: int
    key_id: str = ""
    number: int = 0
    leased_us: int = 0
    worker_id: str = ""
    outcome: str = ""
    error: str = ""
    error_code: str = ""


@dataclass
class Job:
    job_id: str
    number: int
    owner_id: str
    key_id: str  # of the submit, or of the last replace
    created_us: int
    run_at_us: int
    spec: New  # its values; edit and replace change them
    state: str = "READY"
    due: bool = False  # it waits for a worker, not for its time
    attempts: int = 0
    failed: bool = False  # an attempt has failed since it was submitted or redriven
    cancel_requested: bool = False
    # its leases
    lease_no: int = 0
    leased_us: int = 0
    lease_until_us: int | None = None
    granted_ms: int = 0
    legacy: bool = False
    token: str | None = None  # of the last lease
    tokens: tuple[str, ...] = ()  # of all leases
    worker_id: str = ""
    request: tuple[str, str] = ("", "")  # key_id and request_id of the last lease
    # their ends
    closings: tuple[tuple[str | None, str, str, bytes], ...] = ()  # token, outcome, error, result; newest last
    expiries: int = 0  # expired leases in a row
    ended_us: int = 0
    outcome: str = ""
    result: bytes | None = None
    error: str = ""
    progress: tuple[int, str, int] | None = None
    history: tuple[Event, ...] = ()  # newest first

    @property
    def queue(self) -> str:
        return self.spec.queue

    @property
    def group(self) -> str:
        return self.spec.group

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def finished(self) -> bool:
        return self.state in TERMINAL

    def order(self) -> tuple[int, int, int, int]:
        """The sort key of leases within one group."""
        return (-self.spec.priority, self.run_at_us, self.created_us, self.number)

    def shown_state(self, now_us: int) -> str:
        return "SCHEDULED" if self.state == "READY" and self.run_at_us > now_us else self.state

    def note(self, what: str, at_us: int, key_id: str = "", **facts: Any) -> None:
        self.history = (Event(what, at_us, key_id, **facts), *self.history)

    def shown_history(self) -> list[Event]:
        """The newest events, up to the bounds of attempts and of events."""
        shown: list[Event] = []
        for event in self.history[:EVENTS_SHOWN]:
            if event.what == "attempt" and sum(one.what == "attempt" for one in shown) == ATTEMPTS_SHOWN:
                break
            shown.append(event)
        return shown


def number_of(job_id: str) -> int:
    """The job number in an id: 40 bits above the last 22."""
    return uuid.UUID(job_id).int >> 22 & (1 << 40) - 1


def state_after(job: Job, outcome: str) -> str:
    """The state of a running job after its attempt ends with this outcome."""
    if outcome == "ok":
        return "ACKED"
    if outcome == "discarded":
        return "DEAD"
    if outcome == "cancelled" or job.cancel_requested:
        return "CANCELLED"
    if outcome in ("poisoned", "unreadable"):
        return "DEAD"
    if outcome in ("snoozed", "released", "undelivered"):
        return "RETRY" if job.failed else "READY"
    return "RETRY" if job.attempts < job.spec.max_retries else "DEAD"


def backoff_us(backoff: Backoff, attempts: int, jitter: float) -> int:
    """How long a job waits after its attempt number `attempts` failed."""
    base_ms, factor, cap_ms = backoff
    try:
        bound_ms = min(float(cap_ms), base_ms * float(factor) ** (attempts - 1))
    except OverflowError:
        bound_ms = float(cap_ms)
    return int(bound_ms * 1000 * jitter)


def refusal_of(command: Callable[..., object], *args: Any) -> str:
    """The name of the error that refuses a command; empty if it is allowed."""
    try:
        command(*args)
    except Refused as refusal:
        return refusal.why
    return ""


def holder_of(jobs: dict[str, Job], owner_id: str, queue: str, unique_key: str) -> Job | None:
    """The unfinished job that has a unique key."""
    scope = (owner_id, queue, unique_key)
    holders = [
        job
        for job in jobs.values()
        if unique_key and not job.finished and (job.owner_id, job.queue, job.spec.unique_key) == scope
    ]
    assert len(holders) <= 1
    return holders[0] if holders else None
