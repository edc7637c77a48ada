"""Reading single records back, with a bounded number of open files."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastq.log.files.segments import segment_path

if TYPE_CHECKING:
    from fastq._core import Place

OPEN_FILES_MAX = 64
GAP_BYTES_MAX = 16 << 10  # between records that one read takes together: cheaper than another read
RUN_BYTES_MAX = 1 << 20  # of one read, if it is not for a single record


class PlaceReader:
    """Reads by place, from any thread. Files stay open until others were read more recently."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, int] = OrderedDict()  # segment -> descriptor, least recently used first
        self._first = 0  # nothing is kept open of segments before it
        self._closed = False

    def read(self, place: Place) -> bytes:
        """Blocking.

        Raises:
            OSError: the device failed, or the file ends before the place does (EIO).
        """
        segment, offset, length = place
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

    def read_now(self, place: Place) -> bytes | None:
        """As `read`, but only from the page cache; None if it has not all of it, or the file system cannot say."""
        segment, offset, length = place
        data = bytearray(length)
        fd = self._get(segment)
        try:
            found = os.preadv(fd, [data], offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN, EOPNOTSUPP; what is wrong with the device, `read` says
            return None
        finally:
            self._put(segment, fd)
        return bytes(data) if found == length else None

    def read_many(self, places: Sequence[Place]) -> list[bytes]:
        """As `read`, in the order asked for. Read in the order of the disk, neighbours together."""
        records: dict[Place, bytes] = {}
        parts = list(runs(places))
        if len(parts) > 1:
            for span, _ in parts:
                self._announce(span)
        for span, part in parts:
            data, (_, start, _) = self.read(span), span
            for place in part:
                _, offset, length = place
                records[place] = data[offset - start : offset - start + length]
        return [records[place] for place in places]

    def _announce(self, place: Place) -> None:
        """Have the device fetch it while other places are read."""
        segment, offset, length = place
        fd = self._get(segment)
        try:
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED)
        finally:
            self._put(segment, fd)

    def forget_before(self, segment: int) -> None:
        """Close what is open of segments that are deleted: their space is not free before."""
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
        """A descriptor that no other thread uses or closes until `_put`."""
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


def runs(places: Sequence[Place]) -> Iterator[tuple[Place, list[Place]]]:
    """The places in the order of the disk, each once, in parts to be read at once: a part's span and what is in it."""
    part: list[Place] = []
    segment = start = end = 0
    for place in sorted(set(places)):
        begins, ends = place[1], place[1] + place[2]
        is_near = place[0] == segment and begins <= end + GAP_BYTES_MAX and ends - start <= RUN_BYTES_MAX
        if part and not is_near:
            yield (segment, start, end - start), part
            part = []
        if not part:
            segment, start, end = place[0], begins, begins
        part.append(place)
        end = max(end, ends)
    if part:
        yield (segment, start, end - start), part
