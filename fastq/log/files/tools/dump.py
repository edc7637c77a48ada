"""Dump the files of a log frame by frame, past any damage. Recovery is stricter.

One segment is in memory at a time. Whether the log is complete is for `fastq.log.files.tools.check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastq.errors import LogDamaged, UnsupportedFormat
from fastq.log.files._flusher import FRAME_HEAD_BYTES, find_later_frame, scan_frames, used_bytes
from fastq.log.files.recovery import named_at
from fastq.log.files.segments import SegmentHead, SegmentReader, read_head, segment_numbers

SOUND_ENDS = frozenset({"seal", "closed", "end", "nothing", "stop"})


@dataclass(frozen=True, slots=True)
class SegmentSeen:
    """A segment begins."""

    number: int
    file_bytes: int
    head: SegmentHead


@dataclass(frozen=True, slots=True)
class FrameSeen:
    """A sound frame. `records` is valid until the next item."""

    segment: int
    offset: int
    seq: int
    durable_seq: int
    count: int
    records: memoryview
    is_copy: bool  # a later opening rewrote it in a segment of its own: replay ignores this one


@dataclass(frozen=True, slots=True)
class GapSeen:
    """Bytes from `offset` to `end` that are no sound frame, where one should be."""

    segment: int
    offset: int
    end: int
    why: str


@dataclass(frozen=True, slots=True)
class EndSeen:
    """The end of a segment's frames. `why` is a reason of `scan_frames`; bytes after it are not zero up to `end`."""

    segment: int
    offset: int
    why: str
    rest_bytes: int


Seen = SegmentSeen | FrameSeen | GapSeen | EndSeen


def walk(directory: Path, first_segment: int = 0) -> Iterator[Seen]:
    """Yield everything in the segments from `first_segment` on, in order.

    Raises:
        OSError.
    """
    reader = SegmentReader(directory)
    numbers = [number for number in segment_numbers(directory) if number >= first_segment]
    for i, number in enumerate(numbers):
        data = reader.read(number)
        try:
            head = read_head(directory, number)
        except (LogDamaged, UnsupportedFormat) as error:
            yield GapSeen(number, 0, len(data), str(error))
            continue
        yield SegmentSeen(number, len(data), head)
        copies_from = _first_seq(directory, numbers[i + 1]) if i + 1 < len(numbers) else 0
        yield from _walk_segment(data, number, head, copies_from)


def _first_seq(directory: Path, number: int) -> int:
    """The `first_seq` of segment `number`; 0 if it continues an opening, or cannot be read."""
    try:
        return read_head(directory, number).first_seq
    except (LogDamaged, UnsupportedFormat):
        return 0


def _walk_segment(data: memoryview, number: int, head: SegmentHead, copies_from: int) -> Iterator[Seen]:
    """Yield the frames of one segment. Bytes that do not follow from the frame before are a gap."""
    at = head.first_offset
    while True:
        seq, prev_crc = named_at(data, at) if at + FRAME_HEAD_BYTES <= len(data) else (0, 0)
        scanned = scan_frames(
            data, start=at, align=head.align, segment=head.number, epoch=head.epoch, salt=head.salt,
            next_seq=seq, prev_crc=prev_crc,
        )  # fmt: skip
        for frame in scanned.frames:
            start = frame.offset + FRAME_HEAD_BYTES
            records = data[start : start + frame.record_bytes]
            is_copy = 0 < copies_from <= frame.seq
            yield FrameSeen(number, frame.offset, frame.seq, frame.durable_seq, frame.count, records, is_copy)
        end, why = scanned.end, scanned.why
        if why in ("seal", "closed"):
            yield EndSeen(number, end, why, 0)
            return
        # Continue at a sound head that does not follow from the one before, unless it was just tried.
        start = end if why == "order" and scanned.frames else end + head.align
        later = find_later_frame(
            data, start=start, align=head.align, segment=head.number, epoch=head.epoch, salt=head.salt, durable_min=0
        )
        if later is None:
            rest_bytes = used_bytes(data, start=end) if why not in ("end", "foreign") else 0
            yield EndSeen(number, end, why, rest_bytes)
            return
        at = later[0]
        yield GapSeen(number, end, at, why)
