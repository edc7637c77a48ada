"""What is said of jobs as they are: one, a page, their history, why one waits. Structs are schemas, functions write."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import orjson
from msgspec import UNSET, Meta, UnsetType

from fastq.engine.results import JobHistory, JobsPage, JobStatus, Why
from fastq.http.resources.answers import Time, encode, time_of

if TYPE_CHECKING:
    from fastq._core import Event, JobView

State = Literal["SCHEDULED", "READY", "RUNNING", "RETRY", "ACKED", "DEAD", "EXPIRED", "CANCELLED"]
Outcome = Literal["ok", "error", "lease_expired", "discarded", "snoozed", "released", "cancelled", "poisoned"]
WAITING = ("SCHEDULED", "RETRY")
BY_EXPIRY = ("lease_expired", "poisoned")
CHECK_BYTES = 4


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    percent: int
    note: str
    at: Time


class JobListed(msgspec.Struct, forbid_unknown_fields=True):
    """A job as it is now.

    Members that say nothing of this job are left out. `run_at` is there while it waits for that time, `outcome` is that
    of its last attempt.
    """

    job_id: str
    state: State
    attempts: int
    max_retries: int
    created_at: Time
    priority: int
    queue: str
    group: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    run_at: Time | UnsetType = UNSET
    expires_at: Time | UnsetType = UNSET
    lease_until: Time | UnsetType = UNSET
    worker_id: str | UnsetType = UNSET
    cancel_requested: Literal[True] | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET


class JobShown(JobListed, forbid_unknown_fields=True):
    """The same with the result, or the error, of its last attempt, and its payload if that was asked for."""

    result: msgspec.Raw | UnsetType = UNSET
    result_error: str | UnsetType = UNSET
    payload: msgspec.Raw | UnsetType = UNSET


class JobsListed(msgspec.Struct, forbid_unknown_fields=True):
    """The newest first. With `cursor` there is more to look at, also if there are few jobs, or none."""

    jobs: list[JobListed]
    cursor: str | UnsetType = UNSET


class AttemptShown(msgspec.Struct, forbid_unknown_fields=True):
    """`number` counts every lease of the job."""

    number: int
    outcome: Outcome
    leased_at: Time
    ended_at: Time
    worker_id: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET


class AttemptsShown(msgspec.Struct, forbid_unknown_fields=True):
    """The newest first; the last 20 are kept."""

    job_id: str
    attempts: list[AttemptShown]


class EventShown(msgspec.Struct, forbid_unknown_fields=True):
    """`by` is the key that did it, `system:expiry` if a time was over, `system` for the server otherwise."""

    what: Literal["submitted", "attempt", "cancel_requested", "cancelled", "expired", "redriven", "edited", "replaced"]
    at: Time
    by: str
    number: int | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET
    error: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET


class HistoryShown(msgspec.Struct, forbid_unknown_fields=True):
    """The newest first; the last 50 are kept, and the submit."""

    job_id: str
    events: list[EventShown]


class WhyShown(msgspec.Struct, forbid_unknown_fields=True):
    """Why a job does not run now.

    reason: `running`, `finished`; `not_due`: see `run_at`; `paused`, `concurrency`, `rate_limit` (see `run_at`),
    `group_concurrency`: what holds its queue or group back; `no_worker`: nobody has asked for jobs of its queue in the
    last minute; `behind`: see `position`; `next`.
    """

    job_id: str
    state: State
    reason: Literal[
        "running", "finished", "not_due", "paused", "concurrency", "rate_limit", "group_concurrency", "no_worker",
        "behind", "next",
    ]  # fmt: skip
    queue: str
    position: Annotated[int, Meta(description="How many jobs of its group come first, counted up to 10,000.")]
    waiting_workers: Annotated[int, Meta(description="Lease requests that wait for jobs of its queue.")]
    group: str | UnsetType = UNSET
    run_at: Time | UnsetType = UNSET
    last_asked_at: Annotated[Time, Meta(description="When its queue's jobs were last asked for.")] | UnsetType = UNSET


class JobChanged(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    state: State


class JobDeleted(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    deleted: Literal[True]


def _job(job: JobView | JobStatus) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "job_id": job.job_id,
        "state": job.state,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "created_at": time_of(job.created_us),
        "priority": job.priority,
        "queue": job.queue,
    }
    if job.group:
        answer["group"] = job.group
    if job.tags:
        answer["tags"] = job.tags
    if job.state in WAITING:
        answer["run_at"] = time_of(job.run_at_us)
    if job.expires_us:
        answer["expires_at"] = time_of(job.expires_us)
    if job.lease_until_us is not None:
        answer["lease_until"] = time_of(job.lease_until_us)
    if job.worker_id:
        answer["worker_id"] = job.worker_id
    if job.cancel_requested:
        answer["cancel_requested"] = True
    if job.progress is not None:
        percent, note, at_us = job.progress
        answer["progress"] = {"percent": percent, "note": note, "at": time_of(at_us)}
    if job.outcome:
        answer["outcome"] = job.outcome
    return answer


def job_shown(job: JobStatus) -> bytes:
    answer = _job(job)
    if job.result is not None:
        answer["result"] = orjson.Fragment(job.result)
    if job.error:
        answer["result_error"] = job.error
    if job.payload is not None:
        answer["payload"] = orjson.Fragment(job.payload)
    return encode(answer)


def jobs_listed(page: JobsPage, database_id: bytes) -> bytes:
    answer: dict[str, Any] = {"jobs": [_job(job) for job in page.jobs]}
    if page.before:
        answer["cursor"] = cursor_of(page.before, database_id)
    return encode(answer)


def cursor_of(before: int, database_id: bytes) -> str:
    """Where the next page begins, as a text that no other server's is taken for."""
    number = before.to_bytes(6, "big")
    return urlsafe_b64encode(number + sha256(database_id + number).digest()[:CHECK_BYTES]).decode().rstrip("=")


def attempts_shown(history: JobHistory) -> bytes:
    attempts = [_attempt(event) for event in history.events if event.what == "attempt"]
    return encode({"job_id": history.job_id, "attempts": attempts})


def _attempt(event: Event) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "number": event.number,
        "outcome": event.outcome,
        "leased_at": time_of(event.leased_us),
        "ended_at": time_of(event.at_us),
    }
    return answer | ({"worker_id": event.worker_id} if event.worker_id else {}) | _errors(event)


def _errors(event: Event) -> dict[str, str]:
    found = {"error": event.error, "error_code": event.error_code}
    return {name: text for name, text in found.items() if text}


def history_shown(history: JobHistory) -> bytes:
    events: list[dict[str, Any]] = []
    for event in history.events:
        by = event.key_id or ("system:expiry" if event.what == "expired" or event.outcome in BY_EXPIRY else "system")
        shown: dict[str, Any] = {"what": event.what, "at": time_of(event.at_us), "by": by}
        if event.what == "attempt":
            shown |= {"number": event.number, "outcome": event.outcome} | _errors(event)
        events.append(shown)
    events.append({"what": "submitted", "at": time_of(history.created_us), "by": history.key_id or "system"})
    return encode({"job_id": history.job_id, "events": events})


def why_shown(why: Why) -> bytes:
    answer: dict[str, Any] = {
        "job_id": why.job_id,
        "state": why.state,
        "reason": why.reason,
        "queue": why.queue,
        "position": why.position,
        "waiting_workers": why.waiting_workers,
    }
    if why.group:
        answer["group"] = why.group
    if due_us := why.run_at_us or why.rate_due_us:
        answer["run_at"] = time_of(due_us)
    if why.asked_us:
        answer["last_asked_at"] = time_of(why.asked_us)
    return encode(answer)


def job_changed(job_id: str, state: str) -> bytes:
    return encode({"job_id": job_id, "state": state})


def job_deleted(job_id: str) -> bytes:
    return encode({"job_id": job_id, "deleted": True})
