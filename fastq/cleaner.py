"""The cleaner gives the log's disk back: what replay still needs of the oldest segment goes to the tail, the rest goes.

It is due when the log takes more than twice what is live and some slack. Then at least half of the log is not needed,
so a round over all of it writes at most what it frees. It works in small pieces, one a batch, and waits for each: no
commit ever waits for more than a piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastq._core import Core, LiveDocument, LiveJob, LiveKey
from fastq.committer import Committer
from fastq.errors import ApiError
from fastq.history import history_records
from fastq.log import Log

if TYPE_CHECKING:
    from fastq._core import Place

Live = LiveJob | LiveDocument | LiveKey

PIECE_BYTES = 128 << 10
ANSWER_BYTES_MAX = 256 << 10  # more than the record of any remembered answer
RECORD_BYTES_EXTRA = 512  # of a whole job or document, beside the records in it
RETRY_S = 0.1  # after there was no room
LAG_BYTES_SHARE = 4  # work is slowed when the log is over its bound by a fourth of it


class Cleaner:
    """One task beside the engine."""

    def __init__(self, core: Core, log: Log, committer: Committer, now_us: Callable[[], int], slack_bytes: int) -> None:
        self._core, self._log, self._committer, self._now_us = core, log, committer, now_us
        self._slack_bytes = slack_bytes
        self._wanted = asyncio.Event()
        self._progress = asyncio.Event()
        self.moved_bytes = 0
        self.freed_segments = 0

    @property
    def bound_bytes(self) -> int:
        """What the log may take."""
        return 2 * self._core.live_bytes + self._slack_bytes

    @property
    def is_behind(self) -> bool:
        """Whether new work should wait: the log takes far more than it may."""
        bound = self.bound_bytes
        return self._log.used_bytes > bound + bound // LAG_BYTES_SHARE

    def look(self) -> None:
        """Wake the task if there is something to do. Cheap: called after every batch."""
        if self._is_due():
            self._wanted.set()

    async def progress(self, timeout_s: float) -> None:
        """Return when a segment was given back, or after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._progress.wait()
        except TimeoutError:
            pass

    async def run(self) -> None:
        """Clean whenever it is due, until cancelled. Raises what the device does: the log cannot be read."""
        while True:
            await self._wanted.wait()
            while self._is_due():
                await self._clean_oldest()
            self._wanted.clear()

    def _is_due(self) -> bool:
        return self._log.used_bytes > self.bound_bytes and self._core.oldest_segment < self._log.newest_segment

    async def _clean_oldest(self) -> None:
        segment = self._core.oldest_segment
        async for offset, records in self._log.frames(segment):
            # A job that changes between being read and being moved stays where it is, and is met again.
            while live := self._core.live_records(records, segment, offset):
                for piece in pieces(live):
                    await self._move(piece, records, offset)
        await self._room(RECORD_BYTES_EXTRA)
        self._core.trim(self._now_us(), segment + 1)
        await self._committer.settled()
        self._log.drop_before(segment + 1)
        self.freed_segments += 1
        self._progress.set()
        self._progress.clear()

    async def _move(self, piece: list[Live], frame: memoryview, offset: int) -> None:
        """Append what these records say, and wait until it is durable."""
        jobs = [live for live in piece if isinstance(live, LiveJob)]
        elsewhere = {place for job in jobs for place in (job.close_place, job.lease_place, job.history_place) if place}
        places = list(elsewhere)
        read = dict(zip(places, await self._committer.records(places), strict=True)) if places else {}
        for live in piece:
            if isinstance(live, LiveJob):
                at = live.place[1] - offset
                await self._move_job(live, bytes(frame[at : at + live.place[2]]), read)
            elif isinstance(live, LiveDocument):
                await self._room(bytes_of(live))
                self._core.move_document(self._now_us(), live)
            else:
                await self._room(ANSWER_BYTES_MAX)
                self._core.move_key(self._now_us(), live)
            self.moved_bytes += bytes_of(live)
        await self._committer.settled()

    async def _move_job(self, live: LiveJob, submit: bytes, read: dict[Place, bytes]) -> None:
        lease = None if live.lease_place is None else read[live.lease_place]
        newest = None if live.history_place is None else read[live.history_place]
        history = await history_records(self._committer, newest)
        if live.close_place is not None and (close := read[live.close_place]) not in history:
            history.append(close)
        await self._room(len(submit) + len(lease or b"") + sum(map(len, history)) + RECORD_BYTES_EXTRA)
        self._core.move_job(live, submit, lease, history)

    async def _room(self, record_bytes: int) -> None:
        """Wait until so much can be appended. A full disk leaves the cleaner the last segment: it frees more."""
        while True:
            try:
                self._committer.need_room(record_bytes, spare_segments=0)
                return
            except ApiError:
                await asyncio.sleep(RETRY_S)


def bytes_of(live: Live) -> int:
    """What moving it appends, at most."""
    if isinstance(live, LiveDocument):
        return live.body_bytes + RECORD_BYTES_EXTRA
    if isinstance(live, LiveKey):
        return RECORD_BYTES_EXTRA
    places = (live.place, live.close_place, live.lease_place)
    return sum(place[2] for place in places if place is not None) + RECORD_BYTES_EXTRA


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
