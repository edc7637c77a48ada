"""Prepares segments before they are needed, and deletes and shortens old ones, on a thread of its own.

Commits do not wait for this work. A full disk shows here first, while there are still segments to write to.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastq.log.files.opening import seal_and_shorten, take_spare
from fastq.log.files.recovery import Ending
from fastq.log.files.segments import (
    SegmentHead,
    cleaned_paths,
    drop_segments,
    erase_cleaned,
    fill_spare,
    name_segment,
)
from fastq.log.protocol import RESERVE_SEGMENTS

if TYPE_CHECKING:
    from fastq._core import Tail

READY_SEGMENTS = RESERVE_SEGMENTS + 1  # beside the one that is being written
UNUSED_SHARE = 128  # until an opening wrote this share of a small segment, the reserve is enough
RETRY_S = 1.0  # between attempts on a full disk
FILL_PAUSE_S = 0.002  # between the steps of a fill while there is room, for a commit or two


class ReadySegments:
    """Offers segments to the tail. Does one thing at a time. Call it from the event loop's thread only."""

    def __init__(
        self,
        directory: Path,
        tail: Tail,
        first: SegmentHead,
        first_segment: int,
        unsealed: list[Ending],
        sizes: Sequence[int],
        on_made: Callable[[SegmentHead, int], None],
        on_failed: Callable[[OSError], None],
        draw: Callable[[int], bytes],
        zero_cleaned: bool,
    ) -> None:
        """
        Args:
            first: the head of the opening's first segment; later segments get the same values.
            first_segment: the oldest segment.
            unsealed: segments of earlier openings, to be shortened once this one has a durable frame.
            sizes: that segments may have, ascending.
            on_made: called with a segment's head and a descriptor, before the tail is offered it.
            on_failed: called once, with an error other than a full disk.
            draw: returns that many random bytes.
            zero_cleaned: overwrite segments before they are deleted.
        """
        self.disk_full = False
        self._directory, self._tail, self._unsealed = directory, tail, list(unsealed)
        self._sizes = sizes
        file_bytes = max(size for size in sizes if size <= first.file_bytes)
        self._next = replace(first, number=first.number + 1, file_bytes=file_bytes, first_seq=0, synced_seq=0)
        self._is_used = False  # more than the reserve is needed
        self._on_made, self._on_failed, self._draw = on_made, on_failed, draw
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastq-segments")
        self._durable_seq: int | None = None
        self._first = self._drop_before = first_segment
        self._held: int | None = None  # a backup still reads this segment and later ones
        self._zero_cleaned = zero_cleaned
        self._has_cleaned = bool(cleaned_paths(directory))  # an earlier server left segments to overwrite
        self._work: asyncio.Future[Any] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._stopping = threading.Event()

    def start_due(self, durable_seq: int | None, next_bytes: int) -> None:
        """Start the next piece of work, if there is any.

        Args:
            durable_seq: the last durable frame of this opening; None: none yet.
            next_bytes: the size that the next segment should have. Sizes do not shrink again.
        """
        if next_bytes > self._next.file_bytes and self._has_space(READY_SEGMENTS * next_bytes):
            self._next = replace(self._next, file_bytes=next_bytes)
        self._durable_seq = durable_seq
        self._go_on()

    async def more(self, timeout_s: float) -> None:
        """Return when more than the reserve is ready, or nothing is being done about it, or after the timeout."""
        self._is_used = True
        self._go_on()
        late: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, late.set_result, None)
        while self._work is not None and self._tail.segments_offered <= RESERVE_SEGMENTS and not late.done():
            await asyncio.wait([self._work, late], return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()

    def drop_before(self, segment: int) -> None:
        """Delete every segment before this one, after the work in progress."""
        self._drop_before = max(segment, self._drop_before)
        self._go_on()

    def hold(self, segment: int | None) -> None:
        """Keep this segment and later ones from `drop_before`, until the next call. None: keep none."""
        self._held = segment
        self._go_on()

    @property
    def held_back(self) -> int:
        """How many segments exist only because of `hold`."""
        return self._drop_before - max(self._first, self._may_drop_before())

    def _may_drop_before(self) -> int:
        return self._drop_before if self._held is None else min(self._drop_before, self._held)

    def _go_on(self) -> None:
        if self._work is not None or self._stopping.is_set():
            return
        is_short = self._tail.segments_offered < self._wanted()
        if self._unsealed and self._durable_seq is not None:
            # Seal first, then drop: the oldest segment must show where the log begins, even without a frame.
            self._begin(self._shortened, seal_and_shorten, self._directory, self._unsealed[0], self._durable_seq)
        elif (drop_before := self._may_drop_before()) > self._first:
            first, self._first = self._first, drop_before
            self._has_cleaned |= self._zero_cleaned
            drop = partial(drop_segments, keep_files=self._zero_cleaned)
            self._begin(self._dropped, drop, self._directory, first, self._first)
        elif self._has_cleaned and (self.disk_full or not is_short):
            self._has_cleaned = False
            self._begin(self._dropped, erase_cleaned, self._directory, self._rest)
        elif self._retry is None and is_short:
            head = replace(self._next, salt=int.from_bytes(self._draw(8), "little"))
            self._begin(self._made, self._make, head)

    def _wanted(self) -> int:
        """How many segments to keep ready: an opening that wrote hardly anything has the reserve only."""
        size = self._next.file_bytes
        if not self._is_used:
            written_bytes = self._tail.closed_bytes + self._tail.unsynced_bytes
            self._is_used = size == self._sizes[-1] or written_bytes > size // UNUSED_SHARE
        return READY_SEGMENTS if self._is_used else RESERVE_SEGMENTS

    def _has_space(self, needed_bytes: int) -> bool:
        """Whether the disk has room. Larger segments on a small disk would leave none that the cleaner can free."""
        space = os.statvfs(self._directory)
        return space.f_bavail * space.f_frsize >= needed_bytes

    def _begin(self, then: Callable[[asyncio.Future[Any]], None], do: Callable[..., Any], *about: Any) -> None:
        """Run `do` on the thread, then `then` on the loop."""
        self._work = self._loop.run_in_executor(self._thread, do, *about)
        self._work.add_done_callback(then)

    async def close(self) -> None:
        """Interrupt the work in progress."""
        self._stopping.set()
        if self._retry is not None:
            self._retry.cancel()
        if self._work is not None:
            await asyncio.wait([self._work])
        self._thread.shutdown()

    def _make(self, head: SegmentHead) -> tuple[SegmentHead, int] | None:
        """On the thread: prepare a segment. Returns its head and descriptor; None if the log is being closed.

        It has the size of a spare, if there is one that can be used.
        """
        spare = take_spare(self._directory, self._sizes)
        spare = spare or fill_spare(self._directory, head.file_bytes, self._rest)
        if spare is None:
            return None
        head = replace(head, file_bytes=spare.stat().st_size)
        return head, name_segment(spare, head)

    def _rest(self) -> bool:
        """On the thread, before each step of a fill: pause for commits. Returns whether to interrupt the fill.

        It does not pause when a segment is needed soon, since new jobs then wait for the fill; nor while the reserve
        is incomplete, since the disk may become full first.
        """
        is_urgent = self._tail.segments_offered < RESERVE_SEGMENTS
        half_bytes = self._next.file_bytes // 2
        is_urgent = is_urgent or not (
            self._tail.goes_here(half_bytes) or self._tail.has_room(half_bytes, RESERVE_SEGMENTS)
        )
        return self._stopping.wait(0 if is_urgent else FILL_PAUSE_S)

    def _made(self, work: asyncio.Future[tuple[SegmentHead, int] | None]) -> None:
        self._work = None
        error = work.exception()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.disk_full = True
            if not self._stopping.is_set():
                self._retry = self._loop.call_later(RETRY_S, self._try_now)
                self._go_on()  # other work may free space
            return
        if error is not None:
            self._fail(error)
            return
        if (made := work.result()) is None:
            return
        head, fd = made
        if self._stopping.is_set():
            os.close(fd)
            return
        self.disk_full = False
        self._next = replace(self._next, number=head.number + 1)
        self._on_made(head, fd)
        self._tail.offer_segment(head.number, head.first_offset, head.file_bytes)
        self._go_on()

    def _try_now(self) -> None:
        """Try again to prepare a segment: the disk may have room."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._go_on()

    def _dropped(self, work: asyncio.Future[None]) -> None:
        self._work = None
        if (error := work.exception()) is not None:
            self._fail(error)
        else:
            self._try_now()

    def _shortened(self, work: asyncio.Future[None]) -> None:
        self._work = None
        self._unsealed.pop(0)
        error = work.exception()
        # On a file system that copies on write this may need space; the next opening tries again.
        if error is None or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            self._try_now()
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, OSError):
            raise error
        self._stopping.set()
        self._on_failed(error)
