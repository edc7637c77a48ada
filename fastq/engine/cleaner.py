"""The cleaner frees disk: it copies the live records of the log's oldest part to the tail, then drops that part.

It is due when the log takes more than twice its live bytes and some slack. Then at least half of the log is not
needed, so cleaning all of it writes at most what it frees. It moves small pieces, one a commit, and waits until each is
durable: no commit waits for more than one piece.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastq._core import CLOSE, Core, LiveDocument, LiveJob, LiveKey, history_of, job_id_by_number
from fastq.engine.commits import Commits
from fastq.engine.history import cut, is_full
from fastq.errors import ApiError, RecordUnreadable
from fastq.log.protocol import Log

if TYPE_CHECKING:
    from fastq._core import RecordPlace

LOG = logging.getLogger(__name__)

PIECE_BYTES = 128 << 10
RECORD_BYTES_EXTRA = 640  # a moved job, document or key adds at most this to the records in it
RETRY_S = 0.1  # between two checks for room
FULL_PARTS_MIN = 3  # on a full disk, cleaning fewer parts may write more than it frees
LAG_BYTES_SHARE = 4  # submits are slowed when the log exceeds its bound by a fourth

Live = LiveJob | LiveDocument | LiveKey


class Cleaner:
    """One task beside the engine."""

    def __init__(self, core: Core, log: Log, commits: Commits, now_us: Callable[[], int], slack_bytes: int) -> None:
        self._core, self._log, self._commits, self._now_us = core, log, commits, now_us
        self._slack_bytes = slack_bytes
        self._wanted = asyncio.Event()
        self._progress_waiters: set[asyncio.Future[None]] = set()
        self.is_behind = False  # the log exceeds its bound so far that new work should wait
        self.moved_bytes = 0
        self.freed_parts = 0

    @property
    def bound_bytes(self) -> int:
        """How much disk the log may take before it is cleaned."""
        return 2 * self._core.live_bytes + self._slack_bytes

    def wake_if_due(self) -> None:
        """Wake the task if cleaning is due. Called before every commit, so it is cheap."""
        over_bytes = self._log.used_bytes - 2 * self._core.live_bytes - self._slack_bytes
        self.is_behind = over_bytes > 0 and over_bytes > self.bound_bytes // LAG_BYTES_SHARE
        if (over_bytes > 0 or self._log.disk_full) and self._is_due():
            self._wanted.set()

    async def progress(self, timeout_s: float) -> None:
        """Return when a part was freed, or after the timeout. Runs also outside of a task: the hot lane has none."""
        loop = asyncio.get_running_loop()
        freed: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _finish, freed)
        self._progress_waiters.add(freed)
        try:
            await freed
        finally:
            timer.cancel()
            self._progress_waiters.discard(freed)

    async def run(self) -> None:
        """Clean whenever it is due, until cancelled. Raises OSError, LogDamaged if the log cannot be read."""
        while True:
            await self._wanted.wait()
            while self._is_due():
                await self._clean_oldest()
            self._wanted.clear()

    def _is_due(self) -> bool:
        if self._log.disk_full and self._log.parts >= FULL_PARTS_MIN:
            return self._log.used_bytes > 2 * self._core.live_bytes  # there is no slack
        return self._log.used_bytes > self.bound_bytes and self._log.parts > 0

    async def _clean_oldest(self) -> None:
        part = self._log.oldest_part()
        frames: dict[int, bytes] = {}
        async for frame, records in self._log.frames(part):
            if self._core.live_records(records, frame):
                frames[frame] = bytes(records)
            if sum(map(len, frames.values())) >= PIECE_BYTES:
                await self._move_live(frames)
                frames.clear()
        await self._move_live(frames)
        await self._room(RECORD_BYTES_EXTRA)
        self._core.trim(self._now_us(), part.next)
        await self._commits.durable()
        self._log.drop_before(part.next)
        self.freed_parts += 1
        self.wake_if_due()  # it may be behind no more
        for freed in self._progress_waiters:
            _finish(freed)

    async def _move_live(self, frames: dict[int, bytes]) -> None:
        """Move the live records of these frames (by sequence number) together: one at a time, each would fill a frame.

        A job that changes after it was read is not moved; the next pass of the loop finds it again.
        """
        while live := [one for frame, records in frames.items() for one in self._core.live_records(records, frame)]:
            for piece in pieces(live):
                await self._move(piece, frames)

    async def _move(self, piece: list[Live], frames: dict[int, bytes]) -> None:
        """Append these live records to the tail, and wait until they are durable."""
        jobs = [live for live in piece if isinstance(live, LiveJob)]
        histories = await self._histories(jobs)
        elsewhere = [live.place for live in jobs if live.place.frame not in frames]  # edited jobs
        elsewhere += [live.lease_place for live in jobs if live.lease_place is not None]
        read = dict(zip(elsewhere, await self._commits.records(elsewhere), strict=True)) if elsewhere else {}
        for live in piece:
            record_bytes = bytes_of(live)
            if isinstance(live, LiveJob):
                record_bytes += sum(map(len, histories[live.seq]))
            await self._room(record_bytes)
            self.moved_bytes += record_bytes
            if isinstance(live, LiveDocument):
                self._core.move_document(self._now_us(), live)
            elif isinstance(live, LiveKey):
                self._core.move_key(self._now_us(), live)
            else:
                at = live.place.offset
                submit = read.get(live.place) or frames[live.place.frame][at : at + live.place.bytes]
                lease = None if live.lease_place is None else read[live.lease_place]
                self._core.move_job(live, submit, lease, histories[live.seq])
        await self._commits.durable()

    async def _histories(self, jobs: list[LiveJob]) -> dict[int, list[bytes]]:
        """The kept history of each job, by job number: newest first, with the CLOSE record that holds its result."""
        histories: dict[int, list[bytes]] = {live.seq: [] for live in jobs}
        at = {live.seq: live.history_place for live in jobs if live.history_place is not None}
        while at:  # one link back in all of them at a time
            before: dict[int, RecordPlace | None] = {}
            for seq, found in zip(at, await self._linked(at), strict=True):
                records, previous = found
                histories[seq] += records
                before[seq] = previous if not is_full(histories[seq]) else None
            at = {seq: place for seq, place in before.items() if place is not None}
        for live in jobs:
            histories[live.seq] = cut(histories[live.seq])
            if live.close_place is not None and not any(record[0] == CLOSE for record in histories[live.seq]):
                histories[live.seq] += await self._commits.records([live.close_place])
        return histories

    async def _linked(self, at: dict[int, RecordPlace]) -> list[tuple[list[bytes], RecordPlace | None]]:
        """`history_of` each place, by job number.

        A broken link ends that job's history. Only a defect writes one. The rest of the job and all other jobs are
        intact, so the server goes on and logs which history is cut.
        """
        try:
            records = await self._commits.records(list(at.values()))
            return [history_of(record, seq) for seq, record in zip(at, records, strict=True)]
        except (FileNotFoundError, RecordUnreadable):
            pass
        found: list[tuple[list[bytes], RecordPlace | None]] = []
        for seq, place in at.items():
            try:
                (record,) = await self._commits.records([place])
                found.append(history_of(record, seq))
            except (FileNotFoundError, RecordUnreadable) as error:
                job_id = job_id_by_number(self._core, seq)
                LOG.error("job %s: history at %s cannot be read; older events are dropped: %s", job_id, place, error)
                found.append(([], None))
        return found

    async def _room(self, record_bytes: int) -> None:
        """Wait until `record_bytes` fit. On a full disk the last segment is the cleaner's: cleaning frees more."""
        while True:
            try:
                self._commits.need_room(record_bytes, spare_segments=0, is_cleaner=True)
                return
            except ApiError:
                await asyncio.sleep(RETRY_S)


def _finish(freed: asyncio.Future[None]) -> None:
    if not freed.done():
        freed.set_result(None)


def bytes_of(live: Live) -> int:
    """An upper bound of the bytes that moving it appends, without a job's history."""
    if isinstance(live, LiveDocument):
        return live.body_bytes + RECORD_BYTES_EXTRA
    if isinstance(live, LiveKey):
        return live.record_bytes
    places = (live.place, live.lease_place)
    return sum(place.bytes for place in places if place is not None) + RECORD_BYTES_EXTRA


def pieces(live: list[Live]) -> Iterator[list[Live]]:
    """Split into pieces of at most PIECE_BYTES, in order. A larger record is a piece of its own."""
    piece: list[Live] = []
    piece_bytes = 0
    for record in live:
        record_bytes = bytes_of(record)
        if piece and piece_bytes + record_bytes > PIECE_BYTES:
            yield piece
            piece, piece_bytes = [], 0
        piece.append(record)
        piece_bytes += record_bytes
    if piece:
        yield piece
