"""The pure core: the tail of the log in memory, and the state machine over its records.

No clock, randomness, file or socket in it: times (Unix microseconds), jitter and secrets come in as arguments. One
thread uses it, the event loop's; only the bytes of a taken `Batch` may be read by another.
"""

from collections.abc import Callable
from typing import Any, final

from typing_extensions import Buffer

from fastq.errors import ApiError

Place = tuple[int, int, int]
"""Where one record is: segment number, offset in its file, length; the last two in bytes."""

RetryAt = Callable[[int], int]
"""attempt number -> the time before which the job is not leased again, Unix microseconds"""

FRAME_HEAD_BYTES: int
RECORD_VERSION: int
SUBMIT_RECORD_BYTES: int
CLOSE_RECORD_BYTES: int
SMALL_RECORD_BYTES: int
"""Enough for a SUBMIT record, a CLOSE record, any record about one job: beside payload, result and error text."""

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

    A record gets its place when it is appended, so `offer_segment` must have named a segment with room. The last
    `align` bytes of a segment are never given to a batch: they are for the frame that seals it.
    """

    def __init__(self, align: int, cache_bytes: int, batch_bytes_max: int) -> None:
        """
        Args:
            align: bytes; frames start and end at its multiples. 512 to 65,536, a power of two.
            cache_bytes: of durable batches kept in memory for `cached`.
            batch_bytes_max: a batch is closed before it grows past this, unless one record alone is larger.
        """
    def resume(self, next_seq: int) -> None:
        """The sequence number of the first batch to come. Once, before the first append."""
    def offer_segment(self, number: int, first_offset: int, bytes: int) -> None:
        """Add a segment that is ready to be written: numbers go up by one; frames start at `first_offset`."""
    def take(self) -> Batch | None:
        """Close the oldest batch that is not taken and hand it over, or None if there are no records."""
    def durable(self, seq: int) -> None:
        """Every batch up to `seq` is on stable storage."""
    def cached(self, place: Place) -> bytes | None:
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
        """The largest record that a whole segment takes, as far as one is ready."""
    @property
    def segments_offered(self) -> int:
        """Segments that are ready and not yet begun."""
    @property
    def memory_bytes(self) -> int:
        """Allocated for batches and the cache."""

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
    def place(self) -> Place:
        """Of the job's SUBMIT record: see `submit_payload`."""

@final
class JobView:
    """One job as it is now."""

    @property
    def job_id(self) -> str: ...
    @property
    def state(self) -> str: ...
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
    def queue(self) -> str: ...
    @property
    def owner_id(self) -> str: ...
    @property
    def lease_until_us(self) -> int | None:
        """Of the last lease; None if there was none."""
    @property
    def expired(self) -> bool:
        """Whether the last attempt ended by the lease running out."""
    @property
    def place(self) -> Place:
        """Of the job's SUBMIT record."""
    @property
    def close_place(self) -> Place | None:
        """Of the record that ended the last attempt: see `close_result`. None if no attempt ended."""

@final
class LiveJob:
    """A job whose SUBMIT record was found where the job says it is."""

    @property
    def seq(self) -> int: ...
    @property
    def place(self) -> Place: ...
    @property
    def close_place(self) -> Place | None: ...
    @property
    def lease_place(self) -> Place | None: ...

@final
class LiveDocument:
    """A document that was found where it was last put."""

    @property
    def kind(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def segment(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def body_bytes(self) -> int: ...

@final
class Core:
    """The state machine. Methods that change state first append records to `tail`, then apply them.

    An error is raised before anything is appended: a refused command leaves no trace. `DiskFull` and `Overloaded` are
    the engine's to raise, before it calls; here a tail without room is our own bug and an AssertionError.
    """

    def __init__(self, tail: Tail) -> None: ...

    # at every start: first `identify`, then `replay` of all there is, then `resume`
    def identify(self, database_id: bytes) -> None:
        """16 random bytes, drawn when the log was made. Job ids and lease tokens are made from them."""
    def resume(self, now_us: int, epoch: int) -> None:
        """The server serves again: running leases get until now + min(their length, 30 s), if that is later."""
    def replay(self, records: Buffer, segment: int, offset: int) -> int:
        """Apply the records of one frame, the first of which lies at `offset` of `segment`.

        Returns:
            How many there were.
        Raises:
            UnsupportedFormat: a type, version or field of a later version.
            LogDamaged: bytes that are no records, though the frame's CRC holds.
        """

    # jobs
    def submit(
        self,
        now_us: int,
        payload: bytes,
        *,
        owner_id: str,
        key_id: str,
        max_retries: int,
        priority: int = 0,
        run_at_us: int = 0,
        queue: str = "default",
    ) -> str:
        """Store a job and return its id. `payload` is JSON text; `run_at_us` 0 or in the past counts as now."""
    def submit_many(
        self, now_us: int, jobs: list[tuple[bytes, int, int, int, str]], *, owner_id: str, key_id: str
    ) -> list[str]:
        """Store jobs (payload, max_retries, priority, run_at_us, queue) as one record: all of them or none."""
    def lease(
        self,
        now_us: int,
        queues: list[str],
        limit: int,
        *,
        lease_ms: int,
        key_id: str,
        worker_id: str = "",
        legacy: bool = False,
        request_id: str = "",
        bytes_max: int = ...,
    ) -> list[Leased]:
        """Lease up to `limit` jobs that are due, as one record: all of the first queue's before any of the next.

        Payloads add up to `bytes_max` at most, unless the first alone is larger. Within a queue the order is by
        priority, run_at, created_at and id.
        """
    def leased_before(self, now_us: int, key_id: str, request_id: str) -> list[Leased]:
        """Those leases of an earlier request of this id, within a minute, that are still held."""
    def ack(
        self,
        now_us: int,
        job_id: str,
        token: str | None,
        *,
        key_id: str,
        result: bytes | None = None,
        error: str = "",
        retry_at: RetryAt | None = None,
    ) -> bool:
        """End an attempt: ok if `error` is empty, else RETRY not before `retry_at(attempt)`, or DEAD if none is left.

        Returns:
            Whether anything changed: False for a repeated ack that is answered as it was.
        Raises:
            JobNotFound, NotAckable (no token, job not running), LeaseLost (any other token).
        """
    def ack_many(
        self, now_us: int, acks: list[tuple[str, str | None, bytes | None, str, RetryAt]], *, key_id: str
    ) -> list[ApiError | None]:
        """End attempts (job_id, token, result, error, retry_at): those that may end as one record.

        Returns:
            For each None, or why it was refused.
        """
    def extend(self, now_us: int, job_id: str, token: str, lease_ms: int) -> int:
        """Let a lease last until now + `lease_ms`, if that is later than it does; the deadline.

        Raises:
            JobNotFound, LeaseLost.
        """
    def undelivered(self, now_us: int, job_id: str, token: str) -> bool:
        """Take a lease back that reached nobody, the attempt too. False if it is no longer the present one."""
    def job(self, now_us: int, job_id: str) -> JobView:
        """Raises JobNotFound."""

    # time
    def expire(self, now_us: int, retry_at: RetryAt, limit: int) -> int:
        """Close up to `limit` leases whose deadline has passed; how many it closed."""
    def advance(self, now_us: int, limit: int) -> int:
        """Let up to `limit` delayed jobs that are due join their ready heaps; how many did. Logs nothing."""
    def next_due_us(self) -> int:
        """When `expire` or `advance` will next have something to do; a time past every limit if never."""

    # what may go
    def forget(self, now_us: int, state: str, ended_before_us: int, count_max: int, bytes_max: int, limit: int) -> int:
        """Remove up to `limit` jobs of a terminal state, oldest first, that are too old or too many; how many."""
    def trim(self, now_us: int, oldest_segment: int) -> None:
        """Say that nothing before this segment is needed any more: everything live in it was moved."""
    def live_records(self, records: Buffer, segment: int, offset: int) -> list[LiveJob | LiveDocument]:
        """What replay still needs of the records of one frame, the first of which lies at `offset` of `segment`."""
    def move_job(self, live: LiveJob, submit: bytes, close: bytes | None, lease: bytes | None) -> bool:
        """Write a whole job to the tail, with the records at its places. False: these are no longer its places."""
    def move_document(self, now_us: int, live: LiveDocument) -> bool:
        """Write a document to the tail again. False: it has changed since."""

    # documents: small named values that live in the log beside the jobs (keys; later queues and schedules)
    def put_document(self, now_us: int, kind: int, name: str, body: bytes, key_id: str = "") -> None: ...
    def drop_document(self, now_us: int, kind: int, name: str, key_id: str = "") -> None: ...
    def documents(self, kind: int) -> dict[str, bytes]: ...

    # what is there
    @property
    def last_us(self) -> int:
        """The latest time that any record states; 0 for an empty log."""
    @property
    def database_id(self) -> bytes:
        """Empty before `identify`."""
    @property
    def oldest_segment(self) -> int:
        """The first segment that replay needs."""
    @property
    def live_bytes(self) -> int:
        """Of the records of jobs that replay needs."""
    watching: bool
    """Whether `take_touched` is to know where jobs become ready."""
    def take_touched(self) -> set[str]:
        """The queues in which jobs became ready since the last call."""
    def counts(self) -> dict[str, int]:
        """Jobs by state as stored (READY includes the scheduled ones); `delayed` and `jobs` beside them."""
    def skipped(self) -> int:
        """Records met in replay whose job is not known."""
    def state_hash(self) -> int:
        """64 bits over all that records state, in no particular order and without places."""
    def check(self) -> None:
        """Walk every structure and assert that they agree. Slow: for tests and `log check`."""

def submit_payload(record: bytes, job_id: str) -> bytes:
    """The payload's JSON text in a SUBMIT record.

    Raises:
        LogDamaged: it is not that job's record.
    """

def close_result(record: bytes, job_id: str) -> tuple[bytes | None, str]:
    """Result (JSON text) and error text in a CLOSE record. Raises LogDamaged as above."""

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
