"""Commands: requests to the engine, parsed and checked; and the principal that makes them.

The engine uses a command's values as they are and does not check them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fastq._core import Access

# The limits of a request. One that exceeds a limit is refused with an error that names the field and the limit.
PAYLOAD_BYTES_MAX = 1 << 20
RESULT_BYTES_MAX = 1 << 20
ERROR_BYTES_KEPT = 2048
MAX_RETRIES_MAX = 1000
PRIORITY_MIN, PRIORITY_MAX = -(1 << 31), (1 << 31) - 1
LEASE_MS_MIN, LEASE_MS_MAX = 1_000, 12 * 3_600_000
RUN_AT_AHEAD_US_MAX = 3653 * 86_400 * 1_000_000
WORKER_ID_BYTES_MAX = 200
OWNER_ID_BYTES_MAX = 128
KEY_NAME_BYTES_MAX = 200
DEFAULT_QUEUE = "default"
QUEUES_MAX = 64  # of one lease request
LEASES_MAX = 1000  # of one lease request
LEASED_BYTES_MAX = 8 << 20  # payloads of one lease request, unless one payload alone is larger
WAIT_MS_MAX = 60_000
REQUEST_ID_BYTES_MAX = 200
BATCH_JOBS_MAX = 10_000
BATCH_BYTES_MAX = 8 << 20
GROUP_CHARS_MAX = 64
KEY_BYTES_MAX = 200  # of an idempotency key, a unique key
TAGS_MAX = 10
TAG_BYTES_MAX = 64
TRACEPARENT_BYTES_MAX = 55
WEIGHT_MAX = 1000
ERROR_CODE_BYTES_MAX = 64
NOTE_BYTES_MAX = 200  # of a progress report
LEASES_EXTENDED_MAX = 10_000  # by one heartbeat
OPS_MAX = 1000  # of a transaction
PAGE_JOBS_MAX = 1000
PAGE_JOBS = 100  # if the request does not say
PAGE_EXAMINED_MAX = 10_000
SEARCH_BYTES_MAX = 200
MANAGE = "queues:manage"  # the scope of keys that set, pause and purge queues
KEY_QUEUES_MAX = 100  # queues that a key may be bound to
KEY_RATE_MAX = 1_000_000  # requests a second
NEVER_US = 1 << 62
OVERLAP_MS_DEFAULT, OVERLAP_MS_MAX = 3_600_000, 30 * 24 * 3_600_000  # how long a rotated key's old secret stays valid


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request: the key, its owner, what the key may do, and what exists for it.

    Args:
        type: client, worker or admin.
        queues: the key is bound to these queues; None: to none.
        isolated: a client key sees only its owner's jobs.
        sees: the jobs that the key may read, ack and extend.
        owns: the jobs that it may cancel, redrive, edit and delete.
        expires_us: when the secret that it used expires, Unix microseconds.
        oversees: the jobs that it sees counted by queue. A key that manages queues sees all jobs of its queues counted.
    """

    key_id: str
    owner_id: str
    type: str
    scopes: frozenset[str]
    queues: frozenset[str] | None = None
    isolated: bool = True
    expires_us: int = NEVER_US
    sees: Access = field(init=False, repr=False, compare=False)
    owns: Access = field(init=False, repr=False, compare=False)
    oversees: Access = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        of_owner = self.type == "client" and self.isolated
        object.__setattr__(self, "sees", Access(self.owner_id if of_owner else None, self.queues))
        object.__setattr__(self, "owns", Access(None if self.is_admin else self.owner_id, self.queues))
        object.__setattr__(self, "oversees", Access(None, self.queues) if MANAGE in self.scopes else self.sees)

    @property
    def is_admin(self) -> bool:
        return self.type == "admin"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Settings that only some jobs have. Empty or 0 is not set. At most one of `expires_ms`, `expires_us` is set.

    `backoff`: base_ms, factor, cap_ms. `body_digest`: 64 bits of a hash of the request that the idempotency key names.
    """

    group: str = ""
    lease_ms: int = 0
    backoff: tuple[int, float, int] | None = None
    expires_ms: int = 0
    expires_us: int = 0
    unique_key: str = ""
    replace: bool = False
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    idempotency_key: str = ""
    body_digest: int = 0


@dataclass(frozen=True, slots=True)
class Submit:
    """A job to store. `payload` is JSON text, kept byte for byte.

    At most one of `delay_ms` and `run_at_us` (Unix microseconds) is set. `max_retries` None is the server's default.
    `options` None is a plain job.
    """

    payload: bytes
    max_retries: int | None = None
    priority: int = 0
    delay_ms: int | None = None
    run_at_us: int | None = None
    queue: str = DEFAULT_QUEUE
    options: JobOptions | None = None


@dataclass(frozen=True, slots=True)
class Resubmit:
    """A new job with the payload and options of another one, except for those that are given here.

    At most one of `delay_ms` and `run_at_us` is set; neither: it is due now. `traceparent` empty is the other job's.
    """

    job_id: str
    queue: str | None = None
    priority: int | None = None
    delay_ms: int | None = None
    run_at_us: int | None = None
    max_retries: int | None = None
    traceparent: str = ""
    idempotency_key: str = ""
    body_digest: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A request for at most `limit` jobs: from the first queue that has some, then from the second, and so on.

    With `weights`, one for each queue, the queues take turns in this proportion.
    `had_body` False is a client of the original service: it acks without a token.
    If no job is ready, the request waits for one, up to `wait_ms`.
    A repeated `request_id` (empty: none) within a minute gets the same leases.
    """

    lease_ms: int | None = None
    worker_id: str = ""
    had_body: bool = False
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    limit: int = 1
    wait_ms: int = 0
    request_id: str = ""
    weights: tuple[int, ...] = ()


class Connection(Protocol):
    """Where an answer goes. A lease must not be granted to a client that has disconnected."""

    @property
    def is_closed(self) -> bool: ...

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once when the connection closes. Returns a function that cancels this."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The end of an attempt. `result` is JSON text, kept byte for byte; `error` is text.

    outcome: `ok`, `error`, `discard`, `snooze`, `release`; empty is `error` if there is an error text, else `ok`.
    """

    job_id: str
    lease_token: str | None = None
    result: bytes | None = None
    error: str = ""
    retry_after_ms: int | None = None  # of an error
    outcome: str = ""
    delay_ms: int | None = None  # of a snooze
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class Extend:
    """A new deadline for a lease: `lease_ms` from now; 0: as long as it was granted for."""

    job_id: str
    lease_token: str
    lease_ms: int = 0


@dataclass(frozen=True, slots=True)
class Transaction:
    """Operations that all happen or none. Each job is acked or extended at most once."""

    ops: tuple[Ack | Extend | Submit, ...]
    idempotency_key: str = ""
    body_digest: int = 0


@dataclass(frozen=True, slots=True)
class Edit:
    """The new values of a job; None leaves a value as it is. At most one of `delay_ms` and `run_at_us` is set."""

    payload: bytes | None = None
    priority: int | None = None
    delay_ms: int | None = None
    run_at_us: int | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a search looks for in the records of jobs. Empty is anything.

    Args:
        text: a part of the payload's JSON text.
        error: a part of the last attempt's error.
        error_code: the last attempt's.
        worker: the worker that holds the job; if none does, that had its last attempt.
    """

    text: str = ""
    error: str = ""
    error_code: str = ""
    worker: str = ""

    @property
    def of_end(self) -> bool:
        """Whether it looks at how the last attempt ended."""
        return bool(self.error or self.error_code or self.worker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Find(Texts):
    """A filter of jobs: a job matches if every field that is set matches. `group` empty is the default group, None any.

    `before`: only jobs with lower numbers; 0: all.
    """

    state: str = ""
    queue: str = ""
    group: str | None = None
    tag: str = ""
    since_us: int = 0
    limit: int = PAGE_JOBS
    before: int = 0
