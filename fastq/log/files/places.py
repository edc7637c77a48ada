"""Reads single records by their spans in the files, with a bounded number of open files."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastq.log.files.index import Span
from fastq.log.files.segments import HEAD_BYTES, segment_path

OPEN_FILES_MAX = 64
GAP_BYTES_MAX = 16 << 10  # between records that one read covers: cheaper than another read
RUN_BYTES_MAX = 1 << 20  # of one read of several records
PAUSES_S = (0.0, 0.05, 0.2)  # before each further try to read what the device could not
# What a device says of one place. Any other error is of the process, or of all files.
OF_ONE_PLACE = frozenset(
    (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EILSEQ, errno.ENODATA, errno.EREMOTEIO, errno.ETIMEDOUT)
)


class SpanReader:
    """Reads spans, from any thread. The most recently read files stay open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, int] = OrderedDict()  # segment -> descriptor, least recently used first
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

    def read_now(self, span: Span) -> bytes | None:
        """Read a span from the page cache. Returns None if part of it is not cached, or the file system cannot tell.

        It opens no file, which might wait for the disk: `read` opens it, and it stays open for the next time.
        """
        data = bytearray(span.bytes)
        with self._lock:
            fd = self._idle.pop(span.segment, -1)
        if fd < 0:
            return None
        try:
            found = os.preadv(fd, [data], span.offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN, EOPNOTSUPP; `read` reports a failing device
            return None
        finally:
            self._put(span.segment, fd)
        return bytes(data) if found == span.bytes else None

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

    def forget_before(self, segment: int) -> None:
        """Close the files of deleted segments: an open file keeps its space."""
        with self._lock:
            self._first = max(self._first, segment)
            for number in [number for number in self._idle if number < segment]:
                os.close(self._idle.pop(number))

    def close(self) -> None:
        with self._lock:
            self._closing.set()
            for fd in self._idle.values():
                os.close(fd)
            self._idle.clear()

    def _get(self, segment: int) -> int:
        """A descriptor of a segment, for this thread alone until `_put`."""
        with self._lock:
            fd = self._idle.pop(segment, None)
        return os.open(segment_path(self._directory, segment), os.O_RDONLY) if fd is None else fd

    def _put(self, segment: int, fd: int) -> None:
        with self._lock:
            if not self._closing.is_set() and segment >= self._first and segment not in self._idle:
                self._idle[segment] = fd
                fd = self._idle.popitem(last=False)[1] if len(self._idle) > OPEN_FILES_MAX else -1
        if fd >= 0:
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
