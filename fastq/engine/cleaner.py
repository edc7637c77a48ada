"""The cleaner frees disk: it copies the live records of the log's oldest part to the tail, then drops that part.

It is due when the log takes more than twice its live bytes and some slack. Then at least half of the log is not
needed, so cleaning all of it writes at most what it frees. It moves small pieces, one a commit, and waits until each is
durable: no commit waits for more than one piece.

A round cleans everything that was in the log when the round began. What a round could not free, padding and the ends of
segments, the next one cannot free either: cleaning is due again, and new work waits for it, only when there is more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from fastq._core import (
    CLOSE,
    FRAME_HEAD_BYTES,
    Core,
    LiveDocument,
    LiveJob,
    LiveKey,
    history_of,
    is_sound_record,
    job_id_by_number,
)
from fastq.engine.commits import Commits
from fastq.engine.history import cut, is_full
from fastq.errors import ApiError, LogUnreadable, RecordUnreadable
from fastq.log.protocol import Log

if TYPE_CHECKING:
    from fastq._core import RecordPlace

LOG = logging.getLogger(__name__)

PIECE_BYTES = 128 << 10
PIECE_ALIGNS = 8  # but at least so many times the log's alignment: each piece is padded to it
RECORD_BYTES_EXTRA = 640  # room for what a job may report while it is moved, and for a TRIM
RETRY_S = 0.1  # between two checks for room
FULL_RETRY_S = 1.0  # on a full disk, between two looks at a part that cannot be moved
FULL_SHARE = 1.25  # on a full disk, cleaning begins when the log exceeds its live bytes by a fourth
UNREADABLE_RETRY_S = 5.0  # between two tries while nothing can be read
LAG_BYTES_SHARE = 4  # submits are slowed when the log exceeds its bound by a fourth
OTHERS_SHARE = 16  # a round was only a rewrite if other records took at most this share of it

Live = LiveJob | LiveDocument | LiveKey


class Packed(NamedTuple):
    """What a log took beyond twice its live bytes after a round that could not free more."""

    over_bytes: int  # negative: it took less; 0: nothing is known
    live_bytes: int

    def over_bytes_of(self, live_bytes: int) -> int:
        """The same for a log with so many live bytes, at most."""
        return self.over_bytes * min(live_bytes, self.live_bytes) // self.live_bytes


class Cleaner:
    """One task beside the engine."""

    def __init__(self, core: Core, log: Log, commits: Commits, now_us: Callable[[], int], slack_bytes: int) -> None:
        self._core, self._log, self._commits, self._now_us = core, log, commits, now_us
        self._slack_bytes = slack_bytes
        self._piece_bytes = max(PIECE_BYTES, PIECE_ALIGNS * log.tail.align)
        self._wanted = asyncio.Event()
        self._progress_waiters: set[asyncio.Future[None]] = set()
        self._packed = Packed(0, 1)
        self._round_end = 0  # the round ends when no frame before this one is left
        self._round_begun_bytes = 0  # the tail's `closed_bytes` when it began
        self._round_moved_bytes = 0  # what it wrote itself, padding included
        self.is_behind = False  # the log exceeds its bound so far that new work should wait
        self.moved_bytes = 0
        self.freed_parts = 0

    @property
    def bound_bytes(self) -> int:
        """How much disk the log may take before it is cleaned."""
        live_bytes = self._core.live_bytes
        return 2 * live_bytes + self._slack_bytes + self._packed.over_bytes_of(live_bytes)

    def wake_if_due(self) -> None:
        """Wake the task if cleaning is due. Called before every commit, so it is cheap."""
        live_bytes = self._core.live_bytes
        bound_bytes = 2 * live_bytes + self._slack_bytes
        if self._packed.over_bytes:
            bound_bytes += self._packed.over_bytes_of(live_bytes)
        over_bytes = self._log.used_bytes - bound_bytes
        self.is_behind = over_bytes > 0 and over_bytes > bound_bytes // LAG_BYTES_SHARE
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
        """Clean whenever it is due, until cancelled. While nothing can be read, it tries again."""
        while True:
            await self._wanted.wait()
            while self._is_due():
                try:
                    if not self._log.disk_full or await self._fits_room():
                        await self._clean_oldest()
                    else:
                        await asyncio.sleep(FULL_RETRY_S)  # until a client's ack or delete has made room
                except (OSError, LogUnreadable) as error:
                    LOG.error("the log is not cleaned now: %s", error)
                    await asyncio.sleep(UNREADABLE_RETRY_S)
            self._wanted.clear()

    def _is_due(self) -> bool:
        used_bytes, parts = self._log.used_bytes, self._log.parts
        if parts == 0:
            return False
        if self._log.disk_full:  # there is no slack; but a part too little is in the way of none
            live_bytes = self._core.live_bytes
            packed_bytes = 2 * live_bytes + self._packed.over_bytes_of(live_bytes) if self._packed.over_bytes else 0
            return used_bytes > max(FULL_SHARE * live_bytes, packed_bytes) + used_bytes / (parts + 1)
        return used_bytes > self.bound_bytes

    async def _fits_room(self) -> bool:
        """On a full disk: whether the live records of the oldest part fit into the segments at hand."""
        live_bytes = 0
        async for frame, records in self._log.frames(self._log.oldest_part()):
            found = self._core.live_in({frame}) if records is None else self._core.live_records(records, frame)
            live_bytes += sum(live.record_bytes for live in found)
        padded_bytes = live_bytes + live_bytes // PIECE_ALIGNS + 2 * self._piece_bytes
        return live_bytes == 0 or padded_bytes <= self._log.tail.room_bytes

    async def _clean_oldest(self) -> None:
        if self._core.oldest_frame >= self._round_end:
            self._begin_round()
        part = self._log.oldest_part()
        frames: dict[int, bytes] = {}
        damaged: set[int] = set()
        async for frame, records in self._log.frames(part):
            if records is None:
                damaged.add(frame)
            elif self._core.live_records(records, frame):
                frames[frame] = bytes(records)
            if sum(map(len, frames.values())) >= self._piece_bytes:
                await self._move_live(frames)
                frames.clear()
        await self._move_live(frames)
        if damaged:
            await self._move_from_damaged(damaged)
        await self._room(RECORD_BYTES_EXTRA)
        self._core.trim(self._now_us(), part.next)
        self._round_moved_bytes += self._padded(0)
        await self._commits.durable()
        self._log.drop_before(part.next)
        self.freed_parts += 1
        if part.next >= self._round_end:
            self._end_round()
        self.wake_if_due()  # it may be behind no more
        for freed in self._progress_waiters:
            _finish(freed)

    def _padded(self, record_bytes: int) -> int:
        """What a frame of these records takes on the disk."""
        align = self._log.tail.align
        return (FRAME_HEAD_BYTES + record_bytes) // align * align + align

    def _begin_round(self) -> None:
        self._round_end = self._log.tail.appended_seq + 1
        self._round_begun_bytes, self._round_moved_bytes = self._log.tail.closed_bytes, 0

    def _end_round(self) -> None:
        """Note what the log takes if it was only rewritten, hardly added to, and still exceeds its bound."""
        self._packed = Packed(0, 1)
        other_bytes = self._log.tail.closed_bytes - self._round_begun_bytes - self._round_moved_bytes
        if self._is_due() and other_bytes <= self._round_moved_bytes // OTHERS_SHARE:
            live_bytes = self._core.live_bytes
            self._packed = Packed(self._log.used_bytes - 2 * live_bytes, max(1, live_bytes))

    async def _move_live(self, frames: dict[int, bytes]) -> None:
        """Move the live records of these frames (by sequence number) together: one at a time, each would fill a frame.

        A job that changes after it was read is not moved; the next pass of the loop finds it again.
        """
        while live := [one for frame, records in frames.items() for one in self._core.live_records(records, frame)]:
            for piece in pieces(live, self._piece_bytes):
                await self._move(piece, frames)

    async def _move_from_damaged(self, damaged: set[int]) -> None:
        """Move what is live in frames that cannot be read whole. Each record is read alone, as far as that is possible.

        The others are lost with their frames: memory holds the rest of the job, and documents and keys whole.
        """
        LOG.error("frames %s cannot be read as they were written; what is live is saved", sorted(damaged))
        while live := self._core.live_in(damaged):
            for piece in pieces(live, self._piece_bytes):
                await self._move(piece, {})

    async def _move(self, piece: list[Live], frames: dict[int, bytes]) -> None:
        """Append these live records to the tail, and wait until they are durable."""
        jobs = [live for live in piece if isinstance(live, LiveJob)]
        histories = await self._histories(jobs)
        elsewhere = {live.place: live.seq for live in jobs if live.place.frame not in frames}  # also of edited jobs
        elsewhere |= {live.lease_place: live.seq for live in jobs if live.lease_place is not None}
        read = await self._sound(elsewhere)
        moved_bytes = 0
        for live in piece:
            await self._room(live.record_bytes + RECORD_BYTES_EXTRA)
            if isinstance(live, LiveDocument):
                moved = self._core.move_document(self._now_us(), live)
            elif isinstance(live, LiveKey):
                moved = self._core.move_key(self._now_us(), live)
            else:
                at = live.place.offset
                submit = read.get(live.place)
                if live.place not in elsewhere:
                    submit = frames[live.place.frame][at : at + live.place.bytes]
                lease = None if live.lease_place is None else read.get(live.lease_place)
                moved = self._core.move_job(live, submit, lease, histories[live.seq])
            moved_bytes += live.record_bytes if moved else 0
        self.moved_bytes += moved_bytes
        self._round_moved_bytes += self._padded(moved_bytes)
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
                histories[live.seq] += (await self._sound({live.close_place: live.seq})).values()
        return histories

    async def _sound(self, places: dict[RecordPlace, int]) -> dict[RecordPlace, bytes]:
        """The records of jobs (by number) at these places that are as they were written. Logs which are not."""
        found: dict[RecordPlace, bytes] = {}
        for (place, seq), record in zip(places.items(), await self._commits.read(list(places)), strict=True):
            if isinstance(record, bytes) and is_sound_record(record):
                found[place] = record
                continue
            reason = "its check does not fit" if isinstance(record, bytes) else record
            job_id = job_id_by_number(self._core, seq)
            LOG.error("job %s: the record at %s cannot be read and is lost: %s", job_id, place, reason)
        return found

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


def pieces(live: list[Live], piece_bytes: int) -> Iterator[list[Live]]:
    """Split into pieces of at most `piece_bytes`, in order. A larger record is a piece of its own."""
    piece: list[Live] = []
    taken_bytes = 0
    for record in live:
        if piece and taken_bytes + record.record_bytes > piece_bytes:
            yield piece
            piece, taken_bytes = [], 0
        piece.append(record)
        taken_bytes += record.record_bytes
    if piece:
        yield piece
