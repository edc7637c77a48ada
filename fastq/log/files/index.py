"""Where each frame of a log lies: for each segment its first frame, and 4 bytes a frame.

Made by the scan at a start, added to at each commit; what a segment takes goes when the segment does.
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
    """Bytes of a segment file."""

    segment: int
    offset: int
    bytes: int


class FrameIndex:
    """Frames are added in the order of their numbers, without a gap, and forgotten from the oldest on."""

    def __init__(self) -> None:
        self._segments: list[int] = []  # those with frames, ascending
        self._firsts: list[int] = []  # the first frame of each
        self._offsets: list[array[int]] = []  # of each, its frames' heads
        self._segment = 0  # the last of them, and what is added to
        self._first = 1
        self._added = array("I")

    def add(self, frame: int, segment: int, offset: int) -> None:
        """A frame's head lies at `offset` of `segment`, bytes."""
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
        """The one behind the last."""
        return self._first + len(self._added)

    @property
    def first_frame(self) -> int:
        """The oldest that is there; without one, the next."""
        return self._firsts[0] if self._firsts else self.next_frame

    def segments_before(self, segment: int) -> int:
        """How many have frames and come before this one."""
        return bisect_left(self._segments, segment)

    def oldest(self) -> tuple[int, range]:
        """The first segment with frames: its number, and the frames' numbers."""
        first = self._firsts[0]
        return self._segments[0], range(first, first + len(self._offsets[0]))

    def segment_of(self, frame: int) -> int:
        """Raises FileNotFoundError: it was given back, or never written."""
        return self._segments[self._at(frame)]

    def span(self, place: RecordPlace) -> Span:
        """Where the record at a place lies now.

        Raises:
            FileNotFoundError: its frame was given back, or never written.
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
        """Segments before this one are no longer there."""
        n = self.segments_before(segment)
        del self._segments[:n], self._firsts[:n], self._offsets[:n]
