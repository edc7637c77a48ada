"""Between the engine and the log: batches go when the log is free, and everybody hears when theirs is durable."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fastq.errors import ApiError, BodyTooLarge, DiskFull, Overloaded
from fastq.log.protocol import Log

if TYPE_CHECKING:
    from fastq._core import Place

CLEANER_SEGMENTS = 1  # of the ready ones on a full disk: what nobody but the cleaner may begin
UNSYNCED_BYTES_MAX = 64 << 20  # past this, commands are refused with 503 until the disk has caught up


class Committer:
    """Group commit without a timer: while one batch is being synced the next fills, and goes when the sync returns."""

    unsynced_bytes_max = UNSYNCED_BYTES_MAX

    def __init__(self, log: Log, before_commit: Callable[[], None], on_failed: Callable[[BaseException], None]) -> None:
        """
        Args:
            before_commit: called before a batch is closed; what it appends goes with it.
            on_failed: called once if a write or sync fails, or if `fail` is called.
        """
        self._log, self._tail = log, log.tail
        self._before_commit, self._on_failed = before_commit, on_failed
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._kick_due = False
        self._loop: asyncio.AbstractEventLoop
        self.failed: BaseException | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._log.start(self._durable, self.fail)

    def fail(self, error: BaseException) -> None:
        """From here on nothing is committed and nobody is answered."""
        if self.failed is None:
            self.failed = error
            self._on_failed(error)

    def need_room(self, record_bytes: int, spare_segments: int, *, is_cleaner: bool = False) -> None:
        """Refuse what could not be stored now.

        Args:
            spare_segments: ready segments that it must leave untouched while the disk is full, beside the cleaner's.
        Raises:
            BodyTooLarge: it will never fit. DiskFull, Overloaded.
        """
        if record_bytes > self._tail.record_bytes_max > 0:
            at_most = self._tail.record_bytes_max
            raise BodyTooLarge(
                f"this takes up to {record_bytes} bytes of the log, which stores at most {at_most} at once"
            )
        left = spare_segments + (0 if is_cleaner else CLEANER_SEGMENTS) if self._log.disk_full else 0
        if not self._tail.has_room(record_bytes, left):
            if self._log.disk_full:
                raise DiskFull("no space left in the data directory")
            raise Overloaded("the log's next segment is not ready yet")
        if self._tail.unsynced_bytes > self.unsynced_bytes_max:
            raise Overloaded(f"more than {self.unsynced_bytes_max} bytes wait to be synced")

    async def settled(self) -> None:
        """Return when every change made so far is durable."""
        seq = self._tail.appended_seq
        if seq <= self._tail.durable_seq:
            return
        durable = self._loop.create_future()
        self.call_at(seq, partial(_wake, durable))
        await durable

    def call_at(self, seq: int, callback: Callable[[], object]) -> None:
        """Have `callback` called when batch `seq`, the one that fills now, is durable."""
        self._waiting.append((seq, callback))
        self.kick_soon()

    async def __aenter__(self) -> None:
        """`async with commits:` around what is answered: also a refusal waits for all that it shows."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        if error is None or isinstance(error, ApiError):
            await self.settled()

    async def records(self, places: Sequence[Place]) -> list[bytes]:
        """Records by their places, when every change made so far is durable: from memory, or read meanwhile."""
        cached = [self._tail.cached(place) for place in places]
        missing = [place for place, record in zip(places, cached, strict=True) if record is None]
        if not missing:
            await self.settled()
            return [record for record in cached if record is not None]
        reading = asyncio.ensure_future(self._log.read(missing))
        try:
            await self.settled()
        except BaseException:
            reading.cancel()
            raise
        read = iter(await reading)
        return [next(read) if record is None else record for record in cached]

    def record_now(self, place: Place) -> bytes | None:
        """A record that is not in the tail, if it can be had without waiting for the disk."""
        return self._log.read_now(place)

    def kick_soon(self) -> None:
        """Commit at the end of this turn of the loop, so that all requests that came together share a batch."""
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        if self.failed is not None:
            return
        self._before_commit()
        if self._log.idle and (batch := self._tail.take()) is not None:
            self._log.commit(batch)

    def _durable(self, seq: int) -> None:
        """The next batch goes first, then everybody of this one hears of it."""
        self._tail.durable(seq)
        if self._tail.appended_seq > seq:
            self._kick()
        waiting = self._waiting
        while waiting and waiting[0][0] <= seq:
            waiting.popleft()[1]()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
