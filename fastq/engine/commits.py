"""Group commit: a frame goes to the log as soon as the log is idle; its waiters are woken when it is durable."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fastq.clock import monotonic_us
from fastq.engine.durations import Durations
from fastq.errors import CommandTooLarge, CoreFailed, DiskFull, LogUnreadable, Overloaded, RecordUnreadable
from fastq.log.protocol import Log

if TYPE_CHECKING:
    from fastq._core import RecordPlace

ROOM_BYTES_SMALL = 8192  # enough for any record without a payload or result
CLEANER_SEGMENTS = 1  # of the reserve: ready segments that only the cleaner may begin, and only on a full disk
READ_NOW_BYTES_MAX = 2 << 20  # copied from the page cache in one go: more would hold up the event loop
UNSYNCED_BYTES_MAX = 64 << 20  # above this, commands are refused as Overloaded until the disk has caught up


Waiting = deque[tuple[int, Callable[[], object]]]
"""(frame sequence, what to call when it is reached), the earliest frame first"""


class Change:
    """`with commits.change:` stands around each call of the core that changes state, and commits what it appends.

    A record that cannot be applied ends the process: the state after it is unknown.
    """

    __slots__ = ("_commits",)

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _at: object) -> None:
        if isinstance(error, CoreFailed):
            self._commits.fail(error)
        elif not self._commits.is_closing:  # else the frame that is closing takes it
            self._commits.kick_soon()


class Commits:
    """Group commit without a timer: while one frame is synced the next one fills; it goes when the sync returns.

    An answer may leave when every frame that it shows is durable and the log may still answer. An answer made now
    shows frames up to `shown_seq`.
    """

    unsynced_bytes_max = UNSYNCED_BYTES_MAX

    def __init__(self, log: Log, before_commit: Callable[[], None], on_failed: Callable[[BaseException], None]) -> None:
        """
        Args:
            before_commit: called before a frame is closed; it may append to that frame.
            on_failed: called once, when a write or sync fails or `fail` is called.
        """
        self._log, self._tail = log, log.tail
        self._before_commit, self._on_failed = before_commit, on_failed
        self._until_durable: Waiting = deque()
        self._until_visible: Waiting = deque()
        self._kick_due = False
        self._is_late = False  # a kick came while the log was not idle
        self.is_closing = False  # `before_commit` runs: records appended now go with the frame that is closing
        self._loop: asyncio.AbstractEventLoop
        self.change = Change(self)
        self.failed: BaseException | None = None
        self.on_durable: Callable[[], None] | None = None  # called when more may be shown, while somebody watches
        self.durations = Durations()  # from the first change of a frame to when the frame is durable
        self._began_us = self._sent_us = 0  # the first change of the next frame, and of the one that is being synced

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._log.start(self._durable, self.fail)

    def fail(self, error: BaseException) -> None:
        """Stop committing. No answer leaves from now on."""
        if self.failed is None:
            self.failed = error
            self._on_failed(error)

    def need_room(self, record_bytes: int, spare_segments: int, *, is_cleaner: bool = False) -> None:
        """Check that `record_bytes` can be appended now.

        Args:
            spare_segments, is_cleaner: see `has_room`.
        Raises:
            CommandTooLarge: it will never fit. DiskFull, Overloaded.
        """
        if record_bytes > self._tail.record_bytes_max > 0:
            raise CommandTooLarge(record_bytes, self._tail.record_bytes_max)
        if not self.has_room(record_bytes, spare_segments, is_cleaner=is_cleaner):
            if self._log.disk_full:
                raise DiskFull
            raise Overloaded("the log's next segment is not ready yet: try again")
        if self._tail.unsynced_bytes > self.unsynced_bytes_max:
            raise Overloaded(f"more than {self.unsynced_bytes_max} bytes wait to be synced: try again")

    def has_room(self, record_bytes: int, spare_segments: int = 0, *, is_cleaner: bool = False) -> bool:
        """Whether `record_bytes` can be appended now.

        The reserve is kept also before the disk is known to be full: that shows only when the next segment is made.
        Until then the segment in use takes every record, and the last one before the reserve is the last to be begun.

        Args:
            spare_segments: ready segments that must stay unused, beside the cleaner's.
            is_cleaner: on a full disk it may use all segments.
        """
        if self._log.disk_full:
            return self._tail.has_room(record_bytes, spare_segments + (0 if is_cleaner else CLEANER_SEGMENTS))
        return self._tail.goes_here(record_bytes) or self._tail.has_room(
            record_bytes, spare_segments + CLEANER_SEGMENTS
        )

    # --- when an answer may leave -------------------------------------------------------------------------------------

    @property
    def shown_seq(self) -> int:
        """The last frame that an answer made now may show."""
        return self._tail.appended_seq

    @property
    def durable_seq(self) -> int:
        seq: int = self._tail.durable_seq
        return seq

    def may_leave(self, seq: int) -> bool:
        """Whether an answer that shows frames up to `seq` may leave now."""
        return seq <= self._tail.durable_seq and self.failed is None and self._log.may_answer()

    def hidden_seq(self) -> int:
        """The frame that an answer made now has to wait for; 0: it may leave at once."""
        seq: int = self._tail.appended_seq
        held = seq > self._tail.durable_seq or self.failed is not None or not self._log.may_answer()
        return seq if held else 0

    async def visible(self, seq: int) -> None:
        """Return when an answer that shows frames up to `seq` may leave. Never returns once the log has failed."""
        if not self.may_leave(seq):
            await self._wait(self._until_visible, seq)

    async def durable(self) -> None:
        """Return when everything appended so far is durable. Never returns once the log has failed."""
        seq = self._tail.appended_seq
        if seq > self._tail.durable_seq or self.failed is not None:
            await self._wait(self._until_durable, seq)

    async def _wait(self, waiting: Waiting, seq: int) -> None:
        woken = self._loop.create_future()
        waiting.append((seq, partial(_wake, woken)))
        self.kick_soon()
        await woken

    async def caught_up(self) -> None:
        """Return when everything appended so far is durable. Work in slices waits here between two slices.

        Without this wait a long job would fill the log's room that other requests need.
        """
        await self.durable()

    def call_at(self, seq: int, callback: Callable[[], object]) -> None:
        """Call `callback` when an answer that shows frames up to `seq` may leave."""
        self._until_visible.append((seq, callback))
        if not self._kick_due:
            self.kick_soon()

    async def records(self, places: Sequence[RecordPlace]) -> list[bytes]:
        """The records at `places`, in order, from memory or read from the log.

        Raises:
            RecordUnreadable, FileNotFoundError: one of them. LogUnreadable.
        """
        records = await self.read(places)
        for record in records:
            if not isinstance(record, bytes):
                raise record
        return [record for record in records if isinstance(record, bytes)]

    async def read(self, places: Sequence[RecordPlace]) -> list[bytes | RecordUnreadable | FileNotFoundError]:
        """As `records`, but a record that cannot be read is the error why. Its check is not verified here.

        FileNotFoundError: the frame is no longer there, since the cleaner moved what was in it.
        """
        cached = [self._tail.cached(place) for place in places]
        missing = [place for place, record in zip(places, cached, strict=True) if record is None]
        if not missing:
            return [record for record in cached if record is not None]
        try:
            now = self.records_now(missing)
            read: Iterator[bytes | OSError] = iter(await self._log.read(missing) if now is None else now)
        except OSError as error:
            raise LogUnreadable(str(error.strerror)) from error
        return [_found(next(read)) if record is None else record for record in cached]

    def records_now(self, places: list[RecordPlace]) -> list[bytes] | None:
        """Records that are not in the tail; None if reading them would wait for the disk, or hold up the loop."""
        if len(places) > 1 and sum([place.bytes for place in places]) > READ_NOW_BYTES_MAX:
            return None
        return self._log.read_now(places)

    # --- to the log ---------------------------------------------------------------------------------------------------

    def kick_soon(self) -> None:
        """Commit at the end of this turn of the loop: requests that arrived together share a frame."""
        if not self._kick_due:
            self._kick_due = True
            self._began_us = self._began_us or monotonic_us()
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        if self.failed is not None:
            return
        self._is_late = not self._log.idle
        if self._is_late:
            return  # all that comes together while a frame is being synced is looked at once: see `_durable`
        self.is_closing = True
        try:
            self._before_commit()
        except CoreFailed as error:
            self.fail(error)
            raise
        finally:
            self.is_closing = False
        if (batch := self._tail.take()) is not None:
            self._sent_us = self._began_us
            self._log.commit(batch)
        self._began_us = 0

    def _durable(self, seq: int) -> None:
        """Commit the next frame first, then wake the waiters of this one."""
        self._tail.durable(seq)
        if self._sent_us:
            self.durations.add(monotonic_us() - self._sent_us)
            self._sent_us = 0
        if self._is_late or self._tail.appended_seq > seq:
            self._kick()
        if self.failed is None:
            if self._until_durable:
                _call(self._until_durable, seq)
            if self._until_visible and self._log.may_answer():
                _call(self._until_visible, seq)
            if self.on_durable is not None:
                self.on_durable()


def _found(read: bytes | OSError) -> bytes | RecordUnreadable | FileNotFoundError:
    if isinstance(read, bytes | FileNotFoundError):
        return read
    return RecordUnreadable(f"the disk says: {read.strerror}")


def _call(waiting: Waiting, seq: int) -> None:
    while waiting and waiting[0][0] <= seq:
        waiting.popleft()[1]()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
