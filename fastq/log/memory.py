"""A log in memory: for tests, and for programs that embed the engine and need nothing kept.

What it calls durable survives `crash`, and nothing else does. So it can stand for a disk in tests.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastq._core import FRAME_HEAD_BYTES, Tail
from fastq.errors import BackupRefused, LogFailed
from fastq.log.files.recovery import apply_frame
from fastq.log.protocol import Backup, Opened, Replayer

if TYPE_CHECKING:
    from fastq._core import Batch, Place

SEGMENT_BYTES = 64 << 20
READY_SEGMENTS = 3  # as a LocalLog has
DATABASE_ID = b"a log in memory."


@dataclass(frozen=True, slots=True)
class Kept:
    """One frame's records and where they are."""

    seq: int
    segment: int
    offset: int  # of the first record
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
            segment_bytes, align: as a LocalLog's; they shape places only.
            cache_bytes: of batches kept in the tail besides.
            database_id: 16 bytes.
        """
        self.tail = Tail(align, cache_bytes, segment_bytes // 2)
        self.disk_full = False
        """May be set by a test: the engine then refuses what it would on a full disk."""
        self.reads_wait = False
        """May be set by a test: `read_now` finds nothing then, as if the page cache were empty."""
        self._shape = (segment_bytes, align, cache_bytes)
        self._database_id = database_id
        self._epoch = 0
        self._frames: list[Kept] = []
        self._under_way: Kept | None = None
        self._segment = 0  # the last one offered
        self._held = False
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
            apply_frame(
                replayer.replay, memoryview(frame.records), Path("memory"),
                seq=frame.seq, count=frame.count, number=frame.segment, offset=frame.offset - FRAME_HEAD_BYTES,
            )  # fmt: skip
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

    def commit(self, batch: Batch) -> None:
        assert self.idle, "one batch at a time, between start and close"
        assert not self._frames or batch.seq == self._frames[-1].seq + 1, "the next in sequence"
        records = bytes(memoryview(batch)[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes])
        self._under_way = Kept(batch.seq, batch.segment, batch.offset + FRAME_HEAD_BYTES, batch.count, records)
        self._settled.clear()
        self._make_ready()
        if not self._held:
            self._loop.call_soon(self._finish)

    async def read(self, places: Sequence[Place]) -> list[bytes]:
        return [self._read(place) for place in places]

    def read_now(self, place: Place) -> bytes | None:
        return None if self.reads_wait else self._read(place)

    def _read(self, place: Place) -> bytes:
        segment, offset, length = place
        at = bisect_right(self._frames, (segment, offset), key=lambda frame: (frame.segment, frame.offset)) - 1
        if at < 0:
            raise OSError(f"nothing durable at {place}")
        frame = self._frames[at]
        start = offset - frame.offset
        if frame.segment != segment or start + length > len(frame.records):
            raise OSError(f"nothing durable at {place}")
        return frame.records[start : start + length]

    @property
    def used_bytes(self) -> int:
        segment_bytes, _, _ = self._shape
        return segment_bytes * (self.newest_segment - self.oldest_segment + 1)

    @property
    def oldest_segment(self) -> int:
        return self._frames[0].segment if self._frames else 1

    @property
    def newest_segment(self) -> int:
        return self._frames[-1].segment if self._frames else 1

    async def frames(self, segment: int) -> AsyncIterator[tuple[int, memoryview]]:
        for frame in [frame for frame in self._frames if frame.segment == segment]:
            yield frame.offset, memoryview(frame.records)

    def drop_before(self, segment: int) -> None:
        self._frames = [frame for frame in self._frames if frame.segment >= segment]

    def backup(self) -> Backup:
        raise BackupRefused("this server keeps its log in memory: there are no files to copy")

    async def close(self) -> None:
        if self._state == "started":
            await self._settled.wait()
        self._state = "closed"

    # --- what tests do ------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Let no batch become durable from now on: the next one stays under way."""
        self._held = True

    def release(self) -> None:
        """Let the batch under way become durable at the loop's next turn, and those to come."""
        self._held = False
        if self._under_way is not None:
            self._loop.call_soon(self._finish)

    def silence(self) -> None:
        """As if another node spoke for the queue from now on."""
        self._speaks = False

    def speak(self) -> None:
        """As if this node spoke for the queue again."""
        self._speaks = True
        self._loop.call_soon(self._on_durable, self.tail.durable_seq)

    def fail(self, error: BaseException) -> None:
        """As if the device had failed under the batch under way, which is lost."""
        self._state = "failed"
        self._under_way = None
        self._settled.set()
        failure = LogFailed(f"memory: {error}")
        failure.__cause__ = error
        self._on_failed(failure)

    def crash(self, *, keep_under_way: bool = False) -> MemoryLog:
        """What the next process finds: all that is durable, and the batch under way or not, as a disk may have it.

        This log is dead from then on: it calls nobody any more.
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
