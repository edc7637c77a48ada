"""The pure core: the tail of the log in memory, and the state machine over its records.

No clock, randomness, file or socket in it: times (Unix microseconds), jitter and secrets come in as arguments. One
thread uses it, the event loop's; only the bytes of a taken `Batch` may be read by another.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

from typing_extensions import Buffer

from fastq.errors import ApiError

@final
class RecordPlace:
    """Where one record is, for ever: whatever file its frame lies in, and however often that is written again."""

    def __init__(self, frame: int, offset: int, bytes: int) -> None: ...
    @property
    def frame(self) -> int:
        """The sequence number of the frame that holds it."""
    @property
    def offset(self) -> int:
        """In the frame's records, bytes."""
    @property
    def bytes(self) -> int:
        """Its length, with the head."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

Jitter = Callable[[], float]
"""Draws from [0, 1): the share of the retry wait's upper bound that is waited."""

Submitted = tuple[str, int]
"""(job_id, one of CREATED, DUPLICATE, REPLACED, REPEATED)"""

CREATED: int
DUPLICATE: int
"""Nothing was stored: an unfinished job with that unique key is there."""
REPLACED: int
"""The unfinished job with that unique key has the new payload, priority and run_at."""
REPEATED: int
"""Nothing was stored: the same submit, by its idempotency key, was answered with this job before."""

FRAME_HEAD_BYTES: int
FRAME_RECORD_BYTES_MAX: int
"""What the records of one frame may take: places have no more bits."""
RECORD_VERSION: int
SUBMIT_RECORD_BYTES: int
CLOSE_RECORD_BYTES: int
SMALL_RECORD_BYTES: int
"""Enough for a SUBMIT record, a CLOSE record, any record about one job: beside payload, result and error text."""

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
"""Of a job's history: attempts, attempts and changes together, bytes of their records. Whoever walks it stops there."""

@final
class Batch:
    """One group commit: the frame of all records that were appended while the one before was being synced.

    Its bytes (buffer protocol, writable) are `FRAME_HEAD_BYTES` for the log to fill in, `record_bytes` of records, and
    zeros up to a multiple of the tail's align. They do not move or change from `take` until `Tail.durable`.
    """

    @property
    def seq(self) -> int: ...
    @property
    def segment(self) -> int: ...
    @property
    def offset(self) -> int:
        """Of the frame in its segment, bytes."""
    @property
    def record_bytes(self) -> int: ...
    @property
    def frame_bytes(self) -> int:
        """Head, records and padding: a multiple of align."""
    @property
    def count(self) -> int:
        """How many records it holds."""
    @property
    def durable_seq(self) -> int:
        """The highest sequence that was durable when the batch was taken."""
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Tail:
    """The open end of the log: the batch that fills, those under way, and a bounded cache of those before.

    `offer_segment` must have named a segment with room before a record is appended. The last `align` bytes of a segment
    are never given to a batch: they are for the frame that seals it.
    """

    def __init__(self, align: int, cache_bytes: int, batch_bytes_max: int) -> None:
        """
        Args:
            align: bytes; frames start and end at its multiples. 512 to 65,536, a power of two.
            cache_bytes: of durable batches kept in memory for `cached`.
            batch_bytes_max: a batch is closed before it grows past this, unless one record alone is larger. At most
                FRAME_RECORD_BYTES_MAX.
        """
    def resume(self, next_seq: int) -> None:
        """The sequence number of the first batch to come. Once, before the first append."""
    def offer_segment(self, number: int, first_offset: int, bytes: int) -> None:
        """Add a segment that is ready to be written: numbers go up by one; frames start at `first_offset`."""
    def take(self) -> Batch | None:
        """Close the oldest batch that is not taken and hand it over, or None if there are no records."""
    def durable(self, seq: int) -> None:
        """Every batch up to `seq` is on stable storage."""
    def cached(self, place: RecordPlace) -> bytes | None:
        """The bytes at `place`, if they are still in memory."""
    def has_room(self, record_bytes: int, segments_left: int) -> bool:
        """Whether records of so many bytes in all fit with `segments_left` offered segments untouched after it."""
    @property
    def appended_seq(self) -> int:
        """The batch that holds the last record appended: what an answer about the present state waits for."""
    @property
    def durable_seq(self) -> int: ...
    @property
    def unsynced_bytes(self) -> int:
        """Of records appended and not yet durable."""
    @property
    def record_bytes_max(self) -> int:
        """The largest record that a whole segment takes, as far as one is ready, and a frame."""
    @property
    def segments_offered(self) -> int:
        """Segments that are ready and not yet begun."""
    @property
    def memory_bytes(self) -> int:
        """Allocated for batches and the cache."""

@final
class SubmitOptions:
    """What only some jobs have. Immutable; texts are checked by whoever makes it."""

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
            lease_ms: of its leases, if the request does not say; 0: the queue's, or the server's.
            backoff: base_ms, factor, cap_ms; None: the queue's, or the server's.
            expires_us: when the job, if it waits then, becomes EXPIRED; 0 for never.
            unique_key: scope (owner, queue, key): at most one unfinished job.
            replace: what a duplicate does: replace payload, priority and run_at of a job that is not running.
            idempotency_key: scope (owner, key); remembered with `body_digest` (64 bits of a hash of the request).
        """
    @property
    def record_bytes(self) -> int:
        """What records about the job take at most because of these, beside SUBMIT_RECORD_BYTES and the payload."""

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
    """The end of an attempt, as its worker says it. Immutable."""

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
            token: None: the original's client, which has none.
            outcome: one of ACK_OUTCOMES.
            result: JSON text.
            error: what is longer than the core keeps is cut.
            wait_ms: of a snooze its delay; of an error the wait that the worker asks for, or -1 for the backoff times
                jitter.
        """
    @property
    def job_id(self) -> str: ...

@final
class Extend:
    """More time for a lease. Immutable."""

    def __init__(self, job_id: str, token: str, lease_ms: int = 0) -> None:
        """
        Args:
            lease_ms: from now on; 0: as long as it was granted.
        """

@final
class Filter:
    """Which jobs a page has: those that fit every member that is given. Immutable."""

    def __init__(
        self,
        state: str = "",
        *,
        queue: str = "",
        group: str | None = None,
        tag: str = "",
        owner_id: str | None = None,
        since_us: int = 0,
        queues: frozenset[str] | None = None,
    ) -> None:
        """
        Args:
            group: empty is the default group; None: any.
            queues: of no others than these; None: of all.
        """

@final
class CoreSettings:
    """What the server decides where neither job nor queue does. Immutable. A replay is the same under any."""

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
    ) -> None:
        """
        Args:
            grace_ms: what a lease has left at least after a restart, if it was as long.
            backoff: base_ms, factor, cap_ms.
            poison_expiries: so many leases of a job that ran out in a row make it DEAD; 0: never.
            idempotency_us: how long a key is remembered; an hour.
            idempotency_keys_max: past it the oldest are forgotten.
            owner_depth_max: of one owner's unfinished jobs; 0: any number.
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
            fair: groups take turns, instead of the one whose head is first.
            rate_n, rate_per_ms: so many leases in so many milliseconds; the bucket is empty at a start.
            retention_acked_ms: of ACKED, CANCELLED and EXPIRED jobs; -1: the server's.
            finished_max: of each terminal state; -1: the server's.
            max_depth: of unfinished jobs.
        """

@final
class Leased:
    """One lease, as it was granted."""

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
        """Of the job's SUBMIT record: see `submit_facts`."""

@final
class JobView:
    """One job as it is now."""

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
        """0 for never."""
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
        """Of the present lease; empty while the job does not run, or if the worker did not say."""
    @property
    def lease_no(self) -> int:
        """How often it was leased."""
    @property
    def leased_us(self) -> int:
        """When the last lease began; 0 if there was none."""
    @property
    def lease_until_us(self) -> int | None:
        """Of the last lease; None if there was none."""
    @property
    def ended_us(self) -> int:
        """When the last attempt, or the job, ended; 0 if none has."""
    @property
    def outcome(self) -> str:
        """Of the last attempt: see `Attempt`; empty if none has ended."""
    @property
    def cancel_requested(self) -> bool: ...
    @property
    def progress(self) -> tuple[int, str, int] | None:
        """(percent, note, when) as the present or last attempt last said."""
    @property
    def place(self) -> RecordPlace:
        """Of the job's SUBMIT record."""
    @property
    def close_place(self) -> RecordPlace | None:
        """Of the record that ended the last attempt: see `close_result`. None if no attempt ended."""
    @property
    def history_place(self) -> RecordPlace | None:
        """Of the newest record of the job's history: see `history_of`. None if it was never more than submitted."""

@final
class LiveJob:
    """A job that replay would not know without the records it was found in.

    They hold its SUBMIT record, unless the job was edited: then that may be in a later segment.
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

@final
class LiveDocument:
    """A document that was found where it was last put."""

    @property
    def kind(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def place(self) -> RecordPlace: ...
    @property
    def body_bytes(self) -> int: ...

@final
class LiveKey:
    """An idempotency key that is still remembered, found where its answer was last written."""

    @property
    def record_bytes(self) -> int:
        """What moving it appends."""

@final
class QueueView:
    """One queue as it is now."""

    @property
    def name(self) -> str: ...
    @property
    def ready(self) -> int:
        """Jobs that are due, RETRY included."""
    @property
    def waiting(self) -> int:
        """Jobs whose run_at lies ahead."""
    @property
    def running(self) -> int: ...
    @property
    def finished(self) -> dict[str, int]:
        """By terminal state."""
    @property
    def groups(self) -> int: ...
    @property
    def oldest_ready_us(self) -> int:
        """run_at of the job that is next in it, as far as order by priority shows; 0 if there is none."""

@final
class Core:
    """The state machine. Methods that change state first append records to `tail`, then apply them.

    An error is raised before anything is appended: a refused command leaves no trace. `DiskFull` and `Overloaded` are
    the engine's to raise, before it calls; here a tail without room is our own bug and an AssertionError.
    """

    def __init__(self, tail: Tail, settings: CoreSettings) -> None: ...

    # at every start: `identify`, then `replay` of all there is, then `resume` and `configure_queue`
    def identify(self, database_id: bytes) -> None:
        """16 random bytes, drawn when the log was made. Job ids and lease tokens are made from them."""

    def fence(self, lease_no: int) -> None:
        """Leases from now on have numbers above it."""

    def configure_queue(self, now_us: int, name: str, settings: QueueSettings | None) -> None:
        """How a queue is served from now on; None: as one that nobody configured. Logs nothing."""
    def resume(self, now_us: int, epoch: int) -> None:
        """The server serves again: running leases get until now + min(their length, grace_ms), if that is later."""
    def replay(self, records: Buffer, frame: int) -> int:
        """Apply the records of one frame, by its sequence number.

        Returns:
            How many there were.
        Raises:
            UnsupportedFormat: a type, version or field of a later version.
            LogDamaged: bytes that are no records, though the frame's CRC holds.
        """

    # jobs
    def submit(self, now_us: int, job: NewJob, *, owner_id: str, key_id: str) -> Submitted:
        """Store a job.

        Raises:
            IdempotencyMismatch, IdempotencyFull, QueueFull, OwnerFull.
        """
    def submit_many(self, now_us: int, jobs: list[NewJob], *, owner_id: str, key_id: str) -> list[Submitted]:
        """Store jobs as one record: all of them or none. Raises as `submit`."""
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
            queues: a list: all of the first queue's before any of the next; a dict: by weight.
            lease_ms: 0: the job's, else the queue's, else the server's.
        """
    def leased_before(self, now_us: int, key_id: str, request_id: str) -> list[Leased]:
        """Those leases of an earlier request of this id, within a minute, that are still held."""
    def ack(self, now_us: int, ack: Ack, *, key_id: str) -> bool:
        """End an attempt.

        Returns:
            Whether anything changed: False for a repeated ack that is answered as it was.
        Raises:
            JobNotFound, NotAckable (no token, job not running), LeaseLost (any other token).
        """
    def ack_many(self, now_us: int, acks: list[Ack], *, key_id: str) -> list[ApiError | None]:
        """End attempts: those that may end as one record. For each None, or why it was refused."""
    def extend(self, now_us: int, job_id: str, token: str, lease_ms: int) -> int:
        """Let a lease last until now + `lease_ms`, if that is later than it does; the deadline.

        Raises:
            JobNotFound, LeaseLost.
        """
    def extend_many(self, now_us: int, extends: list[Extend]) -> list[tuple[int, bool] | ApiError]:
        """Extend leases as one record: for each (deadline, cancel_requested), or why not."""
    def report(self, now_us: int, job_id: str, token: str, percent: int, note: str) -> None:
        """How far an attempt has come. Raises JobNotFound, LeaseLost."""
    def undelivered(self, now_us: int, job_id: str, token: str) -> bool:
        """Take a lease back that reached nobody, the attempt too. False if it is no longer the present one."""
    def transact(
        self,
        now_us: int,
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

        A repeated ack is a refusal here. A job may be named once.

        Returns:
            The deadlines, the jobs, and whether it is the answer to an earlier transaction with that key.
        Raises:
            What the first operation that may not happen is refused with.
        """
    def cancel(self, now_us: int, job_id: str, *, force: bool, key_id: str) -> str:
        """End a job that is wanted no more; its state then: CANCELLED, or RUNNING if its worker is to be told.

        Raises:
            JobNotFound, JobFinished.
        """
    def redrive(self, now_us: int, job_id: str, *, key_id: str) -> None:
        """Let a DEAD job run again at once, its attempts counted from 0. Raises JobNotFound, NotDead, JobDuplicate."""
    def edit(
        self,
        now_us: int,
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
        """Change a job that does not run and is not finished, or is DEAD. `submit`: its record, as read at `place`.

        Returns:
            False if its record is at another place by now: read again.
        Raises:
            JobNotFound, JobRunning, JobFinished, JobDuplicate (its unique key is taken in the other queue), QueueFull.
        """
    def delete(self, now_us: int, job_ids: list[str]) -> None:
        """Remove jobs. Raises JobNotFound, JobRunning for the first that cannot be, and then removes none."""
    def job(self, now_us: int, job_id: str) -> JobView:
        """Raises JobNotFound."""

    # looking
    def page(self, now_us: int, filter: Filter, before: int, limit: int, examine_max: int) -> tuple[list[JobView], int]:
        """Jobs that fit, the newest first, that were submitted before the one with number `before` (0: all).

        Args:
            examine_max: how many jobs it looks at, at most.
        Returns:
            The jobs, and `before` for the next page: 0 if there is none.
        """
    def running(self, limit: int) -> list[JobView]:
        """Jobs that run, in no particular order, at most `limit`."""
    def position(self, job_id: str, count_max: int) -> int:
        """How many ready jobs of its queue and group come before a ready job, counted up to `count_max`."""
    def queues(self) -> list[str]:
        """Those that have jobs or settings."""
    def queue(self, name: str) -> QueueView: ...
    def blocked_by(self, now_us: int, name: str, group: str) -> str:
        """Why nothing of this group is leased now though jobs are ready: `paused`, `rate_limit`, `concurrency`,
        `group_concurrency`; empty if nothing is in the way."""

    # time
    def expire(self, now_us: int, jitter: Jitter, limit: int) -> int:
        """Close up to `limit` leases whose deadline has passed, and end waiting jobs that have expired; how many."""
    def advance(self, now_us: int, limit: int) -> int:
        """Let up to `limit` delayed jobs that are due join their ready heaps; how many did. Logs nothing."""
    def next_due_us(self) -> int:
        """When `expire` or `advance` will next have something to do; a time past every limit if never."""
    def rate_due_us(self, name: str) -> int:
        """When the rate limit of a queue lets the next lease go; 0 if it has none or lets it go now."""

    # what may go
    def has_old(self, now_us: int, acked_ms: int, dead_ms: int, count_max: int, bytes_max: int) -> bool:
        """Whether `forget` or `forget_keys` may have something to do."""
    def forget(self, now_us: int, state: str, kept_ms: int, count_max: int, bytes_max: int, limit: int) -> int:
        """Remove up to `limit` jobs of a terminal state, oldest first, that are too old or too many; how many.

        A queue's own settings come before `kept_ms` and `count_max`.
        """
    def forget_keys(self, now_us: int, limit: int) -> int:
        """Forget idempotency keys whose window is over: `limit` of them, and those used at the same time.

        Returns:
            How many, at most `limit`: if it is as many, there may be more.
        """
    def trim(self, now_us: int, oldest_frame: int) -> None:
        """Say that nothing before this frame is needed any more: everything live in it was moved."""
    def live_records(self, records: Buffer, frame: int) -> list[LiveJob | LiveDocument | LiveKey]:
        """What replay still needs of the records of one frame, by its sequence number."""
    def move_job(self, live: LiveJob, submit: bytes, lease: bytes | None, history: list[bytes]) -> bool:
        """Write a whole job to the tail, with its records as they are. False: these are no longer its places.

        Args:
            history: what `history_of` has found, newest first; in it, or else behind it, the record at close_place.
        """
    def move_document(self, now_us: int, live: LiveDocument) -> bool:
        """Write a document to the tail again. False: it has changed since."""
    def move_key(self, now_us: int, live: LiveKey) -> bool:
        """Write an idempotency key to the tail again. False: it is forgotten, or was moved."""

    # documents: small named values that live in the log beside the jobs (keys, queue settings, schedules, audit)
    def put_document(self, now_us: int, kind: int, name: str, body: bytes, key_id: str = "") -> None: ...
    def drop_document(self, now_us: int, kind: int, name: str, key_id: str = "") -> None: ...
    def documents(self, kind: int) -> dict[str, bytes]: ...
    def begin_group(self, bytes_max: int) -> None:
        """What is appended until `end_group` becomes one record: all of it happens, or nothing.

        Only for commands that take no group of their own: submit, put_document, drop_document, cancel, redrive, edit.
        """
    def end_group(self) -> None: ...

    # what is there
    @property
    def last_us(self) -> int:
        """The latest time that any record since the last start states; 0 for an empty log."""
    @property
    def database_id(self) -> bytes:
        """Empty before `identify`."""
    @property
    def oldest_frame(self) -> int:
        """The first frame that replay needs."""
    @property
    def broken_links(self) -> int:
        """Records of a job's history, met in replay, whose link does not lead to the one before: our own bug."""
    @property
    def live_bytes(self) -> int:
        """Of the records of jobs that replay needs."""
    @property
    def idempotency_keys(self) -> int:
        """How many are remembered."""
    @property
    def dropped_early(self) -> int:
        """Idempotency keys that this process dropped before their time, since there were too many."""
    watching: bool
    """Whether `take_touched` is to know where jobs become ready."""

    def take_touched(self) -> set[str]:
        """The queues in which jobs became ready, or that were no longer held back, since the last call."""
    def watch_end(self, job_id: str) -> None:
        """Have `take_ended` know when this job becomes terminal or is removed. Raises JobNotFound."""
    def unwatch_end(self, job_id: str) -> None: ...
    def take_ended(self) -> list[str]:
        """Watched jobs that ended since the last call; they are watched no more."""
    def counts(self) -> dict[str, int]:
        """Jobs by state as stored (READY includes the scheduled ones); `delayed` and `jobs` beside them."""
    def skipped(self) -> int:
        """Records met in replay whose job is not known."""
    def state_hash(self) -> int:
        """64 bits over all that records state, in no particular order and without places."""
    def check(self) -> None:
        """Walk every structure and assert that they agree. Slow: for tests and `log check`."""

@final
class SubmitFacts:
    """A SUBMIT record, read."""

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
        LogDamaged: it is not that job's record.
    """

def submit_facts(record: bytes, job_id: str) -> SubmitFacts:
    """All of a SUBMIT record that memory does not hold. Raises LogDamaged as above."""

def close_result(record: bytes, job_id: str) -> tuple[bytes | None, str]:
    """Result (JSON text) and error text in a CLOSE record. Raises LogDamaged as above."""

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
        """Of who did it; empty for the server itself."""
    # of an attempt
    @property
    def number(self) -> int:
        """Of the lease."""
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

def history_of(record: bytes) -> tuple[list[bytes], RecordPlace | None]:
    """The history records in a record at a history place, newest first, and the place of what came before.

    A CLOSE or CHANGE record is one itself; a JOB record holds those of a job that the cleaner moved. Raises LogDamaged
    for any other.
    """

def read_event(record: bytes) -> Event:
    """A CLOSE or CHANGE record. Raises LogDamaged for any other."""

# what the log holds, for people

def describe_records(records: Buffer, database_id: bytes, *, bodies: bool = False) -> list[dict[str, Any]]:
    """What the records of one frame state, in order: `type`, `bytes`, and each field under its name.

    Those that others hold together are in `records` of theirs. What cannot be told has `unknown` or `damaged` instead
    of the rest. Fields are `job` (its number in the log), `job_id` where it is submitted, times as `…_us`.

    Args:
        bodies: payloads, results, error texts and documents too, as text; without it only how long they are.
    """

def job_number(job_id: str, database_id: bytes) -> int:
    """The number in the log of the job with that id; 0 if it is no id of this database."""

def job_id_by_number(core: Core, number: int) -> str | None:
    """The id of the job with that number, if it is there."""
