"""The log's work without the GIL: checksums, frames, scans, and the thread that writes and syncs."""

from typing import Final, final

from typing_extensions import Buffer

FRAME_MAGIC: Final[int]
FRAME_FORMAT: Final[int]
FRAME_HEAD_BYTES: Final[int]
SEAL: Final[int]
CLOSED: Final[int]

def crc32c(data: Buffer, *, by_table: bool = False) -> int:
    """CRC32C (Castagnoli) of bytes. `by_table` avoids the CPU's instruction, to test the path of old CPUs."""

def crc32c_by_instruction() -> bool:
    """Whether this CPU has an instruction for checksums."""

def fill_head(
    frame: Buffer,
    *,
    seq: int,
    durable_seq: int,
    epoch: int,
    salt: int,
    segment: int,
    record_bytes: int,
    count: int,
    prev_crc: int,
    flags: int = 0,
) -> int:
    """Write the head of `frame` (writable bytes: `FRAME_HEAD_BYTES`, then the records). Returns its head_crc."""

@final
class ScannedFrame:
    """A sound frame."""

    @property
    def seq(self) -> int: ...
    @property
    def offset(self) -> int:
        """In the segment, of its head."""
    @property
    def record_bytes(self) -> int: ...
    @property
    def count(self) -> int:
        """Of its records."""
    @property
    def durable_seq(self) -> int: ...

@final
class Scanned:
    """The sound frames of a segment, and what follows them."""

    @property
    def frames(self) -> list[ScannedFrame]:
        """Those with records; empty if no list was wanted."""
    @property
    def end(self) -> int:
        """The offset after the last frame with records."""
    @property
    def next_seq(self) -> int: ...
    @property
    def prev_crc(self) -> int: ...
    @property
    def proven_seq(self) -> int:
        """The highest durable_seq; 0 if there is none."""
    @property
    def why(self) -> str:
        """seal, closed, end, stop, or the fault at `end`: nothing, bad head, foreign, order, bad records, format."""

def scan_frames(
    data: Buffer,
    *,
    start: int,
    align: int,
    segment: int,
    epoch: int,
    salt: int,
    next_seq: int,
    prev_crc: int,
    stop_seq: int = 0,
    listed: bool = True,
) -> Scanned:
    """Check the frames of a segment from offset `start` on, up to the first that is not sound.

    Args:
        data: the whole segment file.
        stop_seq: stop before this frame; 0: check all frames.
        listed: whether to return the frames as a list, which takes the GIL.
    """

def find_later_frame(
    data: Buffer, *, start: int, align: int, segment: int, epoch: int, salt: int, durable_min: int
) -> tuple[int, int, int] | None:
    """Find the first sound head at or after offset `start` whose durable_seq is at least `durable_min`.

    Returns:
        (offset, seq, durable_seq), or None.
    """

def used_bytes(data: Buffer, *, start: int) -> int:
    """The number of bytes from offset `start` up to the last one that is not zero."""

def send_to_device(fd: int, offset: int, bytes: int) -> None:
    """Write dirty pages of this range to the device, and wait for that. Only a sync makes them durable.

    A later sync then has little to do, and syncs of other files need not wait for it. Does nothing on systems without
    this call.

    Raises:
        OSError: the device failed.
    """

@final
class Flusher:
    """The native thread that makes batches durable, one at a time. It writes nothing after a failure."""

    def __init__(
        self, epoch: int, align: int, fd: int, segment: int, salt: int, end: int, seq: int, prev_crc: int
    ) -> None:
        """Start the thread.

        Args:
            fd, segment, salt: the segment to write to first; `end`: the offset after its last frame.
            seq, prev_crc: the last frame's sequence number, and its head_crc (0: none in this epoch).
        """
    def fileno(self) -> int:
        """An eventfd that becomes readable when the work is done: then call `finish`."""
    def commit(
        self,
        batch: Buffer,
        *,
        fd: int,
        salt: int,
        segment: int,
        offset: int,
        seq: int,
        durable_seq: int,
        record_bytes: int,
        count: int,
    ) -> None:
        """Complete, write and sync the frame in `batch` (writable bytes that do not change until `finish`).

        A batch of another segment than the one before is written after that one is sealed.

        Args:
            fd: of the batch's segment file; `salt`: of its head.
        """
    def sync_durations(self) -> tuple[tuple[int, ...], int]:
        """How long syncs took: counts by the buckets of `fastq._core.LATENCY_BOUNDS_US`, and the sum in us."""
    def mark_closed(self) -> None:
        """Write the closing frame: the server stopped in order. Call `finish` after it, as after `commit`."""
    def finish(self) -> int:
        """Take the result of the work that `fileno` announced.

        Returns:
            The sequence number up to which every frame is durable.
        Raises:
            BlockingIOError: the work is not done yet.
            OSError: a write or a sync failed. The flusher stays failed.
        """
    def stop(self) -> None:
        """End the thread, after any work in progress."""
    @property
    def end(self) -> tuple[int, int]:
        """(segment, offset) after the last frame. Do not call it while a batch is in flight."""
    @property
    def written_bytes(self) -> int: ...
    @property
    def syncs(self) -> int: ...
