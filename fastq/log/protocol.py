"""The log: where records become durable. One protocol, several homes: local files, memory (cluster: etcd, later).

The engine encodes records into `log.tail`; whenever the log is idle it hands over the next batch with `commit`, and the
log says when it is durable. One batch is under way at a time: while it is written and synced, the next one fills.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from fastq._core import Batch, RecordPlace, Tail


# (records of one frame, its sequence number) -> how many records were applied
Replay = Callable[[memoryview, int], int]


class Replayer(Protocol):
    """Who is told what the log holds, while it is opened."""

    def identify(self, database_id: bytes) -> None:
        """Before all else: the 16 random bytes that were drawn when the log was made."""

    def replay(self, records: memoryview, frame: int) -> int:
        """The records of one frame, by its sequence number; how many there were."""

    @property
    def oldest_frame(self) -> int:
        """After the last frame: the first that had to be there."""


@dataclass(frozen=True)
class Opened:
    """What opening a log found."""

    database_id: bytes  # 16 bytes, drawn when the log was made
    epoch: int  # of this opening: 1 for a new log, higher at every later one
    frames: int = 0
    records: int = 0
    bytes_read: int = 0
    bytes_cut: int = 0  # of a torn tail
    fence: int = 0  # new leases have numbers above it: see `fastq.log.files.fence`
    notes: list[str] = field(default_factory=list)  # one line for a person for each thing out of the ordinary


class Part(NamedTuple):
    """Frames that are given back together. No batch is added to them any more."""

    first: int
    next: int  # the one behind the last


class Backup(Protocol):
    """A tar archive of a log up to a frame, piece by piece; `fastq.log.files.tools.backup` says what is in it."""

    def __aiter__(self) -> Backup: ...

    async def __anext__(self) -> bytes:
        """Some 256 KiB, read off the loop.

        Raises:
            LogDamaged, OSError: it cannot be finished.
        """

    async def close(self) -> None:
        """What it needs of the log may go. Called by itself at its end; whoever stops earlier calls it."""


class Log(Protocol):
    """Durable, ordered batches of records."""

    tail: Tail
    """Where the engine's core appends. A batch's sequence number is that of the frame that it becomes."""

    def open(self, replayer: Replayer) -> Opened:
        """Lock and read the log, give every record to `replayer` in order, and make `tail` ready for the next one.

        Blocking: called before the event loop runs.

        Raises:
            DirectoryLocked, LogDamaged, UnsupportedFormat, OSError.
        """

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        """Begin to take batches, on the running event loop.

        Args:
            on_durable: called on the loop with the sequence number up to which every batch is on stable storage; with
                the same one again when `may_answer` has become true.
            on_failed: called once, on the loop, when a write or sync failed; `on_durable` is never called again.
        """

    @property
    def idle(self) -> bool:
        """Whether `commit` may be called: no batch is under way and nothing failed."""

    @property
    def disk_full(self) -> bool:
        """Whether the next segment could not be made for want of space."""

    def may_answer(self) -> bool:
        """Whether this node may speak for the queue now. While it may not, no answer leaves; reads go on.

        A log with one node always may.
        """

    def commit(self, batch: Batch) -> None:
        """Write and sync `batch`, the next in sequence. Returns at once; `idle` is false until it is durable."""

    def read(self, places: Sequence[RecordPlace]) -> Awaitable[list[bytes]]:
        """The bytes of durable records that are no longer in the tail's cache, in the order asked for.

        Raises:
            FileNotFoundError: a frame was given back meanwhile, or never written. OSError: the device failed.
        """

    def read_now(self, place: RecordPlace) -> bytes | None:
        """One such record without waiting for a device; None if that cannot be done, and `read` is to be used."""

    # --- giving back what is not needed -------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """What it takes where it is kept; room that was only made ready is not counted."""

    @property
    def oldest_frame(self) -> int:
        """The first that is there; without one, the next."""

    @property
    def parts(self) -> int:
        """How many parts can be given back once nothing in them is needed. Batches go to none of them."""

    def oldest_part(self) -> Part:
        """The first of these parts; there is one."""

    def frames(self, part: Part) -> AsyncIterator[tuple[int, memoryview]]:
        """Each frame of the oldest part: its sequence number and its records.

        Read off the loop, a piece ahead. A view is good until the next one is asked for.

        Raises:
            LogDamaged: they are not what was written. OSError: the device failed.
        """

    def drop_before(self, frame: int) -> None:
        """Give back every part before this frame. The record that says that they are not needed is durable."""

    def backup(self) -> Backup:
        """A copy of all that is durable now. No commit waits for it; what it needs stays until it was read.

        Raises:
            BackupRefused: another one is under way, or there is nothing to copy.
        """

    async def close(self) -> None:
        """Wait for the batch under way, then give the lock back. A log that is closed takes nothing more."""
