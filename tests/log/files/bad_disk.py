"""A disk under a running log that cannot read some places, or reads other bytes than were written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastq.log.files._index import Span
from fastq.log.files.log import LocalLog
from fastq.log.files.segments import segment_path

if TYPE_CHECKING:
    from fastq._core import RecordPlace


class BadDisk:
    """Reads of the log's segments fail as a test says. It stands below `os.pread` and `LocalLog.read_now`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = errno.EIO
        self.fails: Callable[[int, int], bool] = lambda _begin, _end: False  # whether these bytes cannot be read
        self.failed = 0  # reads
        self._pread, self._read_now = os.pread, LocalLog.read_now
        monkeypatch.setattr(os, "pread", self._read)
        monkeypatch.setattr(LocalLog, "read_now", self._read_now_of_log())

    def _is_bad(self, fd: int, begin: int, length: int) -> bool:
        bad = "/segment-" in os.readlink(f"/proc/self/fd/{fd}") and self.fails(begin, begin + length)
        self.failed += bad
        return bad

    def _read(self, fd: int, length: int, offset: int) -> bytes:
        if self._is_bad(fd, offset, length):
            raise OSError(self.error, os.strerror(self.error))
        return self._pread(fd, length, offset)

    def _read_now_of_log(self) -> Callable[[LocalLog, list[RecordPlace]], list[bytes] | None]:
        """A method of the log: a bound method of this class would not get it."""

        def read_now(log: LocalLog, places: list[RecordPlace]) -> list[bytes] | None:
            return self._read_cached(log, places)

        return read_now

    def _read_cached(self, log: LocalLog, places: list[RecordPlace]) -> list[bytes] | None:
        """A bad sector is not in the page cache."""
        for span in [log._index.span(place) for place in places]:
            if self.fails(span.offset, span.offset + span.bytes):
                self.failed += 1
                return None
        return self._read_now(log, places)

    def fail_at(self, *spans: Span) -> None:
        """Fail reads of any byte of these spans, in whatever segment: a test has one."""
        self.fails = lambda begin, end: any(begin < span.offset + span.bytes and span.offset < end for span in spans)

    def heal(self) -> None:
        self.fails = lambda _begin, _end: False


def span_of(log: LocalLog, place: RecordPlace | None) -> Span:
    assert place is not None
    return log._index.span(place)


def rot(log: LocalLog, place: RecordPlace | None, at: int = -2) -> None:
    """Change one byte of the record at a place, on the disk.

    Args:
        at: which one; a negative one counts from the record's end.
    """
    span = span_of(log, place)
    change_byte(segment_path(log._directory, span.segment), span.offset + at % span.bytes)


def change_byte(path: Path, offset: int) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        (byte,) = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte ^ 1]), offset)
    finally:
        os.close(fd)
