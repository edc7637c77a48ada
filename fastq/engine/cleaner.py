"""The cleaner gives the log's disk back: what replay still needs of the oldest part goes to the tail, the rest goes.

It is due when the log takes more than twice what is live and some slack. Then at least half of the log is not needed,
so a round over all of it writes at most what it frees. It works in small pieces, one a batch, and waits for each: no
commit ever waits for more than a piece.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastq._core import CLOSE, Core, LiveDocument, LiveJob, LiveKey, history_of, job_id_by_number
from fastq.engine.commits import Commits
from fastq.engine.history import cut, is_full
from fastq.errors import ApiError, LogDamaged
from fastq.log.protocol import Log

if TYPE_CHECKING:
    from fastq._core import RecordPlace

LOG = logging.getLogger(__name__)

PIECE_BYTES = 128 << 10
RECORD_BYTES_EXTRA = 640  # of a whole job, document or key, beside the records in it
RETRY_S = 0.1  # after there was no room
FULL_PARTS_MIN = 3  # that can go, for what is cleaned on a full disk to be more than what that takes
LAG_BYTES_SHARE = 4  # work is slowed when the log is over its bound by a fourth of it

Live = LiveJob | LiveDocument | LiveKey


class Cleaner:
    """One task beside the engine."""

    def __init__(self, core: Core, log: Log, commits: Commits, now_us: Callable[[], int], slack_bytes: int) -> None:
        self._core, self._log, self._commits, self._now_us = core, log, commits, now_us
        self._slack_bytes = slack_bytes
        self._wanted = asyncio.Event()
        self._hopeful: set[asyncio.Future[None]] = set()  # who waits for a part to be given back
        self.is_behind = False  # new work should wait: the log takes far more than it may
        self.moved_bytes = 0
        self.freed_parts = 0

    @property
    def bound_bytes(self) -> int:
        """What the log may take."""
        return 2 * self._core.live_bytes + self._slack_bytes

    def look(self) -> None:
        """Wake the task if there is something to do. Cheap: called before every commit."""
        over_bytes = self._log.used_bytes - 2 * self._core.live_bytes - self._slack_bytes
        self.is_behind = over_bytes > 0 and over_bytes > self.bound_bytes // LAG_BYTES_SHARE
        if (over_bytes > 0 or self._log.disk_full) and self._is_due():
            self._wanted.set()

    async def progress(self, timeout_s: float) -> None:
        """Return when a part was given back, or after the time. Needs no task around it: the hot lane has none."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _end, over)
        self._hopeful.add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._hopeful.discard(over)

    async def run(self) -> None:
        """Clean whenever it is due, until cancelled. Raises what the device does: the log cannot be read."""
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
        self.look()  # it may be behind no more
        for over in self._hopeful:
            _end(over)

    async def _move_live(self, frames: dict[int, bytes]) -> None:
        """Move what is live in these frames, by sequence number: together, or each would fill a frame of its own again.

        A job that changes between being read and being moved stays where it is, and is met again.
        """
        while live := [one for frame, records in frames.items() for one in self._core.live_records(records, frame)]:
            for piece in pieces(live):
                await self._move(piece, frames)

    async def _move(self, piece: list[Live], frames: dict[int, bytes]) -> None:
        """Append what these records of some frames say, and wait until it is durable."""
        jobs = [live for live in piece if isinstance(live, LiveJob)]
        histories = await self._histories(jobs)
        elsewhere = [live.place for live in jobs if live.place.frame not in frames]  # of those that were edited
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
        """Of each job by number, the records of its history that are kept: newest first, at last its CLOSE record."""
        histories: dict[int, list[bytes]] = {live.seq: [] for live in jobs}
        at = {live.seq: live.history_place for live in jobs if live.history_place is not None}
        while at:  # one record further back in all of them at a time
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
        """What `history_of` finds at these places, by job number.

        A link that leads nowhere ends that job's history. No start and no move makes one; should a defect have written
        it, the rest of the job is whole, and all others are: the server goes on, and says which history is cut.
        """
        try:
            return [history_of(record) for record in await self._commits.records(list(at.values()))]
        except (FileNotFoundError, LogDamaged):
            pass
        found: list[tuple[list[bytes], RecordPlace | None]] = []
        for seq, place in at.items():
            try:
                (record,) = await self._commits.records([place])
                found.append(history_of(record))
            except (FileNotFoundError, LogDamaged) as error:
                job_id = job_id_by_number(self._core, seq)
                LOG.error("job %s: its history before %s cannot be read and is cut there: %s", job_id, place, error)
                found.append(([], None))
        return found

    async def _room(self, record_bytes: int) -> None:
        """Wait until so much can be appended. A full disk leaves the cleaner the last segment: it frees more."""
        while True:
            try:
                self._commits.need_room(record_bytes, spare_segments=0, is_cleaner=True)
                return
            except ApiError:
                await asyncio.sleep(RETRY_S)


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def bytes_of(live: Live) -> int:
    """What moving it appends at most, but for a job's history."""
    if isinstance(live, LiveDocument):
        return live.body_bytes + RECORD_BYTES_EXTRA
    if isinstance(live, LiveKey):
        return live.record_bytes
    places = (live.place, live.lease_place)
    return sum(place.bytes for place in places if place is not None) + RECORD_BYTES_EXTRA


def pieces(live: list[Live]) -> Iterator[list[Live]]:
    """In order, parts of at most PIECE_BYTES, or of one that is larger."""
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
