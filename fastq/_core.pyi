"""The pure core: the tail of the log in memory, and the state machine over its records.

It uses no clock, randomness, file or socket: times (Unix microseconds), jitter and secrets are arguments. Call it from
the event loop's thread only; another thread may read the bytes of a taken `Batch`.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

from typing_extensions import Buffer

from fastq._core_traffic import LATENCY_BOUNDS_US as LATENCY_BOUNDS_US
from fastq._core_traffic import WHAT_HAPPENED as WHAT_HAPPENED
from fastq._core_traffic import FailureGroup as FailureGroup
from fastq._core_traffic import JobChange as JobChange
from fastq._core_traffic import Latencies as Latencies
from fastq._core_traffic import QueueView as QueueView
from fastq._core_traffic import Traffic as Traffic
from fastq._core_traffic import error_line as error_line
from fastq._core_traffic import latency_bucket as latency_bucket
from fastq.errors import ApiError

@final
class RecordPlace:
    """Where one record is. A place stays true whatever file its frame lies in, and however often it is rewritten."""

    def __init__(self, frame: int, offset: int, bytes: int) -> None: ...
    @property
    def frame(self) -> int:
        """The sequence number of the record's frame."""
    @property
    def offset(self) -> int:
        """The record's offset in the frame's records, bytes."""
    @property
    def bytes(self) -> int:
        """The record's length, head included."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

Jitter = Callable[[], float]
"""Draws from [0, 1); a retry waits this share of its upper bound."""

Submitted = tuple[str, int]
"""(job_id, one of CREATED, DUPLICATE, REPLACED, REPEATED)"""

CREATED: int
DUPLICATE: int
"""Nothing was stored: an unfinished job has that unique key."""
REPLACED: int
"""The unfinished job with that unique key got the new payload, priority and run_at."""
REPEATED: int
"""Nothing was stored: an earlier submit with the same idempotency key was answered with this job."""

FRAME_HEAD_BYTES: int
FRAME_RECORD_BYTES_MAX: int
"""The most bytes that the records of one frame may take: a place's offset has 26 bits."""
RECORD_VERSION: int
SUBMIT_RECORD_BYTES: int
CLOSE_RECORD_BYTES: int
SMALL_RECORD_BYTES: int
"""Upper bounds of a SUBMIT record, a CLOSE record, and any record about one job, without payload, result and error."""

STATES: tuple[str, ...]
"""Of a job, as they are shown."""
FINISHED: frozenset[str]
"""The terminal ones."""
ACK_OUTCOMES: tuple[str, ...]
"""What a worker may say of an attempt."""
ATTEMPT_OUTCOMES: tuple[str, ...]
"""How attempts end, as it is shown."""
EVENTS: tuple[str, ...]
"""Of a job's history."""
RECORD_NAMES: dict[int, str]
"""By type, which is a record's first byte."""
CLOSE: int
"""The type of those that end an attempt."""

ATTEMPTS_KEPT: int
EVENTS_KEPT: int
HISTORY_BYTES_MAX: int
"""The bounds of a job's history: attempts, events (attempts and changes), and bytes of their records."""

@final
class Batch:
    """One group commit: the frame of all records that were appended while the one before was synced.

    Its bytes (buffer protocol, writable) are `FRAME_HEAD_BYTES` that the log fills in, `record_bytes` of records, and
    zeros up to a multiple of the tail's align. They do not move or change from `take` until `Tail.durable`.
    """

    @property
    def seq(self) -> int: ...
    @property
    def segment(self) -> int: ...
    @property
    def offset(self) -> int:
        """The frame's offset in its segment, bytes."""
    @property
    def record_bytes(self) -> int: ...
    @property
    def frame_bytes(self) -> int:
        """Head, records and padding: a multiple of align."""
    @property
    def count(self) -> int:
        """The number of records."""
    @property
    def durable_seq(self) -> int:
        """The last durable frame when the batch was taken."""
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Tail:
    """The open end of the log: the batch that fills, batches in flight, and a bounded cache of durable batches.

    Offer a segment with room (`offer_segment`) before appending a record. The last `align` bytes of a segment are
    reserved for its seal.
    """

    def __init__(self, align: int, cache_bytes: int, batch_bytes_max: int) -> None:
        """
        Args:
            align: bytes; frames begin and end at multiples of it. A power of two from 512 to 65,536.
            cache_bytes: durable batches that stay in memory for `cached`.
            batch_bytes_max: a batch is closed before it grows past this, unless one record alone is larger. At most
                FRAME_RECORD_BYTES_MAX.
        """
    def resume(self, next_seq: int) -> None:
        """Set the sequence number of the next batch. Call it once, before the first append."""
    def offer_segment(self, number: int, first_offset: int, bytes: int) -> None:
        """Add a prepared segment: numbers rise by one; frames begin at `first_offset`."""
    def take(self) -> Batch | None:
        """Close the oldest batch that is not taken, and return it; None if there are no records."""
    def durable(self, seq: int) -> None:
        """Note that every batch up to `seq` is on stable storage."""
    def cached(self, place: RecordPlace) -> bytes | None:
        """The bytes at `place`, if they are still in memory."""
    def goes_here(self, record_bytes: int) -> bool:
        """Whether records of `record_bytes` in all fit into the segment in use."""
    def has_room(self, record_bytes: int, segments_left: int) -> bool:
        """Whether records of `record_bytes` in all fit and leave `segments_left` offered segments unused."""
    @property
    def align(self) -> int: ...
    @property
    def appended_seq(self) -> int:
        """The batch of the last appended record. An answer about the present state waits for it."""
    @property
    def durable_seq(self) -> int: ...
    @property
    def unsynced_bytes(self) -> int:
        """Bytes of records that are appended and not durable yet."""
    @property
    def closed_bytes(self) -> int:
        """Bytes of all closed batches since the start, with their heads and padding."""
    @property
    def closed_batches(self) -> int: ...
    @property
    def closed_records(self) -> int:
        """Of all closed batches; a group counts as one."""
    @property
    def room_bytes(self) -> int:
        """How many bytes fit into the segments at hand, at most."""
    @property
    def record_bytes_max(self) -> int:
        """The size of the largest record that fits a frame and a segment; 0 before a segment is offered."""
    @property
    def segments_offered(self) -> int:
        """The number of prepared segments that are unused."""
    @property
    def memory_bytes(self) -> int:
        """Memory allocated for batches and the cache."""

@final
class SubmitOptions:
    """Options that only some jobs have. Immutable. The caller checks the texts."""

    def __init__(
        self,
        group: str = "",
        *,
        lease_ms: int = 0,
        backoff: tuple[int, float, int] | None = None,
        expires_us: int = 0,
        unique_key: str = "",
        replace: bool = False,
        tags: Sequence[str] = (),
        traceparent: str = "",
        idempotency_key: str = "",
        body_digest: int = 0,
    ) -> None:
        """
        Args:
            group: within the queue; empty for its default group.
            lease_ms: length of its leases, unless the lease request sets one; 0: the queue's, or the server's.
            backoff: base_ms, factor, cap_ms; None: the queue's, or the server's.
            expires_us: when the job becomes EXPIRED if it still waits; 0: never.
            unique_key: at most one unfinished job in the scope (owner, queue, key).
            replace: a duplicate replaces payload, priority and run_at of the job, unless that runs.
            idempotency_key: scope (owner, key); remembered with `body_digest` (64 bits of a hash of the request).
        """
    @property
    def record_bytes(self) -> int:
        """An upper bound of what the options add to the job's records, beside SUBMIT_RECORD_BYTES and the payload."""

@final
class NewJob:
    """A job to store. Immutable."""

    def __init__(
        self,
        payload: bytes,
        max_retries: int,
        priority: int = 0,
        run_at_us: int = 0,
        queue: str = "default",
        options: SubmitOptions | None = None,
    ) -> None:
        """
        Args:
            payload: JSON text.
            run_at_us: 0 or in the past counts as now.
        """

@final
class Ack:
    """The end of an attempt, from its worker. Immutable."""

    def __init__(
        self,
        job_id: str,
        token: str | None,
        outcome: str = "ok",
        result: bytes | None = None,
        error: str = "",
        error_code: str = "",
        wait_ms: int = -1,
        jitter: float = 0.0,
    ) -> None:
        """
        Args:
            token: None: a client of the original service, which gets no token.
            outcome: one of ACK_OUTCOMES.
            result: JSON text.
            error: cut at ERROR_BYTES_MAX.
            wait_ms: a snooze's delay; for an error the wait that the worker asks for, or -1 for the backoff times
                jitter.
        """
    @property
    def job_id(self) -> str: ...

@final
class Extend:
    """A new deadline for a lease. Immutable."""

    def __init__(self, job_id: str, token: str, lease_ms: int = 0) -> None:
        """
        Args:
            lease_ms: from now on; 0: as long as it was granted for.
        """

@final
class Access:
    """The jobs that exist for a caller: of one owner, or of any; of some queues, or of any. Immutable.

    A method that takes one raises JobNotFound for any other job, or leaves it out.
    """

    owner_id: str | None
    queues: frozenset[str] | None

    def __init__(self, owner_id: str | None = None, queues: frozenset[str] | None = None) -> None: ...
    @property
    def is_all(self) -> bool: ...
    def has_queue(self, queue: str) -> bool:
        """Whether jobs of this queue may exist for the caller."""
    def has(self, owner_id: str, queue: str) -> bool:
        """Whether a job of this owner and queue exists for the caller."""

ALL: Access
"""Every job: for the server's own work."""

@final
class Filter:
    """A filter of jobs: a job matches if every field that is set matches. Immutable."""

    def __init__(
        self,
        state: str = "",
        *,
        queue: str = "",
        group: str | None = None,
        tag: str = "",
        since_us: int = 0,
        begun: bool = False,
        failed: bool = False,
    ) -> None:
        """
        Args:
            group: empty is the default group; None: any.
            begun: only jobs that were leased.
            failed: only jobs whose last ended attempt failed: error, lease_expired, discarded, poisoned, unreadable.
        """

@final
class CoreSettings:
    """The server's settings, for jobs and queues without their own. Immutable. Replay does not depend on them."""

    def __init__(
        self,
        lease_ms: int = 30_000,
        *,
        grace_ms: int = 30_000,
        backoff: tuple[int, float, int] = (1_000, 2.0, 3_600_000),
        poison_expiries: int = 0,
        idempotency_us: int = ...,
        idempotency_keys_max: int = 8_000_000,
        owner_depth_max: int = 0,
        queues_max: int = 1_000_000,
    ) -> None:
        """
        Args:
            grace_ms: after a restart a lease lasts at least this long, up to its own length.
            backoff: base_ms, factor, cap_ms.
            poison_expiries: this many expired leases in a row make a job DEAD; 0: never.
            idempotency_us: how long an idempotency key is remembered; by default an hour.
            idempotency_keys_max: with more answers than this the oldest keys are forgotten. A transaction's key counts
                once for each of its answers.
            owner_depth_max: unfinished jobs of one owner; 0: no limit.
            queues_max: above it a job for a new queue is refused.
        """
    @property
    def lease_ms(self) -> int: ...
    @property
    def grace_ms(self) -> int: ...

@final
class QueueSettings:
    """How a queue is served. Immutable. 0 is `no limit` or `the server's`."""

    def __init__(
        self,
        paused: bool = False,
        *,
        fair: bool = False,
        concurrency: int = 0,
        group_concurrency: int = 0,
        rate_n: int = 0,
        rate_per_ms: int = 0,
        lease_ms: int = 0,
        backoff: tuple[int, float, int] | None = None,
        retention_acked_ms: int = -1,
        retention_dead_ms: int = -1,
        finished_max: int = -1,
        max_depth: int = 0,
    ) -> None:
        """
        Args:
            fair: groups take turns; else the group with the first job in order is served.
            rate_n, rate_per_ms: `rate_n` leases in `rate_per_ms` milliseconds; the bucket is empty at a start.
            retention_acked_ms: of ACKED, CANCELLED and EXPIRED jobs; -1: the server's.
            finished_max: finished jobs of each terminal state; -1: the server's.
            max_depth: unfinished jobs.
        """

@final
class Leased:
    """One lease when it was granted."""

    @property
    def job_id(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def lease_until_us(self) -> int: ...
    @property
    def created_us(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def max_retries(self) -> int: ...
    @property
    def queue(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def place(self) -> RecordPlace:
        """The place of the job's SUBMIT record: see `submit_facts`."""

@final
class JobView:
    """The present state of a job."""

    @property
    def number(self) -> int:
        """Of the job in this database; it is part of the id."""
    @property
    def job_id(self) -> str: ...
    @property
    def state(self) -> str:
        """One of STATES."""
    @property
    def attempts(self) -> int: ...
    @property
    def max_retries(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def created_us(self) -> int: ...
    @property
    def run_at_us(self) -> int: ...
    @property
    def expires_us(self) -> int:
        """0: never."""
    @property
    def queue(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def owner_id(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def worker_id(self) -> str:
        """The worker of the present lease; empty if the job does not run, or the worker gave no id."""
    @property
    def lease_no(self) -> int:
        """The number of its leases so far."""
    @property
    def leased_us(self) -> int:
        """When the last lease began; 0: never leased."""
    @property
    def lease_until_us(self) -> int | None:
        """The last lease's deadline; None: never leased."""
    @property
    def ended_us(self) -> int:
        """When the last attempt, or the job, ended; 0: neither has."""
    @property
    def outcome(self) -> str:
        """The last attempt's outcome: see `Event.outcome`; empty if none has ended."""
    @property
    def cancel_requested(self) -> bool: ...
    @property
    def progress(self) -> tuple[int, str, int] | None:
        """(percent, note, time) of the last progress report."""
    @property
    def place(self) -> RecordPlace:
        """The place of the job's SUBMIT record."""
    @property
    def close_place(self) -> RecordPlace | None:
        """The place of the last CLOSE record: see `close_result`. None if no attempt has ended."""
    @property
    def history_place(self) -> RecordPlace | None:
        """The place of the newest record of the job's history: see `history_of`. None if it has none."""

@final
class LiveJob:
    """A job that replay would lose without the frame in which it was found.

    The frame holds its SUBMIT record, unless the job was edited: then the record may be in a later frame.
    """

    @property
    def seq(self) -> int: ...
    @property
    def place(self) -> RecordPlace: ...
    @property
    def close_place(self) -> RecordPlace | None: ...
    @property
    def lease_place(self) -> RecordPlace | None: ...
    @property
    def history_place(self) -> RecordPlace | None: ...
    @property
    def record_bytes(self) -> int:
        """The bytes that moving it appends."""

@final
class LiveDocument:
    """A document, found in the record that holds its present body."""

    @property
    def kind(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def place(self) -> RecordPlace: ...
    @property
    def record_bytes(self) -> int:
        """The bytes that moving it appends."""

@final
class LiveKey:
    """A remembered idempotency key, found in the record that holds its answer."""

    @property
    def record_bytes(self) -> int:
        """The bytes that moving it appends."""

@final
class Core:
    """The state machine. Methods that change state append records to `tail`, then apply them.

    A refused command raises before it appends anything, so it leaves no trace. The engine checks the room first and
    raises `DiskFull` or `Overloaded`; here a tail without room is a defect and an AssertionError.
    """

    def __init__(self, tail: Tail, settings: CoreSettings) -> None: ...

    # at every start: `identify`, then `replay` of every frame, then `resume` and `configure_queue`
    def identify(self, database_id: bytes) -> None:
        """Set the database id, 16 random bytes drawn when the log was made. Ids and tokens are derived from it."""

    def fence(self, lease_no: int) -> None:
        """Give all new leases numbers above `lease_no`."""

    def configure_queue(self, now_us: int, name: str, settings: QueueSettings | None) -> None:
        """Apply settings to a queue from now on; None restores the defaults. Logs nothing."""
    def resume(self, now_us: int, epoch: int) -> None:
        """Log that the server serves again. Running leases last until now + min(their length, grace_ms) at least."""
    def replay(self, records: Buffer, frame: int) -> int:
        """Apply the records of frame number `frame`.

        Returns:
            The number of records.
        Raises:
            UnsupportedFormat: a record has a type, version or field of a later version.
            LogDamaged: the bytes are no valid records, though the frame's CRC is right.
        """

    # jobs
    def submit(self, now_us: int, job: NewJob, *, owner_id: str, key_id: str) -> Submitted:
        """Store a job.

        Raises:
            IdempotencyMismatch, IdempotencyFull, QueueFull, OwnerFull, QueuesFull.
        """
    def submit_many(self, now_us: int, jobs: list[NewJob], *, owner_id: str, key_id: str) -> list[Submitted]:
        """Store jobs as one record: all of them or none. Raises what `submit` raises."""
    def lease(
        self,
        now_us: int,
        queues: list[str] | dict[str, int],
        limit: int,
        *,
        lease_ms: int,
        key_id: str,
        worker_id: str = "",
        legacy: bool = False,
        request_id: str = "",
        bytes_max: int = ...,
    ) -> list[Leased]:
        """Lease up to `limit` jobs that are due, as one record.

        Payloads add up to `bytes_max` at most, unless the first alone is larger.

        Args:
            queues: a list: all jobs of the first queue before any of the next; a dict: by weight.
            lease_ms: 0: the job's, else the queue's, else the server's.
        """
    def leased_before(self, now_us: int, key_id: str, request_id: str) -> list[Leased]:
        """The leases of a request with this id in the last minute that are still held."""
    def ack(self, now_us: int, access: Access, ack: Ack, *, key_id: str) -> bool:
        """End an attempt.

        Returns:
            Whether anything changed: False for a repeated ack, which gets the same answer again.
        Raises:
            JobNotFound, NotAckable (no token, job not running), LeaseLost (any other token).
        """
    def ack_many(self, now_us: int, access: Access, acks: list[Ack], *, key_id: str) -> list[ApiError | None]:
        """End attempts, those that may end in one record. Returns None or the error for each, in order."""
    def extend(self, now_us: int, access: Access, job_id: str, token: str, lease_ms: int) -> int:
        """Move a lease's deadline to now + `lease_ms`, if that is later. Returns the deadline.

        Raises:
            JobNotFound, LeaseLost.
        """
    def extend_many(self, now_us: int, access: Access, extends: list[Extend]) -> list[tuple[int, bool] | ApiError]:
        """Extend leases in one record. Returns (deadline, cancel_requested) or the error for each, in order."""
    def report(self, now_us: int, access: Access, job_id: str, token: str, percent: int, note: str) -> None:
        """Store an attempt's progress. Raises JobNotFound, LeaseLost."""
    def undelivered(self, now_us: int, job_id: str, token: str) -> bool:
        """Take back a lease that was not delivered; the attempt does not count. False: it is not the present lease."""
    def unreadable(self, now_us: int, job_id: str, token: str, reason: str) -> bool:
        """Make a leased job DEAD whose payload could not be read; the attempt does not count. False as `undelivered`.

        Args:
            reason: the error of the attempt.
        """
    def transact(
        self,
        now_us: int,
        access: Access,
        acks: list[Ack],
        extends: list[Extend],
        jobs: list[NewJob],
        *,
        owner_id: str,
        key_id: str,
        idempotency_key: str = "",
        body_digest: int = 0,
    ) -> tuple[list[int], list[Submitted], bool]:
        """Ack, extend and submit as one record: all or nothing.

        A repeated ack is refused here. A job may be named once. The jobs belong to the acked jobs' owner, or without
        acks to `owner_id`, as the idempotency keys do. A known key is answered before anything else is looked up.

        Returns:
            The deadlines, the jobs, and whether this repeats the answer to an earlier transaction with that key.
        Raises:
            The error of the first operation that is refused; InvalidRequest: the acked jobs have two owners.
        """
    def cancel(self, now_us: int, access: Access, job_id: str, *, force: bool, key_id: str) -> str:
        """Cancel a job. Returns its new state: CANCELLED; or RUNNING if it runs, unless `force`.

        Raises:
            JobNotFound, JobFinished.
        """
    def redrive(self, now_us: int, access: Access, job_id: str, *, key_id: str) -> None:
        """Make a DEAD job ready again, its attempts counted from 0. Raises JobNotFound, NotDead, JobDuplicate."""
    def edit(
        self,
        now_us: int,
        access: Access,
        job_id: str,
        place: RecordPlace,
        submit: bytes,
        *,
        key_id: str,
        payload: bytes | None = None,
        priority: int | None = None,
        run_at_us: int | None = None,
        queue: str | None = None,
    ) -> bool:
        """Change a job that waits or is DEAD. `submit`: its SUBMIT record, read at `place`.

        Returns:
            False if the record has moved since: read it again.
        Raises:
            JobNotFound, JobRunning, JobFinished, QueueFull, QueuesFull.
            JobDuplicate: its unique key is taken in the other queue.
        """
    def delete(self, now_us: int, access: Access, job_ids: list[str]) -> None:
        """Remove jobs, all or none. Raises JobNotFound, JobRunning for the first that cannot be removed."""
    def job(self, now_us: int, access: Access, job_id: str) -> JobView:
        """The present state of a job. Raises JobNotFound."""

    # reads
    def page(
        self, now_us: int, access: Access, filter: Filter, before: int, limit: int, examine_max: int
    ) -> tuple[list[JobView], int]:
        """Jobs that match, newest first, with numbers below `before` (0: all).

        Args:
            examine_max: how many jobs to examine at most.
        Returns:
            The jobs, and `before` for the next page; 0: this is the last page.
        """
    def running(self, access: Access, first: int, end: int) -> list[JobView]:
        """Running jobs in places `first` to `end` - 1, in no order. A job changes its place when leases change."""
    def rising(
        self, now_us: int, access: Access, filter: Filter, after: int, until: int, limit: int, examine_max: int
    ) -> tuple[list[JobView], int]:
        """Jobs that match, in the order of their submits, with numbers above `after` and below `until`.

        Args:
            examine_max: how many jobs to examine at most.
        Returns:
            The jobs, and `after` for the next page; 0: this is the last page.
        """
    @property
    def next_number(self) -> int:
        """The number of the next new job."""
    def position(self, access: Access, job_id: str, count_max: int) -> tuple[bool, int]:
        """Whether ready jobs of its queue and group come before a ready job, and how many of those exist for the
        caller; at most `count_max` are examined."""
    def queues(self, access: Access) -> list[str]:
        """The names of queues that have jobs or settings; for an owner, of those that have its jobs."""
    def queues_in(self, access: Access, first: int, end: int, after: str) -> list[str]:
        """The names after `after` of queues in places `first` to `end` - 1, in no order. A queue keeps its place."""
    @property
    def queue_places(self) -> int:
        """All queues are in places below it."""
    @property
    def queue_count(self) -> int:
        """How many queues exist: those with jobs or settings."""
    def holdings(self, owner_id: str, first: int, end: int, names_max: int) -> tuple[dict[str, int], list[str]]:
        """Count an owner's jobs, in places `first` to `end` - 1 of all that count jobs by owner and queue.

        Returns:
            The number of jobs by stored state, of those that are `due` (in READY and RETRY), and of `queues`; and the
            names of up to `names_max` of these queues. Each queue of the owner is in one place, and keeps it.
        """
    @property
    def holding_places(self) -> int:
        """All places of `holdings` are below it."""
    def queue(self, now_us: int, access: Access, name: str) -> QueueView:
        """A queue with the counts of the jobs that exist for the caller; to an owner without groups, ages and rates."""
    def worst_queues(self, access: Access, first: int, end: int, limit: int) -> list[str]:
        """Queues in places `first` to `end` - 1 that have ready jobs, the one with the oldest first.

        To an owner the queues with its ready jobs, the one with the most first.
        """
    def traffic(self, queue: str | None = None) -> Traffic:
        """What happened, in all queues or in one."""
    def latencies(self, queue: str | None = None) -> Latencies | None:
        """Durations of all jobs or of one queue's.

        None: nothing was leased from that queue, or 1,000 other queues have theirs: the first ones, while they exist.
        """
    def active_queues(self, limit: int) -> list[str]:
        """Up to `limit` queues in which something happened since they were last among these."""
    def changes(self, after_seq: int, until_frame: int, limit: int) -> tuple[list[JobChange], int, int]:
        """Changes after a number, none above a frame of the log: at most `limit`, oldest first.

        The newest 1,024 are kept, of at most 200 a second.

        Returns:
            the changes; how many were left out from the start to the end of these; the oldest number that is kept.
        """
    @property
    def last_change(self) -> int:
        """The number of the newest change that is kept."""
    def failures(self, access: Access, queue: str | None, since_us: int, limit: int) -> list[FailureGroup]:
        """Groups of failed attempts that were seen since a time, the one seen last first. At most 10,000 are kept."""
    def add_failures(self, groups: list[FailureGroup]) -> None:
        """Add groups that were remembered by an earlier process."""
    @property
    def failures_dropped(self) -> int:
        """Groups that are no longer kept, since they were seen longest ago."""
    def blocked_by(self, now_us: int, name: str, group: str | None) -> str:
        """The limit that keeps this group's ready jobs from being leased: `paused`, `rate_limit`, `concurrency`,
        `group_concurrency`; empty: none. Without a group: the limit that keeps all of the queue's."""

    # time
    def expire(self, now_us: int, jitter: Jitter, limit: int) -> int:
        """End up to `limit` leases past their deadline, and waiting jobs that have expired. Returns how many."""
    def advance(self, now_us: int, limit: int) -> int:
        """Move up to `limit` delayed jobs that are due to their ready heaps. Returns how many. Logs nothing."""
    def next_due_us(self) -> int:
        """When `expire` or `advance` will next have work; a time above every limit if never."""
    def rate_due_us(self, name: str) -> int:
        """When the rate limit of a queue allows the next lease; 0: now, or it has no rate limit."""

    # retention and cleaning
    def retain(self, acked_ms: int, dead_ms: int, count_max: int, bytes_max: int) -> None:
        """Set what `forget` keeps: how long, and how many jobs and bytes of each terminal state. It takes O(queues).

        Before this call it keeps everything. -1: for ever. `acked_ms` is for CANCELLED and EXPIRED jobs too. A queue's
        own settings replace the times and `count_max`.
        """
    def tidy(self, now_us: int) -> bool:
        """Drop some empty groups. Returns whether `forget` or `forget_keys` has work. It takes O(1)."""
    def forget(self, now_us: int, limit: int) -> int:
        """Remove up to `limit` finished jobs that are too old or too many, the oldest of a queue first.

        Returns:
            How many.
        """
    def forget_keys(self, now_us: int, limit: int) -> int:
        """Forget idempotency keys whose window is over: up to `limit`, and those used at the same time as the last.

        Returns:
            How many, at most `limit`; `limit`: there may be more.
        """
    def trim(self, now_us: int, oldest_frame: int) -> None:
        """Log that no frame before this one is needed: their live records were moved."""
    def live_records(self, records: Buffer, frame: int) -> list[LiveJob | LiveDocument | LiveKey]:
        """The jobs, documents and keys that replay would lose without these records of frame number `frame`."""
    def live_in(self, frames: set[int]) -> list[LiveJob | LiveDocument | LiveKey]:
        """As `live_records` of frames that cannot be read. It walks over everything in memory."""
    def move_job(self, live: LiveJob, submit: bytes | None, lease: bytes | None, history: list[bytes]) -> bool:
        """Append a whole job to the tail, with its records. False: its places have changed since.

        A record that could not be read is None or missing. One without what it contained takes its place, and reading
        that is refused from then on.

        Args:
            history: the records from `history_of`, newest first; the record at close_place is among them or the last.
        """
    def move_document(self, now_us: int, live: LiveDocument) -> bool:
        """Append a document to the tail again. False: it has changed since."""
    def move_key(self, now_us: int, live: LiveKey) -> bool:
        """Append an idempotency key to the tail again. False: it was forgotten or moved."""

    # documents: small named values that live in the log beside the jobs (keys, queue settings, schedules, audit)
    def put_document(self, now_us: int, kind: int, name: str, body: bytes, key_id: str = "") -> None: ...
    def drop_document(self, now_us: int, kind: int, name: str, key_id: str = "") -> None: ...
    def documents(self, kind: int) -> dict[str, bytes]: ...
    def begin_group(self, bytes_max: int) -> None:
        """Begin a group: records appended until `end_group` become one record.

        Only these commands may be in a group: submit, put_document, drop_document, cancel, redrive, edit, delete.
        """
    def end_group(self) -> None: ...

    # counts and state
    @property
    def last_us(self) -> int:
        """The latest time in a record since the last start; 0 for an empty log."""
    @property
    def database_id(self) -> bytes:
        """Empty before `identify`."""
    @property
    def oldest_frame(self) -> int:
        """The first frame that replay needs."""
    @property
    def broken_links(self) -> int:
        """Records of histories in the replay whose link does not lead to the record before: a defect of fastq."""
    @property
    def live_bytes(self) -> int:
        """The bytes of records that a rewrite of everything that replay needs would append."""
    def remembers(self, now_us: int, owner_id: str, idempotency_key: str) -> bool:
        """Whether a submit or transaction of this owner with this key is answered by an earlier one, or refused."""
    @property
    def idempotency_keys(self) -> int:
        """The number of remembered idempotency keys."""
    @property
    def idempotency_count(self) -> int:
        """The number of answers that they remember: what `idempotency_keys_max` bounds."""
    @property
    def dropped_early(self) -> int:
        """Idempotency keys that this process dropped before their window was over, to make room."""
    @property
    def table_bytes(self) -> int:
        """The memory of pools, indexes and heaps, about: without the texts of names, documents and small dicts."""
    watching: bool
    """Whether to collect queues for `take_touched`."""

    def take_touched(self) -> set[str]:
        """Queues whose jobs became ready, or whose limits allow a lease again, since the last call."""
    def watch_end(self, job_id: str) -> None:
        """Report this job in `take_ended` when it finishes or is removed. Raises JobNotFound."""
    def unwatch_end(self, job_id: str) -> None: ...
    def has_ends(self) -> bool:
        """Whether `take_ended` or `take_forgotten` has any. Without ends this is one cheap call before each commit."""
    def take_ended(self) -> list[tuple[str, JobView | None]]:
        """Watched jobs that ended since the last call, each as it ended; None: it was removed. They are no longer
        watched."""
    def take_forgotten(self) -> list[JobView]:
        """Jobs that `forget` removed within seconds of their end since the last call, as they were."""
    def counts(self) -> dict[str, int]:
        """The number of jobs by stored state (READY includes scheduled jobs), and of `delayed` and all `jobs`."""
    def skipped(self) -> int:
        """The number of records that the replay skipped because their job does not exist."""
    def state_hash(self) -> int:
        """A 64-bit hash over the [log] state, independent of order and places."""
    def check(self) -> None:
        """Assert that all structures are consistent. Slow: for tests and `log check`."""

@final
class SubmitFacts:
    """The fields of a SUBMIT record that memory does not hold."""

    @property
    def payload(self) -> bytes: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def traceparent(self) -> str: ...
    @property
    def unique_key(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    @property
    def lease_ms(self) -> int: ...
    @property
    def backoff(self) -> tuple[int, float, int] | None: ...

def submit_payload(record: bytes, job_id: str) -> bytes:
    """The payload's JSON text in a SUBMIT record.

    Raises:
        RecordUnreadable: it is not that job's record, or not as it was written.
    """

def submit_facts(record: bytes, job_id: str) -> SubmitFacts:
    """Read a SUBMIT record. Raises RecordUnreadable as `submit_payload`."""

def close_result(record: bytes, job_id: str) -> tuple[bytes | None, str]:
    """The result (JSON text) and error text in a CLOSE record. Raises RecordUnreadable as `submit_payload`."""

def close_error(record: bytes, job_id: str) -> tuple[str, str, str]:
    """The error text, error code and worker in a CLOSE record. Raises RecordUnreadable as `submit_payload`."""

@final
class Event:
    """One record of a job's history: an attempt that ended, or a change from outside."""

    @property
    def what(self) -> str:
        """One of EVENTS."""
    @property
    def at_us(self) -> int: ...
    @property
    def key_id(self) -> str:
        """The key of the request; empty: the server did it."""
    # of an attempt
    @property
    def number(self) -> int:
        """The lease's number."""
    @property
    def leased_us(self) -> int: ...
    @property
    def worker_id(self) -> str: ...
    @property
    def outcome(self) -> str:
        """One of ATTEMPT_OUTCOMES."""
    @property
    def error(self) -> str: ...
    @property
    def error_code(self) -> str: ...

def history_of(record: bytes, number: int) -> tuple[list[bytes], RecordPlace | None]:
    """The history records in the record at a history place, newest first, and the place of the one before them.

    A CLOSE or CHANGE record is a history record itself; a JOB record contains those of a moved job.

    Args:
        number: of the job.
    Raises:
        RecordUnreadable: it is none of these, of another job, or not as it was written.
    """

def read_event(record: bytes) -> Event:
    """Read a CLOSE or CHANGE record. Raises RecordUnreadable for any other, and if it is not as it was written."""

def is_sound_record(record: bytes) -> bool:
    """Whether these bytes are one record as it was written: its length and its check fit."""

# records for people

def new_jobs_bytes(jobs: list[NewJob]) -> int:
    """Return an upper bound of the bytes that the records of new jobs take."""

def remembered_bytes(count: int) -> int:
    """Return the length of the record that remembers the answer to a request with that many jobs and extends."""

def describe_records(records: Buffer, database_id: bytes, *, bodies: bool = False) -> list[dict[str, Any]]:
    """Describe the records of one frame, in order: `type`, `bytes`, and each field under its name.

    The records within a group are in its `records`. A record that cannot be read has `unknown` or `damaged` instead of
    fields. Fields are `job` (the job's number), `job_id` in a SUBMIT, times as `…_us`.

    Args:
        bodies: whether to include payloads, results, error texts and documents as text; else only their lengths.
    """

def job_number(job_id: str, database_id: bytes) -> int:
    """The job number in an id; 0 if it is no id of this database."""

def job_id_by_number(core: Core, number: int) -> str | None:
    """The id of the job with that number; None if it does not exist."""
