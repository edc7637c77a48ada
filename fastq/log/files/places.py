"""Reads records by their spans in the files, with a bounded number of open files.

A file is open once for all threads. The event loop reads what is in the page cache through the same descriptors; it
opens none, since that might wait for the disk.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from fastq.log.files._index import Span
from fastq.log.files.segments import HEAD_BYTES, segment_path

OPEN_FILES_MAX = 64  # the file that was opened first is closed first
GAP_BYTES_MAX = 16 << 10  # between records that one read covers: cheaper than another read
RUN_BYTES_MAX = 1 << 20  # of one read of several records
PAUSES_S = (0.0, 0.05, 0.2)  # before each further try to read what the device could not
# What a device says of one place. Any other error is of the process, or of all files.
OF_ONE_PLACE = frozenset(
    (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EILSEQ, errno.ENODATA, errno.EREMOTEIO, errno.ETIMEDOUT)
)


class SpanReader:
    """Reads spans, from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self.files: dict[int, int] = {}  # segment -> descriptor, the one that was opened first first
        self._users: Counter[int] = Counter()  # descriptor -> threads that read it now
        self._first = 0  # segments before it are not kept open
        self._closing = threading.Event()

    def read(self, span: Span) -> bytes:
        """Read a span. Blocking.

        Raises:
            OSError: the device failed, or the file ends before the span does (EIO).
        """
        segment, offset, length = span
        fd = self._get(segment)
        try:
            data = os.pread(fd, length, offset)
            while len(data) < length:
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    path = segment_path(self._directory, segment)
                    raise OSError(errno.EIO, f"the file ends before offset {offset + length}", str(path))
                data += more
            return data
        finally:
            self._put(segment, fd)

    def read_many(self, spans: Sequence[Span]) -> list[bytes | OSError]:
        """Read spans in the order of the disk, neighbours together. Blocking.

        Returns:
            In the order of `spans` the bytes, or the device's error at that place.
        Raises:
            OSError: nothing can be read now.
        """
        found: dict[Span, bytes | OSError] = {}
        parts = list(runs(spans))
        if len(parts) > 1:
            for run, _ in parts:
                self._announce(run)
        for run, part in parts:
            data = self._try(run)
            for span in part:
                start = span.offset - run.offset
                found[span] = data if isinstance(data, OSError) else data[start : start + span.bytes]
        for pause_s in PAUSES_S:
            if not (failed := [span for span, data in found.items() if isinstance(data, OSError)]):
                break
            if self._closing.wait(pause_s):
                break
            for span in failed:
                found[span] = self._try(span)
        for segment in {span.segment for span, data in found.items() if isinstance(data, OSError)}:
            self._need_device(segment)
        return [found[span] for span in spans]

    def _try(self, span: Span) -> bytes | OSError:
        """Read a span. Returns an error of the device at that place; raises any other."""
        try:
            return self.read(span)
        except OSError as error:
            if error.errno not in OF_ONE_PLACE:
                raise
            return error

    def _need_device(self, segment: int) -> None:
        """Raise OSError unless the device can read another place: the head of a segment, not from the page cache."""
        fd = self._get(segment)
        try:
            os.posix_fadvise(fd, 0, HEAD_BYTES, os.POSIX_FADV_DONTNEED)
            os.pread(fd, HEAD_BYTES, 0)
        finally:
            self._put(segment, fd)

    def _announce(self, span: Span) -> None:
        """Let the device fetch a span while others are read."""
        segment, offset, length = span
        fd = self._get(segment)
        try:
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED)
        finally:
            self._put(segment, fd)

    def share(self, segment: int, fd: int) -> None:
        """Read a segment through a duplicate of this descriptor from here on."""
        with suppress(OSError), self._lock:  # without a free descriptor, reads have to open the file
            self._keep(segment, os.dup(fd))

    def open_now(self, segments: Iterable[int]) -> None:
        """Open the oldest of these; half of the files is left to later segments. Reads open the rest."""
        for segment in sorted(segments)[: OPEN_FILES_MAX // 2]:
            with suppress(OSError):
                self._put(segment, self._get(segment))

    def forget_before(self, segment: int) -> None:
        """Close the files of deleted segments: an open file keeps its space."""
        with self._lock:
            self._first = max(self._first, segment)
            for number in [number for number in self.files if number < segment]:
                self._forget(number)

    def close(self) -> None:
        with self._lock:
            self._closing.set()
            for segment in list(self.files):
                self._forget(segment)

    def _get(self, segment: int) -> int:
        """A descriptor of a segment, which stays open until `_put`."""
        with self._lock:
            if (fd := self.files.get(segment)) is not None:
                self._users[fd] += 1
                return fd
        fd = os.open(segment_path(self._directory, segment), os.O_RDONLY)
        with self._lock:
            self._users[fd] += 1
            self._keep(segment, fd)
        return fd

    def _put(self, segment: int, fd: int) -> None:
        with self._lock:
            self._users[fd] -= 1
            if not self._users[fd]:
                del self._users[fd]
                if self.files.get(segment) != fd:
                    os.close(fd)

    def _keep(self, segment: int, fd: int) -> None:
        if self._closing.is_set() or segment < self._first or segment in self.files:
            if fd not in self._users:
                os.close(fd)
            return
        self.files[segment] = fd
        if len(self.files) > OPEN_FILES_MAX:
            self._forget(next(iter(self.files)))

    def _forget(self, segment: int) -> None:
        """Close a file as soon as no thread reads it."""
        fd = self.files.pop(segment)
        if fd not in self._users:
            os.close(fd)


def runs(spans: Sequence[Span]) -> Iterator[tuple[Span, list[Span]]]:
    """Group spans into runs that one read covers, in the order of the disk, each span once. Yields (run, its spans)."""
    part: list[Span] = []
    segment = start = end = 0
    for span in sorted(set(spans)):
        begins, ends = span.offset, span.offset + span.bytes
        is_near = span.segment == segment and begins <= end + GAP_BYTES_MAX and ends - start <= RUN_BYTES_MAX
        if part and not is_near:
            yield Span(segment, start, end - start), part
            part = []
        if not part:
            segment, start, end = span.segment, begins, begins
        part.append(span)
        end = max(end, ends)
    if part:
        yield Span(segment, start, end - start), part
