"""The cleaner gives the log's disk back: what replay still needs of the oldest segment goes to the tail, the rest goes.

It is due when the log takes more than twice what is live and some slack. Then at least half of the log is not needed,
so a round over all of it writes at most what it frees. It works in small pieces, one a batch, and waits for each: no
commit ever waits for more than a piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastq._core import Core, LiveDocument, LiveJob
from fastq.committer import Committer
from fastq.errors import ApiError
from fastq.log import Log

if TYPE_CHECKING:
    from fastq._core import Place

PIECE_BYTES = 128 << 10
RECORD_BYTES_EXTRA = 256  # of a whole job or document, beside the records in it
RETRY_S = 0.1  # after there was no room
FULL_SEGMENTS_MIN = 3  # behind the newest, for what is cleaned on a full disk to be more than what that takes
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
        behind = self._log.newest_segment - self._core.oldest_segment
        if self._log.disk_full and behind >= FULL_SEGMENTS_MIN:
            return self._log.used_bytes > 2 * self._core.live_bytes  # there is no slack
        return self._log.used_bytes > self.bound_bytes and behind > 0

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

    async def _move(self, piece: list[LiveJob | LiveDocument], frame: memoryview, offset: int) -> None:
        """Append what these records say, and wait until it is durable."""
        elsewhere: list[Place] = []
        for live in piece:
            if isinstance(live, LiveJob):
                elsewhere += [place for place in (live.close_place, live.lease_place) if place is not None]
        read = dict(zip(elsewhere, await self._committer.records(elsewhere), strict=True)) if elsewhere else {}
        await self._room(sum(bytes_of(live) for live in piece))
        for live in piece:
            if isinstance(live, LiveDocument):
                self._core.move_document(self._now_us(), live)
            else:
                at = live.place[1] - offset
                submit = bytes(frame[at : at + live.place[2]])
                close = None if live.close_place is None else read[live.close_place]
                lease = None if live.lease_place is None else read[live.lease_place]
                self._core.move_job(live, submit, close, lease)
            self.moved_bytes += bytes_of(live)
        await self._committer.settled()

    async def _room(self, record_bytes: int) -> None:
        """Wait until so much can be appended. A full disk leaves the cleaner the last segment: it frees more."""
        while True:
            try:
                self._committer.need_room(record_bytes, spare_segments=0, is_cleaner=True)
                return
            except ApiError:
                await asyncio.sleep(RETRY_S)


def bytes_of(live: LiveJob | LiveDocument) -> int:
    """What moving it appends, at most."""
    if isinstance(live, LiveDocument):
        return live.body_bytes + RECORD_BYTES_EXTRA
    places = (live.place, live.close_place, live.lease_place)
    return sum(place[2] for place in places if place is not None) + RECORD_BYTES_EXTRA


def pieces(live: list[LiveJob | LiveDocument]) -> Iterator[list[LiveJob | LiveDocument]]:
    """In order, parts of at most PIECE_BYTES, or of one that is larger."""
    piece: list[LiveJob | LiveDocument] = []
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
