"""Reads single records by their spans in the files, with a bounded number of open files."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastq.log.files.index import Span
from fastq.log.files.segments import segment_path

OPEN_FILES_MAX = 64
GAP_BYTES_MAX = 16 << 10  # between records that one read covers: cheaper than another read
RUN_BYTES_MAX = 1 << 20  # of one read of several records


class SpanReader:
    """Reads spans, from any thread. The most recently read files stay open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, int] = OrderedDict()  # segment -> descriptor, least recently used first
        self._first = 0  # segments before it are not kept open
        self._closed = False

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
        """Read a span from the page cache. Returns None if part of it is not cached, or the file system cannot tell."""
        data = bytearray(span.bytes)
        fd = self._get(span.segment)
        try:
            found = os.preadv(fd, [data], span.offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN, EOPNOTSUPP; `read` reports a failing device
            return None
        finally:
            self._put(span.segment, fd)
        return bytes(data) if found == span.bytes else None

    def read_many(self, spans: Sequence[Span]) -> list[bytes]:
        """Read spans in the order of the disk, neighbours together. Returns them in the order of `spans`. Blocking."""
        records: dict[Span, bytes] = {}
        parts = list(runs(spans))
        if len(parts) > 1:
            for run, _ in parts:
                self._announce(run)
        for run, part in parts:
            data = self.read(run)
            for span in part:
                start = span.offset - run.offset
                records[span] = data[start : start + span.bytes]
        return [records[span] for span in spans]

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
            self._closed = True
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
            if not self._closed and segment >= self._first and segment not in self._idle:
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
