"""What goes to the server and what comes back, as Python has it.

What we send is spelled as the API spells it; members that are left out are not sent. Of what comes back unknown members
are passed over, so that a server may learn new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType, field

from fastq.client.codec import CODEC

T = TypeVar("T")
State = Literal["SCHEDULED", "READY", "RUNNING", "RETRY", "ACKED", "DEAD", "EXPIRED", "CANCELLED"]
TERMINAL = frozenset({"ACKED", "DEAD", "EXPIRED", "CANCELLED"})

# --- sent -------------------------------------------------------------------------------------------------------------


class Backoff(msgspec.Struct, frozen=True):
    """After attempt n a job waits a random time up to base_ms * factor ** (n - 1), and never longer than cap_ms."""

    base_ms: int
    factor: float
    cap_ms: int


class JobOptions(TypedDict, total=False):
    """What a submit may say beside the payload; docs/protocol.md tells what each means."""

    queue: str
    group: str
    priority: int
    delay_ms: int
    run_at: datetime
    max_retries: int
    lease_ms: int
    backoff: Backoff
    expires_ms: int
    expires_at: datetime
    idempotency_key: str
    unique_key: str
    on_duplicate: Literal["keep", "replace"]
    tags: list[str]
    traceparent: str


class JobFilter(TypedDict, total=False):
    """Jobs that fit all that is given. q: a part of the payload's JSON text. since: submitted then or later."""

    state: State
    queue: str
    group: str
    tag: str
    q: str
    since: datetime


class ManyFilter(JobFilter, total=False):
    """ids: no others than these, at most 10,000."""

    ids: list[str]


class JobChanges(TypedDict, total=False):
    """What can be changed of a job that waits, or is DEAD."""

    payload: Any
    priority: int
    delay_ms: int
    run_at: datetime
    queue: str


class NewJob(msgspec.Struct, kw_only=True):
    """A job to be submitted: the payload, and what `JobOptions` has."""

    payload: Any = field()
    queue: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    delay_ms: int | UnsetType = UNSET
    run_at: datetime | UnsetType = UNSET
    max_retries: int | UnsetType = UNSET
    lease_ms: int | UnsetType = UNSET
    backoff: Backoff | UnsetType = UNSET
    expires_ms: int | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET
    unique_key: str | UnsetType = UNSET
    on_duplicate: Literal["keep", "replace"] | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET


class Ack(msgspec.Struct, kw_only=True):
    """How an attempt ended. The class methods make one for each outcome."""

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
        return cls(job_id=job.job_id, lease_token=job.lease_token, outcome="ok", result=result)

    @classmethod
    def error(
        cls, job: LeasedJob, text: str, *, code: str | None = None, retry_after_ms: int | None = None,
        result: Any = UNSET, discard: bool = False,
    ) -> Ack:  # fmt: skip
        """The attempt failed; with `discard` it is the last one."""
        return cls(
            job_id=job.job_id, lease_token=job.lease_token, outcome="discard" if discard else "error", result=result,
            result_error=text, error_code=_sent(code), retry_after_ms=_sent(retry_after_ms),
        )  # fmt: skip

    @classmethod
    def snooze(cls, job: LeasedJob, delay_ms: int) -> Ack:
        """Later; the attempt does not count."""
        return cls(job_id=job.job_id, lease_token=job.lease_token, outcome="snooze", delay_ms=delay_ms)

    @classmethod
    def release(cls, job: LeasedJob) -> Ack:
        """Somebody else, now; the attempt does not count."""
        return cls(job_id=job.job_id, lease_token=job.lease_token, outcome="release")


class Extend(msgspec.Struct):
    """A lease that is to last `lease_ms` from now on; left out: as long as it was granted."""

    job_id: str
    lease_token: str
    lease_ms: int | UnsetType = UNSET

    @classmethod
    def of(cls, job: LeasedJob, lease_ms: int | None = None) -> Extend:
        return cls(job.job_id, job.lease_token, _sent(lease_ms))


def _sent(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


class Cron(msgspec.Struct):
    """When a schedule fires: minute, hour, day of month, month, day of week, on the zone's clock.

    catch_up: what happens to times that were missed: nothing, one job for all of them, one for each of the last
    `catch_up_max`. overlap: while the last job is not finished the time passes, or the next is submitted all the same.
    """

    cron: str
    timezone: str = "UTC"
    catch_up: Literal["skip", "one", "all"] = "one"
    overlap: Literal["skip", "allow"] = "skip"
    catch_up_max: int | UnsetType = UNSET


# --- received ---------------------------------------------------------------------------------------------------------


class Submitted(msgspec.Struct, frozen=True):
    """`duplicate`: an unfinished job with that unique key was there; `replaced`: and has the new payload now."""

    job_id: str
    duplicate: bool = False
    replaced: bool = False


class LeasedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that the caller has until `lease_until`. `lease_token` proves it."""

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

    def __repr__(self) -> str:  # the token is for the server only
        return f"<LeasedJob {self.job_id} of {self.queue}, attempt {self.attempt}>"

    @property
    def payload(self) -> Any:
        """As JSON has it: dicts, lists, strings, numbers."""
        return CODEC.decode(bytes(self.payload_json), Any)

    def payload_as(self, as_type: type[T]) -> T:
        """Raises ValueError."""
        value: T = CODEC.decode(bytes(self.payload_json), as_type)
        return value


class Progress(msgspec.Struct, frozen=True):
    percent: int
    note: str
    at: datetime


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was when the server was asked."""

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
    error: str = field(name="result_error", default="")
    result_json: Raw = field(name="result", default=Raw(b"null"))
    payload_json: Raw = field(name="payload", default=Raw(b"null"))

    @property
    def is_complete(self) -> bool:
        """Nothing will happen to it any more: ACKED, DEAD, EXPIRED or CANCELLED."""
        return self.state in TERMINAL

    @property
    def is_successful(self) -> bool:
        return self.state == "ACKED"

    @property
    def is_failed(self) -> bool:
        """It ended, and not with success."""
        return self.is_complete and not self.is_successful

    @property
    def result(self) -> Any:
        """None if there is none."""
        return CODEC.decode(bytes(self.result_json), Any)

    def result_as(self, as_type: type[T]) -> T:
        """Raises ValueError."""
        value: T = CODEC.decode(bytes(self.result_json), as_type)
        return value

    @property
    def payload(self) -> Any:
        """None unless it was asked for."""
        return CODEC.decode(bytes(self.payload_json), Any)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. With `cursor` there is more to look at, also if `items` are few, or none."""

    items: list[T]
    cursor: str = ""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One lease of a job that has ended. `number` counts them all, `error_code` is the worker's word."""

    number: int
    outcome: str
    leased_at: datetime
    ended_at: datetime
    worker_id: str = ""
    error: str = ""
    error_code: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a job. `by`: the key that did it, `system:expiry` if a time was over, or `system`."""

    what: str
    at: datetime
    by: str
    number: int = 0
    outcome: str = ""
    error: str = ""
    error_code: str = ""


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job does not run now; docs/protocol.md has the reasons. `position`: how many of its group come first."""

    job_id: str
    state: str
    reason: str
    queue: str
    position: int
    waiting_workers: int
    group: str = ""
    run_at: datetime | None = None
    last_asked_at: datetime | None = None


class ChangedMany(msgspec.Struct, frozen=True):
    """How many jobs fitted and could be changed, and how many were.

    Not `complete`: the server stopped, or had no room, before it had looked at all of them; the same again goes on.
    """

    matched: int
    changed: int
    complete: bool


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it was when the server was asked. `refusal`: why the last try to submit its job failed.

    `job_json` is there where one is asked for, not where many are listed; `passed`: how many times it let pass.
    """

    name: str
    cron: str
    timezone: str
    catch_up: str = "one"
    catch_up_max: int = 0
    overlap: str = "skip"
    owner_id: str = ""
    job_json: Raw = field(name="job", default=Raw(b"null"))
    next_at: datetime | None = None
    last_fired_at: datetime | None = None
    last_job_id: str = ""
    passed: int = 0
    refusal: str = ""


class Acked(msgspec.Struct, frozen=True):
    """Either `ok`, or what a single ack would have been refused with."""

    job_id: str
    ok: bool = False
    error: str = ""
    code: str = ""
    state: str = ""


class Held(msgspec.Struct, frozen=True):
    """A lease after a heartbeat: its deadline, or `code` and `error` if it is lost."""

    job_id: str
    lease_until: datetime | None = None
    cancel_requested: bool = False
    error: str = ""
    code: str = ""
    state: str = ""


class Done(msgspec.Struct, frozen=True):
    """One operation of a transaction: of an ack `ok`, of an extend `lease_until`, of a submit as `Submitted`."""

    job_id: str
    ok: bool = False
    lease_until: datetime | None = None
    duplicate: bool = False
    replaced: bool = False


# --- in a worker's hands ----------------------------------------------------------------------------------------------


class Success(msgspec.Struct, Generic[T], frozen=True):
    """What a handler may return; without `then` a plain value is the same.

    then: jobs that are submitted together with the ack, in one transaction: both happen, or neither.
    """

    result: T | None = None
    then: Sequence[NewJob] = ()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler may return; an exception is the same without a code.

    retry_after_ms: instead of the job's own backoff. discard: the job is DEAD at once, attempts left or not.
    """

    error: str
    code: str | None = None
    retry_after_ms: int | None = None
    discard: bool = False
    result: Any = UNSET


class Snooze(msgspec.Struct, frozen=True):
    """What a handler may return: the job comes back later, and the attempt does not count."""

    delay_ms: int
