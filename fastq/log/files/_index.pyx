# cython: language_level=3
"""Where each frame of a log lies: for each segment its first frame, and an offset of 4 bytes for each frame.

The scan at a start builds the index, and each commit adds to it. A dropped segment's entries go with the segment.
A lease over a backlog looks a place up here and reads it from the page cache, so both are in C.
"""

cimport cython
from cpython.array cimport array, extend_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t

import errno
from bisect import bisect_left
from collections import namedtuple

from fastq._core cimport RecordPlace, place_bytes, place_frame, place_offset
from fastq.log.files import _flusher

cdef extern from *:
    """
    #include <sys/uio.h>
    static ssize_t read_cached_pages(int fd, char *into, size_t bytes, int64_t offset) {
        struct iovec part = {into, bytes};
        return preadv2(fd, &part, 1, offset, RWF_NOWAIT);
    }
    """
    ssize_t read_cached_pages(int fd, char* into, size_t bytes, int64_t offset) nogil

cdef uint32_t HEAD_BYTES = _flusher.FRAME_HEAD_BYTES

Span = namedtuple("Span", ("segment", "offset", "bytes"))


@cython.final
cdef class FrameIndex:
    """Frames are added in order of their numbers without a gap, and removed from the oldest on."""
    cdef list segments          # numbers of segments with frames, ascending
    cdef list firsts            # each segment's first frame
    cdef list offsets           # each segment's array of the offsets of its frames' heads
    # the last segment, which is added to
    cdef int64_t segment
    cdef uint64_t first
    cdef array added

    def __cinit__(self):
        self.segments, self.firsts, self.offsets = [], [], []
        self.first = 1
        self.added = array("I")

    def add(self, uint64_t frame, int64_t segment, uint32_t offset):
        if segment != self.segment:
            self.begin(frame, segment)
        assert frame == self.first + len(self.added), "no frame is left out"
        extend_buffer(self.added, <char*>&offset, 1)

    cdef int begin(self, uint64_t frame, int64_t segment) except -1:
        assert segment > self.segment, "segments are filled in their order"
        assert not self.segments or frame == self.next_frame, "no frame is left out"
        self.segment, self.first, self.added = segment, frame, array("I")
        self.segments.append(segment)
        self.firsts.append(frame)
        self.offsets.append(self.added)
        return 0

    @property
    def next_frame(self):
        return self.first + len(self.added)

    @property
    def first_frame(self):
        return self.firsts[0] if self.firsts else self.next_frame

    def segments_before(self, int64_t segment):
        return bisect_left(self.segments, segment)

    def oldest(self):
        first = self.firsts[0]
        return self.segments[0], range(first, first + len(self.offsets[0]))

    def frames_of_oldest(self):
        return list(enumerate(self.offsets[0], self.firsts[0]))

    def segment_of(self, uint64_t frame):
        return self.segments[self.found(frame)]

    def span(self, RecordPlace place not None):
        cdef Py_ssize_t at = self.found(place_frame(&place.place))
        return Span(self.segments[at], self.offset_of(at, place), place_bytes(&place.place))

    def read_now(self, list places not None, dict files not None):
        # It holds the GIL throughout, so no other thread closes a file meanwhile: it waits for no device.
        cdef list records = []
        cdef RecordPlace place
        cdef Py_ssize_t at, n
        cdef bytes record
        for place in places:
            at = self.at(place_frame(&place.place))
            if at < 0:
                return None
            fd = files.get(self.segments[at])
            if fd is None:
                return None
            n = place_bytes(&place.place)
            record = PyBytes_FromStringAndSize(NULL, n)
            # EAGAIN, EOPNOTSUPP: the caller reads it otherwise, and that reports a failing device.
            if read_cached_pages(fd, PyBytes_AS_STRING(record), n, self.offset_of(at, place)) != n:
                return None
            records.append(record)
        return records

    cdef int64_t offset_of(self, Py_ssize_t at, RecordPlace place) except -1:
        """Where a place's record begins in the segment at this position of the lists."""
        cdef array offsets = self.offsets[at]
        cdef uint64_t first = self.firsts[at]
        cdef int64_t frame_at = offsets.data.as_uints[place_frame(&place.place) - first]
        return frame_at + HEAD_BYTES + place_offset(&place.place)

    cdef Py_ssize_t found(self, uint64_t frame) except -1:
        """The position of a frame's segment in the lists. Raises FileNotFoundError."""
        cdef Py_ssize_t at = self.at(frame)
        if at < 0:
            raise FileNotFoundError(errno.ENOENT, f"frame {frame} is not in the log")
        return at

    cdef Py_ssize_t at(self, uint64_t frame) except -2:
        """The position of a frame's segment in the lists; -1: the frame was dropped, or never written."""
        cdef Py_ssize_t low = 0, high = len(self.firsts), middle
        if high == 0 or frame >= self.first + <uint64_t>len(self.added):
            return -1
        while low < high:
            middle = (low + high) // 2
            if <uint64_t>self.firsts[middle] <= frame:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def forget_before(self, int64_t segment):
        cdef Py_ssize_t n = bisect_left(self.segments, segment)
        del self.segments[:n], self.firsts[:n], self.offsets[:n]
