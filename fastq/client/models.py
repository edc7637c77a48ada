"""The requests and answers about jobs. The names are those of the API.

A member of a request that is UNSET is not sent. Unknown members of an answer are ignored. Times are aware datetimes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType, field

from fastq.client.answers import AnswerStruct
from fastq.client.codec import CODEC

T = TypeVar("T")
State = Literal["SCHEDULED", "READY", "RUNNING", "RETRY", "ACKED", "DEAD", "EXPIRED", "CANCELLED"]
TERMINAL = frozenset({"ACKED", "DEAD", "EXPIRED", "CANCELLED"})

# --- sent -------------------------------------------------------------------------------------------------------------


class Backoff(msgspec.Struct, frozen=True):
    """The wait after failed attempt n: random, up to base_ms * factor ** (n - 1) and up to cap_ms milliseconds."""

    base_ms: int
    factor: float
    cap_ms: int


class JobOptions(TypedDict, total=False):
    """The options of a job, described in docs/protocol.md.

    queue: default `default`. group: its group in the queue. priority: higher first, default 0. delay_ms or run_at: when
    it is due. max_retries: attempts in all, 0 to 1,000, default 3; max_attempts is the same. lease_ms: milliseconds.
    expires_ms or expires_at: a job that still waits then is EXPIRED. idempotency_key: a repeated submit gets the same
    job. unique_key: at most one unfinished job of the queue has it. on_duplicate: keep that job, or replace its
    payload. tags: at most 10. None: not given.
    """

    queue: str | None
    group: str | None
    priority: int | None
    delay_ms: int | None
    run_at: datetime | None
    max_retries: int | None
    max_attempts: int | None
    lease_ms: int | None
    backoff: Backoff | None
    expires_ms: int | None
    expires_at: datetime | None
    idempotency_key: str | None
    unique_key: str | None
    on_duplicate: Literal["keep", "replace"] | None
    tags: list[str] | None
    traceparent: str | None


class JobFilter(TypedDict, total=False):
    """Jobs that match every given member.

    q: a part of the payload's JSON text. error: a part of the last attempt's error. worker: holds the job, or had its
    last attempt. since: submitted then or later.
    """

    state: State
    queue: str
    group: str
    tag: str
    q: str
    error: str
    error_code: str
    worker: str
    since: datetime


class BulkOptions(TypedDict, total=False):
    """How a change of many jobs is made.

    pace_per_s: jobs changed in a second, at most. cursor: where an earlier change with the same filter ended.
    on_progress: called about once a second with what was done until then.
    """

    pace_per_s: int
    cursor: str
    on_progress: Callable[[ChangedMany], object]


class ManyFilter(JobFilter, BulkOptions, total=False):
    """A `JobFilter`, or `ids`: at most 10,000 job ids; and how the change is made, as in `BulkOptions`."""

    ids: list[str]


class JobChanges(TypedDict, total=False):
    """The changes of a waiting or DEAD job."""

    payload: Any
    priority: int
    delay_ms: int
    run_at: datetime
    queue: str


class NewJob(msgspec.Struct, kw_only=True):
    """A job to submit: its payload and its `JobOptions`. An option that is None is not sent.

    Raises:
        ValueError: a time has no time zone, or max_retries and max_attempts differ.
    """

    payload: Any = field()
    queue: str | UnsetType | None = UNSET
    group: str | UnsetType | None = UNSET
    priority: int | UnsetType | None = UNSET
    delay_ms: int | UnsetType | None = UNSET
    run_at: datetime | UnsetType | None = UNSET
    max_retries: int | UnsetType | None = UNSET
    max_attempts: int | UnsetType | None = UNSET
    lease_ms: int | UnsetType | None = UNSET
    backoff: Backoff | UnsetType | None = UNSET
    expires_ms: int | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    idempotency_key: str | UnsetType | None = UNSET
    unique_key: str | UnsetType | None = UNSET
    on_duplicate: Literal["keep", "replace"] | UnsetType | None = UNSET
    tags: list[str] | UnsetType | None = UNSET
    traceparent: str | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        for name in _OPTIONAL:
            if (value := getattr(self, name)) is None:
                setattr(self, name, UNSET)
            elif isinstance(value, datetime) and value.tzinfo is None:
                raise ValueError(f"{name} needs a time zone, as in datetime.now(UTC): {value!r}")
        if self.max_attempts is not UNSET:
            if self.max_retries not in (UNSET, self.max_attempts):
                raise ValueError("max_retries and max_attempts are the same option: give one of them")
            self.max_retries, self.max_attempts = self.max_attempts, UNSET


_OPTIONAL = [name for name in NewJob.__struct_fields__ if name != "payload"]


class Ack(msgspec.Struct, kw_only=True):
    """The outcome of an attempt. Each outcome has a class method that makes it."""

    job_id: str
    lease_token: str
    outcome: Literal["ok", "error", "discard", "snooze", "release"]
    result: Any = UNSET
    result_error: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET
    delay_ms: int | UnsetType = UNSET

    @classmethod
    def ok(cls, job: LeasedJob, result: Any = UNSET) -> Ack:
        """The job is ACKED."""
        return cls(job_id=job.job_id, lease_token=job.lease_token, outcome="ok", result=result)

    @classmethod
    def error(
        cls, job: LeasedJob, text: str, *, code: str | None = None, retry_after_ms: int | None = None,
        result: Any = UNSET, discard: bool = False,
    ) -> Ack:  # fmt: skip
        """The attempt failed. With `discard` the job is DEAD. retry_after_ms: default: the job's backoff."""
        return cls(
            job_id=job.job_id, lease_token=job.lease_token, outcome="discard" if discard else "error", result=result,
            result_error=text, error_code=_sent(code), retry_after_ms=_sent(retry_after_ms),
        )  # fmt: skip

    @classmethod
    def snooze(cls, job: LeasedJob, delay_ms: int) -> Ack:
        """The job is due again after `delay_ms`. The attempt does not count."""
        return cls(job_id=job.job_id, lease_token=job.lease_token, outcome="snooze", delay_ms=delay_ms)

    @classmethod
    def release(cls, job: LeasedJob) -> Ack:
        """The job is READY again. The attempt does not count."""
        return cls(job_id=job.job_id, lease_token=job.lease_token, outcome="release")


class Extend(msgspec.Struct):
    """Extends a lease to `lease_ms` milliseconds from now. Default: its granted length."""

    job_id: str
    lease_token: str
    lease_ms: int | UnsetType = UNSET

    @classmethod
    def of(cls, job: LeasedJob, lease_ms: int | None = None) -> Extend:
        return cls(job.job_id, job.lease_token, _sent(lease_ms))


def _sent(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


class ResubmitChanges(TypedDict, total=False):
    """What a job that is submitted again has otherwise. It is due now unless delay_ms or run_at says when."""

    queue: str
    priority: int
    delay_ms: int
    run_at: datetime
    max_retries: int


# --- received ---------------------------------------------------------------------------------------------------------


class Submitted(AnswerStruct, frozen=True):
    """duplicate: the job existed already, by its idempotency or unique key. replaced: it has the new payload."""

    job_id: str
    duplicate: bool = False
    replaced: bool = False


class LeasedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is leased until `lease_until`. `lease_token` proves the lease. `attempt` counts from 1."""

    job_id: str
    lease_token: str
    payload_json: Raw = field(name="payload")
    lease_until: datetime
    attempt: int
    max_retries: int
    created_at: datetime
    queue: str
    priority: int = 0
    group: str = ""
    tags: tuple[str, ...] = ()
    traceparent: str = ""

    def __repr__(self) -> str:  # keeps the token out of logs
        return f"<LeasedJob {self.job_id} of {self.queue}, attempt {self.attempt}>"

    @property
    def payload(self) -> Any:
        """The payload as JSON types: dict, list, str, int, float, bool."""
        return CODEC.decode(bytes(self.payload_json), Any)

    def payload_as(self, as_type: type[T]) -> T:
        """Raises ValueError."""
        value: T = CODEC.decode(bytes(self.payload_json), as_type)
        return value


class Progress(AnswerStruct, frozen=True):
    """The last progress report. percent: 0 to 100."""

    percent: int
    note: str
    at: datetime


class JobStatus(AnswerStruct, frozen=True, kw_only=True):
    """A job at the time of the request.

    attempts: those that were begun. run_at: when a SCHEDULED or RETRY job is due. lease_until: the deadline of the last
    lease. outcome, error, error_code, result: of the last attempt; in a list `error` is its first line. finished_at:
    when it ended, if it has. payload: only if it was asked for.
    """

    job_id: str
    state: str
    attempts: int
    max_retries: int
    created_at: datetime
    queue: str = "default"
    priority: int = 0
    group: str = ""
    tags: tuple[str, ...] = ()
    run_at: datetime | None = None
    expires_at: datetime | None = None
    lease_until: datetime | None = None
    worker_id: str = ""
    cancel_requested: bool = False
    progress: Progress | None = None
    outcome: str = ""
    finished_at: datetime | None = None
    error: str = field(name="result_error", default="")
    error_code: str = ""
    result_json: Raw = field(name="result", default=Raw(b"null"))
    payload_json: Raw = field(name="payload", default=Raw(b"null"))

    @property
    def is_complete(self) -> bool:
        """Whether it has ended: ACKED, DEAD, EXPIRED or CANCELLED."""
        return self.state in TERMINAL

    @property
    def is_successful(self) -> bool:
        """Whether it is ACKED."""
        return self.state == "ACKED"

    @property
    def is_failed(self) -> bool:
        """Whether it is DEAD, EXPIRED or CANCELLED."""
        return self.is_complete and not self.is_successful

    @property
    def result(self) -> Any:
        """The result as JSON types. None if there is none."""
        return CODEC.decode(bytes(self.result_json), Any)

    def result_as(self, as_type: type[T]) -> T:
        """Raises ValueError."""
        value: T = CODEC.decode(bytes(self.result_json), as_type)
        return value

    @property
    def payload(self) -> Any:
        """The payload as JSON types. None unless it was asked for."""
        return CODEC.decode(bytes(self.payload_json), Any)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. A page with a `cursor` is not the last one, even if its `items` are empty.

    examined_until: of jobs: only those submitted since then were looked at; None: all were.
    """

    items: list[T]
    cursor: str = ""
    examined_until: datetime | None = None


class Attempt(AnswerStruct, frozen=True, kw_only=True):
    """An attempt that has ended. number: counts all leases of the job. error_code: from the worker."""

    number: int
    outcome: str
    leased_at: datetime
    ended_at: datetime
    worker_id: str = ""
    error: str = ""
    error_code: str = ""


class Event(AnswerStruct, frozen=True, kw_only=True):
    """An event in the history of a job. by: the key id, `system:expiry` for an expired lease or job, or `system`."""

    what: str
    at: datetime
    by: str
    number: int = 0
    outcome: str = ""
    error: str = ""
    error_code: str = ""


class Why(AnswerStruct, frozen=True, kw_only=True):
    """Why a job is not running. reason: see docs/protocol.md. position: how many jobs of its group are before it."""

    job_id: str
    state: str
    reason: str
    queue: str
    position: int
    waiting_workers: int
    group: str = ""
    run_at: datetime | None = None
    pause_reason: str = ""
    pause_until: datetime | None = None
    last_asked_at: datetime | None = None


class ChangedMany(AnswerStruct, frozen=True):
    """How many jobs matched, and how many were changed.

    complete: false if it ended before the last job: the server stopped, its disk was full, or the key ended. Then
    `cursor` continues it, with the same filter.
    """

    matched: int
    changed: int
    complete: bool
    cursor: str = ""

    def plus(self, more: ChangedMany) -> ChangedMany:
        """This and what was changed after it."""
        return ChangedMany(self.matched + more.matched, self.changed + more.changed, more.complete, more.cursor)


class Acked(AnswerStruct, frozen=True):
    """The result of one ack in a batch: `ok`, or the `error`, `code` and `state` of its refusal."""

    job_id: str
    ok: bool = False
    error: str = ""
    code: str = ""
    state: str = ""


class Held(AnswerStruct, frozen=True):
    """A lease after an extend or heartbeat: its deadline, or the `code` and `error` if it is lost."""

    job_id: str
    lease_until: datetime | None = None
    cancel_requested: bool = False
    error: str = ""
    code: str = ""
    state: str = ""


class Done(AnswerStruct, frozen=True):
    """The result of one operation: `ok` of an ack, `lease_until` of an extend, the rest of a submit."""

    job_id: str
    ok: bool = False
    lease_until: datetime | None = None
    duplicate: bool = False
    replaced: bool = False
