"""The log makes records durable. One protocol, several implementations: local files, memory (cluster: etcd, later).

The engine encodes records into `log.tail`. When the log is idle, the engine passes it the next batch with `commit`; the
log reports when the batch is durable. One batch is in flight at a time: while it is written and synced, the next fills.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from fastq._core import Batch, RecordPlace, Tail


RESERVE_SEGMENTS = 2  # ready ones, for a full disk: one for what ends jobs and frees space, one for the cleaner alone

# (records of one frame, its sequence number) -> how many records were applied
Replay = Callable[[memoryview, int], int]


class Replayer(Protocol):
    """Receives the log's content while the log is opened."""

    def identify(self, database_id: bytes) -> None:
        """Receive the database id, 16 random bytes drawn when the log was made. Called first."""

    def replay(self, records: memoryview, frame: int) -> int:
        """Apply the records of frame number `frame`. Returns how many records there were."""

    @property
    def oldest_frame(self) -> int:
        """The first frame that the records still need. Read after the last frame."""


@dataclass(frozen=True)
class Opened:
    """The result of opening a log."""

    database_id: bytes  # 16 bytes, drawn when the log was made
    epoch: int  # of this opening: 1 for a new log, higher at every later one
    frames: int = 0
    records: int = 0
    bytes_read: int = 0
    bytes_cut: int = 0  # of a torn tail
    fence: int = 0  # new leases get higher numbers: see `fastq.log.files.fence`
    notes: list[str] = field(default_factory=list)  # a line for the operator about each unusual finding


class Part(NamedTuple):
    """Frames that are dropped together. No batch is added to them any more."""

    first: int
    next: int  # the frame after the last


class Backup(Protocol):
    """A tar archive of a log up to a frame, piece by piece. `fastq.log.files.tools.backup` describes its content."""

    def __aiter__(self) -> Backup: ...

    async def __anext__(self) -> bytes:
        """Some 256 KiB, read off the loop.

        Raises:
            LogDamaged, OSError: it cannot be finished.
        """

    async def close(self) -> None:
        """Release what the backup holds of the log. The backup calls this at its end; call it to stop earlier."""


class Log(Protocol):
    """Durable, ordered batches of records."""

    tail: Tail
    """The engine's core appends here. A batch and the frame that it becomes have the same sequence number."""

    def open(self, replayer: Replayer) -> Opened:
        """Lock and read the log, pass every record to `replayer` in order, and make `tail` ready for the next record.

        Blocking: call it before the event loop runs.

        Raises:
            DirectoryLocked, LogDamaged, UnsupportedFormat, OSError.
        """

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        """Begin to take batches, on the running event loop.

        Args:
            on_durable: called on the loop with a sequence number when every batch up to it is on stable storage; and
                with the same one again when `may_answer` becomes true.
            on_failed: called once on the loop when a write or sync fails; `on_durable` is not called after that.
        """

    @property
    def idle(self) -> bool:
        """Whether `commit` may be called: no batch is in flight and nothing failed."""

    @property
    def disk_full(self) -> bool:
        """Whether there is no space for the next segment."""

    @property
    def sync_durations(self) -> tuple[tuple[int, ...], int] | None:
        """How long syncs took: counts by the buckets of `_core.LATENCY_BOUNDS_US`, and their sum in microseconds.

        None: this log syncs nothing.
        """

    async def more_room(self, timeout_s: float) -> None:
        """Return when more segments than the reserve are ready, or none can be made, or after the timeout."""

    def may_answer(self) -> bool:
        """Whether this node may answer for the queue now. While it may not, no answer leaves; reads go on.

        Always true for a log with one node.
        """

    def commit(self, batch: Batch) -> None:
        """Write and sync `batch`, the next in sequence. Returns at once; `idle` is false until the batch is durable."""

    def read(self, places: Sequence[RecordPlace]) -> Awaitable[list[bytes | OSError]]:
        """Read durable records that are not in the tail's cache. Their checks are not verified here.

        Returns:
            For each place, in order, the bytes; or why only they cannot be read: FileNotFoundError if their frame was
            dropped, or never written; else an error of the device at that place, which several tries had.
        Raises:
            OSError: the device fails as a whole, or the process has no descriptor left: nothing can be read now.
        """

    def read_now(self, places: list[RecordPlace]) -> list[bytes] | None:
        """Read such records without waiting for a device. Returns None if any would wait: use `read` then."""

    # --- dropping what is not needed ----------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """The space that its frames take; segments that are only prepared do not count."""

    @property
    def oldest_frame(self) -> int:
        """The first frame in the log; in an empty log the next one."""

    @property
    def parts(self) -> int:
        """How many parts can be dropped once nothing in them is needed. No batch goes to them."""

    def oldest_part(self) -> Part:
        """The oldest of these parts. Call it only if `parts` is not 0."""

    def frames(self, part: Part) -> AsyncIterator[tuple[int, memoryview | None]]:
        """Iterate over the oldest part: each frame's sequence number and its records.

        None stands for the records of a frame that cannot be read or is not as it was written; some of them may be.
        Frames are read off the loop. A view is valid until the next one.

        Raises:
            OSError: as `read`.
        """

    def drop_before(self, frame: int) -> None:
        """Drop every part before this frame. The TRIM record must be durable first."""

    def backup(self) -> Backup:
        """Begin a copy of everything that is durable now. No commit waits for it; its segments stay until it read them.

        Raises:
            BackupRefused: another backup runs, or there is nothing to copy.
        """

    async def close(self) -> None:
        """Wait for the batch in flight, then release the lock. A closed log takes no more batches."""
