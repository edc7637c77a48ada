"""Where each frame of a log lies."""

from typing import NamedTuple, final

from fastq._core import RecordPlace

class Span(NamedTuple):
    """A range of bytes in a segment file."""

    segment: int
    offset: int
    bytes: int

@final
class FrameIndex:
    """Frames are added in order of their numbers without a gap, and removed from the oldest on."""

    def add(self, frame: int, segment: int, offset: int) -> None:
        """Add a frame whose head lies at byte `offset` of `segment`."""

    @property
    def next_frame(self) -> int:
        """The frame after the last."""

    @property
    def first_frame(self) -> int:
        """The oldest frame in the index; in an empty one the next."""

    def segments_before(self, segment: int) -> int:
        """How many segments with frames come before this one."""

    def oldest(self) -> tuple[int, range]:
        """The oldest segment with frames: its number, and its frames' numbers."""

    def frames_of_oldest(self) -> list[tuple[int, int]]:
        """Each frame of the oldest segment with frames, and the offset of its head."""

    def segment_of(self, frame: int) -> int:
        """The segment of a frame. Raises FileNotFoundError: the frame was dropped, or never written."""

    def span(self, place: RecordPlace) -> Span:
        """Where the record at a place lies now.

        Raises:
            FileNotFoundError: its frame was dropped, or never written.
        """

    def read_now(self, places: list[RecordPlace], files: dict[int, int]) -> list[bytes] | None:
        """Read records from the page cache.

        Args:
            files: open descriptors by segment.
        Returns:
            None if any of them is not all there: no such frame, its file is not open, or a read would wait.
        """

    def forget_before(self, segment: int) -> None:
        """Remove the segments before this one."""
