"""A log in memory: for tests, and for programs that embed the engine and need no durability.

Only batches that it reported durable survive `crash`, so tests can use it in place of a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastq._core import FRAME_HEAD_BYTES, Tail
from fastq.errors import BackupRefused, LogDamaged, LogFailed
from fastq.log.protocol import Backup, Opened, Part, Replayer

if TYPE_CHECKING:
    from fastq._core import Batch, RecordPlace

SEGMENT_BYTES = 64 << 20
READY_SEGMENTS = 3  # as a LocalLog has
DATABASE_ID = b"a log in memory."


@dataclass(frozen=True, slots=True)
class Kept:
    """One frame's records."""

    seq: int
    segment: int  # the tail's segment; its frames are dropped together
    count: int
    records: bytes


class MemoryLog:
    """See `fastq.log.protocol.Log`.

    A batch is durable at the loop's next turn, or when `release` says so after `hold`.
    """

    def __init__(
        self,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        align: int = 512,
        cache_bytes: int = 1 << 20,
        database_id: bytes = DATABASE_ID,
    ) -> None:
        """
        Args:
            segment_bytes, align: as for a LocalLog; they only decide which frames share a part.
            cache_bytes: of durable batches that the tail keeps.
            database_id: 16 bytes.
        """
        self.tail = Tail(align, cache_bytes, segment_bytes // 2)
        self.disk_full = False
        """A test may set it: the engine then acts as on a full disk."""
        self.reads_wait = False
        """A test may set it: `read_now` then returns None, as with an empty page cache."""
        self._shape = (segment_bytes, align, cache_bytes)
        self._database_id = database_id
        self._epoch = 0
        self._frames: list[Kept] = []
        self._under_way: Kept | None = None
        self._segment = 0  # the last one offered
        self._held = False
        self._error: BaseException | None = None  # what the next commit fails with
        self._speaks = True
        self._state = "new"

    # --- the protocol -------------------------------------------------------------------------------------------------

    def open(self, replayer: Replayer) -> Opened:
        assert self._state == "new", "a log is opened once"
        replayer.identify(self._database_id)
        self._state = "open"
        self._epoch += 1
        records = 0
        for frame in self._frames:
            if replayer.replay(memoryview(frame.records), frame.seq) != frame.count:
                raise LogDamaged(f"memory: frame {frame.seq}: not {frame.count} records", sound_seq=frame.seq - 1)
            records += frame.count
        self._segment = self._frames[-1].segment if self._frames else 0
        self.tail.resume(self._frames[-1].seq + 1 if self._frames else 1)
        self._make_ready()
        read_bytes = sum(len(frame.records) for frame in self._frames)
        return Opened(self._database_id, self._epoch, len(self._frames), records, read_bytes)

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        assert self._state == "open", "open, then start, once"
        self._state = "started"
        self._on_durable, self._on_failed = on_durable, on_failed
        self._loop = asyncio.get_running_loop()
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def idle(self) -> bool:
        return self._state == "started" and self._under_way is None

    def may_answer(self) -> bool:
        return self._speaks

    async def more_room(self, timeout_s: float) -> None:
        pass

    def commit(self, batch: Batch) -> None:
        assert self.idle, "one batch at a time, between start and close"
        assert not self._frames or batch.seq == self._frames[-1].seq + 1, "the next in sequence"
        records = bytes(memoryview(batch)[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes])
        self._under_way = Kept(batch.seq, batch.segment, batch.count, records)
        self._settled.clear()
        self._make_ready()
        if self._error is not None:
            self._loop.call_soon(self.fail, self._error)
        elif not self._held:
            self._loop.call_soon(self._finish)

    async def read(self, places: Sequence[RecordPlace]) -> list[bytes | OSError]:
        found: list[bytes | OSError] = []
        for place in places:
            try:
                found.append(self._read(place))
            except FileNotFoundError as error:
                found.append(error)
        return found

    def read_now(self, places: list[RecordPlace]) -> list[bytes] | None:
        if self.reads_wait:
            return None
        try:
            return [self._read(place) for place in places]
        except FileNotFoundError:
            return None

    def _read(self, place: RecordPlace) -> bytes:
        if not self.oldest_frame <= place.frame < self.oldest_frame + len(self._frames):
            raise FileNotFoundError(f"frame {place.frame} is not in the log")
        records = self._frames[place.frame - self.oldest_frame].records
        if place.offset + place.bytes > len(records):
            raise FileNotFoundError(f"there is nothing at {place}")
        return records[place.offset : place.offset + place.bytes]

    @property
    def used_bytes(self) -> int:
        segment_bytes, _, _ = self._shape
        return segment_bytes * (self.parts + 1)

    @property
    def oldest_frame(self) -> int:
        return self._frames[0].seq if self._frames else 1

    @property
    def sync_durations(self) -> tuple[tuple[int, ...], int] | None:
        return None

    @property
    def parts(self) -> int:
        return self._frames[-1].segment - self._frames[0].segment if self._frames else 0

    def oldest_part(self) -> Part:
        assert self.parts, "batches go to the only segment"
        first = self._frames[0]
        return Part(first.seq, next(frame.seq for frame in self._frames if frame.segment > first.segment))

    async def frames(self, part: Part) -> AsyncIterator[tuple[int, memoryview | None]]:
        assert part == self.oldest_part(), "only the oldest is read"
        for frame in self._frames[: part.next - part.first]:
            yield frame.seq, memoryview(frame.records)

    def drop_before(self, frame: int) -> None:
        segment = next(kept.segment for kept in self._frames if kept.seq == frame)
        self._frames = [kept for kept in self._frames if kept.segment >= segment]

    def backup(self) -> Backup:
        raise BackupRefused("this server keeps its log in memory: there are no files to copy")

    async def close(self) -> None:
        if self._state == "started":
            await self._settled.wait()
        self._state = "closed"

    # --- for tests ----------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Let no batch become durable from now on: the next one stays in flight."""
        self._held = True

    def release(self) -> None:
        """Let the batch in flight become durable at the loop's next turn, and later batches too."""
        self._held = False
        if self._under_way is not None:
            self._loop.call_soon(self._finish)

    def silence(self) -> None:
        """Act as if another node answered for the queue from now on."""
        self._speaks = False

    def speak(self) -> None:
        """Act as if this node answered for the queue again."""
        self._speaks = True
        self._loop.call_soon(self._on_durable, self.tail.durable_seq)

    def fail_next(self, error: BaseException) -> None:
        """As if the device failed under the next commit."""
        self._error = error

    def fail(self, error: BaseException) -> None:
        """Act as if the device failed. The batch in flight is lost."""
        self._state = "failed"
        self._under_way = None
        self._settled.set()
        failure = LogFailed(f"memory: {error}")
        failure.__cause__ = error
        self._on_failed(failure)

    def crash(self, *, keep_under_way: bool = False) -> MemoryLog:
        """Make the log that the next process finds: all durable batches, and perhaps the one in flight.

        This log is dead from then on and makes no more calls.
        """
        segment_bytes, align, cache_bytes = self._shape
        after = MemoryLog(
            segment_bytes=segment_bytes, align=align, cache_bytes=cache_bytes, database_id=self._database_id
        )
        after._epoch = self._epoch
        after._frames = list(self._frames)
        if keep_under_way and self._under_way is not None:
            after._frames.append(self._under_way)
        self._state = "crashed"
        return after

    # --- inside -------------------------------------------------------------------------------------------------------

    def _make_ready(self) -> None:
        segment_bytes, align, _ = self._shape
        while self.tail.segments_offered < READY_SEGMENTS:
            self._segment += 1
            self.tail.offer_segment(self._segment, align, segment_bytes)

    def _finish(self) -> None:
        frame = self._under_way
        if self._state != "started" or frame is None or self._held:
            return
        self._under_way = None
        self._frames.append(frame)
        self._settled.set()
        self._on_durable(frame.seq)
