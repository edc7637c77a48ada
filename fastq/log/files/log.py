"""The log in local files."""

from __future__ import annotations

import asyncio
import os
import secrets
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from fastq._core import Tail
from fastq.errors import BackupRefused, LogFailed
from fastq.log.files._flusher import FRAME_HEAD_BYTES, Flusher
from fastq.log.files._index import FrameIndex, Span
from fastq.log.files.fence import read_fence
from fastq.log.files.opening import Begun, begin
from fastq.log.files.places import RUN_BYTES_MAX, SpanReader
from fastq.log.files.ready import ReadySegments
from fastq.log.files.recovery import (
    Ending,
    Found,
    apply_frame,
    check_oldest,
    frame_bytes,
    read_log,
    records_of,
)
from fastq.log.files.segments import SegmentHead, lock_directory, make_directory
from fastq.log.files.sizes import SMALL_SEGMENT_BYTES, segment_sizes, size_in_use
from fastq.log.files.tools.backup import LiveBackup, LogCopy
from fastq.log.protocol import Opened, Part, Replay, Replayer

if TYPE_CHECKING:
    from fastq._core import Batch, RecordPlace

SEGMENT_BYTES = 64 << 20
SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX = 16 << 10, 1 << 31
ALIGN = 4096
CACHE_BYTES = 64 << 20
BATCH_BYTES_MAX = 4 << 20
READERS = 4  # threads that read records back

Read = list[bytes | OSError]


class LocalLog:
    """Segments in a directory of their own. See `fastq.log.protocol.Log`; docs/log-format.md describes the files."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        small_segment_bytes: int = SMALL_SEGMENT_BYTES,
        align: int = ALIGN,
        cache_bytes: int = CACHE_BYTES,
        zero_cleaned: bool = False,
    ) -> None:
        """
        Args:
            segment_bytes: size of new segments in a log in use; a multiple of `align` from 16 KiB to 2 GiB.
            small_segment_bytes: the same in a new log; segments grow with use. Not used above `segment_bytes`.
            align: bytes; frames begin and end at multiples of it. A power of two from 512 to 65,536.
            cache_bytes: size of the cache of newly written batches.
            zero_cleaned: overwrite segments with zeros before they are deleted.
        """
        self._segment_sizes = segment_sizes(small_segment_bytes, segment_bytes)
        for size in self._segment_sizes:
            if not SEGMENT_BYTES_MIN <= size <= SEGMENT_BYTES_MAX or size % align:
                raise ValueError(f"segment_bytes must be a multiple of {align} from 16 KiB to 2 GiB, not {size}")
        self.tail = Tail(align, cache_bytes, min(BATCH_BYTES_MAX, self._segment_sizes[0] // 2))
        self._directory = Path(directory).absolute()
        self._align = align
        self._zero_cleaned = zero_cleaned
        self._lock_fd = -1
        self._files: dict[int, tuple[int, int, int]] = {}  # number -> descriptor, salt, bytes: of writable segments
        self._index = FrameIndex()
        self._spans = SpanReader(self._directory)
        self._reading: dict[asyncio.Future[Read], int] = {}  # reads in flight: the oldest segment of each
        self._dropping = 0  # segments before it are to be deleted
        self._begun: Begun | None = None
        self._unsealed: list[Ending] = []
        self._opened_seq = self._durable_seq = 0  # the last durable frame at the opening, and now
        self._segment = 0  # the last batch's segment
        self._sizes: dict[int, int] = {}  # of segments with frames, and of empty ones between them
        self._largest_bytes = 0  # of a segment that the opening found
        self.used_bytes = 0  # in all
        self._has_left = False  # a batch went to another segment: earlier files may be closed
        self._loop: asyncio.AbstractEventLoop
        self._flusher: Flusher | None = None
        self._ready: ReadySegments | None = None
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="fastq-read")
        self._backup: LiveBackup | None = None  # the last one
        self._settled: asyncio.Future[None] | None = None  # what `close` waits for
        self.idle = False
        self._busy = False
        self._closed = False
        self._failed: BaseException | None = None

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, replayer: Replayer) -> Opened:
        make_directory(self._directory)
        self._lock_fd = lock_directory(self._directory)
        try:
            found = read_log(self._directory, replayer.replay, replayer.identify)
            self._largest_bytes, self.used_bytes = found.largest_bytes, sum(found.sizes.values())
            begun = begin(
                self._directory, found, sizes=self._segment_sizes, segment_bytes=self._next_bytes(), align=self._align,
                draw=secrets.token_bytes,
            )  # fmt: skip
            self._files[begun.head.number] = (begun.fd, begun.head.salt, begun.head.file_bytes)
            if found.database_id is None:
                replayer.identify(begun.head.database_id)
            opened = self._opened(found, begun, replayer.replay)
            check_oldest(self._directory, found, replayer.oldest_frame)
            return opened
        except BaseException:
            self._release()
            raise

    def _opened(self, found: Found, begun: Begun, replay: Replay) -> Opened:
        """Replay the rewritten frames, and let the tail begin after them."""
        head = begun.head
        self._index = found.index
        for frame, offset in begun.rewritten:
            apply_frame(
                replay, memoryview(frame.records), self._directory,
                seq=frame.seq, count=frame.count, number=head.number, offset=offset,
            )  # fmt: skip
            self._index.add(frame.seq, head.number, offset)
            found.frames += 1
            found.records += frame.count
        self._begun, self._unsealed, self._segment = begun, found.unsealed, head.number
        self._sizes = {**found.sizes, head.number: head.file_bytes}
        self.used_bytes = sum(self._sizes.values())
        self._opened_seq = self._durable_seq = found.next_seq - 1
        self.tail.resume(found.next_seq)
        self.tail.offer_segment(head.number, begun.end, head.file_bytes)
        return Opened(
            database_id=head.database_id,
            epoch=head.epoch,
            frames=found.frames,
            records=found.records,
            bytes_read=found.bytes_read,
            bytes_cut=len(found.torn),
            fence=read_fence(self._directory),
            notes=begun.notes,
        )

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        begun = self._begun
        assert begun is not None and self._flusher is None, "open, then start, once"
        self._on_durable, self._on_failed = on_durable, on_failed
        self._loop = asyncio.get_running_loop()
        self._flusher = Flusher(
            epoch=begun.head.epoch, align=self._align, fd=begun.fd, segment=begun.head.number, salt=begun.head.salt,
            end=begun.end, seq=self._durable_seq, prev_crc=begun.prev_crc,
        )  # fmt: skip
        self._ready = ReadySegments(
            self._directory, self.tail, begun.head, min(self._sizes), self._unsealed,
            self._segment_sizes, self._made, self._fail, secrets.token_bytes, self._zero_cleaned,
        )  # fmt: skip
        self._loop.add_reader(self._flusher.fileno(), self._finished)
        self._spans.open_now(self._sizes)
        self.idle = True
        self._ready.start_due(None, self._next_bytes())

    def _next_bytes(self) -> int:
        """The size that the next segment should have."""
        return size_in_use(self._segment_sizes, self.used_bytes, self._largest_bytes)

    def _made(self, head: SegmentHead, fd: int) -> None:
        self._files[head.number] = (fd, head.salt, head.file_bytes)

    # --- commits ------------------------------------------------------------------------------------------------------

    @property
    def disk_full(self) -> bool:
        return self._ready is not None and self._ready.disk_full

    @property
    def sync_durations(self) -> tuple[tuple[int, ...], int] | None:
        return None if self._flusher is None else self._flusher.sync_durations()

    async def more_room(self, timeout_s: float) -> None:
        if self._ready is not None:
            await self._ready.more(timeout_s)

    def may_answer(self) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        assert self._flusher is not None and self.idle, "one batch at a time, between start and close"
        fd, salt, file_bytes = self._files[batch.segment]
        if batch.segment != self._segment:
            self._segment = batch.segment
            self._sizes[batch.segment] = file_bytes
            self.used_bytes += file_bytes
            self._has_left = True
            self._spans.share(batch.segment, self._files[batch.segment][0])
        self._index.add(batch.seq, batch.segment, batch.offset)
        self._busy, self.idle = True, False
        self._flusher.commit(
            batch, fd=fd, salt=salt, segment=batch.segment, offset=batch.offset, seq=batch.seq,
            durable_seq=batch.durable_seq, record_bytes=batch.record_bytes, count=batch.count,
        )  # fmt: skip

    def _finished(self) -> None:
        """Take the result of the flusher's work."""
        assert self._flusher is not None and self._ready is not None
        try:
            seq = self._flusher.finish()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        self._busy, self.idle = False, not self._closed and self._failed is None
        while self._has_left and (number := min(self._files)) < self._segment:
            os.close(self._files.pop(number)[0])
        self._has_left = False
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None
        if seq > self._durable_seq and self._failed is None:
            self._durable_seq = seq
            self._on_durable(seq)
        durable_seq = self._durable_seq if self._durable_seq > self._opened_seq else None
        self._ready.start_due(durable_seq, self._next_bytes())

    def _fail(self, error: OSError) -> None:
        """Write and answer nothing from here on: a failed sync may have lost data."""
        failure = LogFailed(f"{self._directory}: {error.strerror}")
        failure.__cause__ = error
        self._busy = self.idle = False
        if self._settled is not None:
            self._settled.set_exception(failure)
            self._settled = None
        if self._failed is None:
            self._failed = failure
            self._on_failed(failure)

    async def read(self, places: Sequence[RecordPlace]) -> Read:
        spans = [self._span(place) for place in places]
        there = [span for span in spans if isinstance(span, Span)]
        if not there:
            return [span for span in spans if isinstance(span, OSError)]
        read = iter(await self._read_spans(there))
        return [next(read) if isinstance(span, Span) else span for span in spans]

    def _span(self, place: RecordPlace) -> Span | OSError:
        try:
            return self._index.span(place)
        except FileNotFoundError as error:
            return error

    def _read_spans(self, spans: list[Span]) -> asyncio.Future[Read]:
        """Read them off the loop. Their segments stay meanwhile."""
        reading = self._loop.run_in_executor(self._readers, self._spans.read_many, spans)
        self._reading[reading] = min(spans).segment
        reading.add_done_callback(self._has_read)
        return reading

    def read_now(self, places: list[RecordPlace]) -> list[bytes] | None:
        return self._index.read_now(places, self._spans.files)

    def _has_read(self, reading: asyncio.Future[Read]) -> None:
        if self._reading.pop(reading) < self._dropping:
            self._drop()

    # --- dropping what is not needed ----------------------------------------------------------------------------------

    @property
    def oldest_frame(self) -> int:
        return self._index.first_frame

    @property
    def parts(self) -> int:
        return self._index.segments_before(self._segment)

    def oldest_part(self) -> Part:
        assert self.parts, "batches go to the only segment"
        _, frames = self._index.oldest()
        return Part(frames.start, frames.stop)

    async def frames(self, part: Part) -> AsyncIterator[tuple[int, memoryview | None]]:
        assert part == self.oldest_part(), "only the oldest is read"
        segment, _ = self._index.oldest()
        frames = self._index.frames_of_oldest()
        # The last frame's end is in its head; if that cannot be read, neither can the frame.
        (last,) = await self._read_spans([Span(segment, frames[-1][1], FRAME_HEAD_BYTES)])
        end = frames[-1][1] + (frame_bytes(last) if isinstance(last, bytes) else FRAME_HEAD_BYTES)
        spans = [
            Span(segment, offset, next_offset - offset)
            for (_, offset), (_, next_offset) in zip(frames, [*frames[1:], (0, end)], strict=True)
        ]
        while spans:
            n = max(1, bisect_right(spans, Span(segment, spans[0].offset + RUN_BYTES_MAX, 0)))
            read = await self._read_spans(spans[:n])
            for (seq, _), data in zip(frames, read, strict=False):
                yield seq, records_of(data, segment, seq) if isinstance(data, bytes) else None
            del spans[:n], frames[:n]

    def drop_before(self, frame: int) -> None:
        segment = self._index.segment_of(frame)
        self._index.forget_before(segment)
        for number in [number for number in self._sizes if number < segment]:
            self.used_bytes -= self._sizes.pop(number)
        self._dropping = segment
        self._drop()

    def _drop(self) -> None:
        """Delete segments that are due, except those that a read in flight needs."""
        assert self._ready is not None
        before = min([self._dropping, *self._reading.values()])
        self._spans.forget_before(before)
        self._ready.drop_before(before)

    # --- backup -------------------------------------------------------------------------------------------------------

    def backup(self) -> LiveBackup:
        assert self._ready is not None
        if self._backup is not None and not self._backup.is_closed:
            raise BackupRefused("another backup is running: try again when it has ended")
        ready, last_seq, first = self._ready, self._durable_seq, min(self._sizes)
        ready.hold(first)
        self._backup = LiveBackup(
            lambda: LogCopy(self._directory, first, last_seq), last_seq, self._readers, ready.hold, self._must_not_hold
        )
        return self._backup

    def _must_not_hold(self) -> str:
        """Why a backup must end: its segments must not keep a disk full. Empty: it may go on."""
        assert self._ready is not None
        return "the disk is full" if self.disk_full and self._ready.held_back else ""

    # --- closing ------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the log. Raises LogFailed if the last batch or the closing frame could not be written."""
        if self._closed:
            return
        self._closed, self.idle = True, False
        try:
            if self._flusher is not None and self._failed is None:
                await self._settle()
                if self._durable_seq > self._opened_seq:
                    self._busy = True
                    self._flusher.mark_closed()
                    await self._settle()
        finally:
            if self._ready is not None:
                await self._ready.close()
            self._release()

    async def _settle(self) -> None:
        """Wait for the flusher."""
        if self._busy:
            self._settled = self._loop.create_future()
            await self._settled

    def _release(self) -> None:
        """Release all resources, the lock last."""
        self._readers.shutdown()
        if self._flusher is not None:
            self._loop.remove_reader(self._flusher.fileno())
            self._flusher.stop()
        for fd, _, _ in self._files.values():
            os.close(fd)
        self._files.clear()
        self._spans.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
