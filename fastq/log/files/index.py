"""Where each frame of a log lies: for each segment its first frame, and an offset of 4 bytes for each frame.

The scan at a start builds the index, and each commit adds to it. A dropped segment's entries go with the segment.
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from fastq.log.files._flusher import FRAME_HEAD_BYTES

if TYPE_CHECKING:
    from fastq._core import RecordPlace


class Span(NamedTuple):
    """A range of bytes in a segment file."""

    segment: int
    offset: int
    bytes: int


class FrameIndex:
    """Frames are added in order of their numbers without a gap, and removed from the oldest on."""

    def __init__(self) -> None:
        self._segments: list[int] = []  # segments with frames, ascending
        self._firsts: list[int] = []  # each segment's first frame
        self._offsets: list[array[int]] = []  # each segment's offsets of its frames' heads
        self._segment = 0  # the last of them, and what is added to
        self._first = 1
        self._added = array("I")

    def add(self, frame: int, segment: int, offset: int) -> None:
        """Add a frame whose head lies at byte `offset` of `segment`."""
        if segment != self._segment:
            self._begin(frame, segment)
        assert frame == self._first + len(self._added), "no frame is left out"
        self._added.append(offset)

    def _begin(self, frame: int, segment: int) -> None:
        assert segment > self._segment, "segments are filled in their order"
        assert not self._segments or frame == self.next_frame, "no frame is left out"
        self._segment, self._first, self._added = segment, frame, array("I")
        self._segments.append(segment)
        self._firsts.append(frame)
        self._offsets.append(self._added)

    @property
    def next_frame(self) -> int:
        """The frame after the last."""
        return self._first + len(self._added)

    @property
    def first_frame(self) -> int:
        """The oldest frame in the index; in an empty one the next."""
        return self._firsts[0] if self._firsts else self.next_frame

    def segments_before(self, segment: int) -> int:
        """How many segments with frames come before this one."""
        return bisect_left(self._segments, segment)

    def oldest(self) -> tuple[int, range]:
        """The oldest segment with frames: its number, and its frames' numbers."""
        first = self._firsts[0]
        return self._segments[0], range(first, first + len(self._offsets[0]))

    def frames_of_oldest(self) -> list[tuple[int, int]]:
        """Each frame of the oldest segment with frames, and the offset of its head."""
        return list(enumerate(self._offsets[0], self._firsts[0]))

    def segment_of(self, frame: int) -> int:
        """The segment of a frame. Raises FileNotFoundError: the frame was dropped, or never written."""
        return self._segments[self._at(frame)]

    def span(self, place: RecordPlace) -> Span:
        """Where the record at a place lies now.

        Raises:
            FileNotFoundError: its frame was dropped, or never written.
        """
        frame = place.frame
        at = self._at(frame)
        offset = self._offsets[at][frame - self._firsts[at]]
        return Span(self._segments[at], offset + FRAME_HEAD_BYTES + place.offset, place.bytes)

    def _at(self, frame: int) -> int:
        if not self.first_frame <= frame < self.next_frame:
            raise FileNotFoundError(errno.ENOENT, f"frame {frame} is not in the log")
        return bisect_right(self._firsts, frame) - 1

    def forget_before(self, segment: int) -> None:
        """Remove the segments before this one."""
        n = self.segments_before(segment)
        del self._segments[:n], self._firsts[:n], self._offsets[:n]
