"""Recovery reads a log at the start: its frames, its end, and whether acknowledged data is missing.

It writes nothing. docs/log-format.md has the rules; each error below names the rule that is broken.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastq._core import FRAME_RECORD_BYTES_MAX
from fastq.errors import LogDamaged, UnsupportedFormat
from fastq.log.files._flusher import FRAME_HEAD_BYTES, find_later_frame, scan_frames, used_bytes
from fastq.log.files._index import FrameIndex
from fastq.log.files.segments import (
    FIRST_SEGMENT,
    HEAD_BYTES,
    SegmentHead,
    SegmentReader,
    announce_segment,
    read_identity,
    refuse_unfinished_restore,
    segment_numbers,
    segment_path,
    unpack_head,
)
from fastq.log.protocol import Replay

_FRAME = struct.Struct("<24xQQII4xI8x")  # of a frame's head: epoch, salt, segment, record_bytes and prev_crc
_FIRST_FRAME = struct.Struct("<6xHQ36xI")  # of a frame's head: flags, seq and prev_crc

NOTHING_INSTEAD: Mapping[int, bytes] = {}

# `scan_frames`' reasons for the end of the sound frames, for messages.
_WHY = {
    "end": "the file ends",
    "nothing": "there is no frame",
    "bad head": "a frame's head is damaged",
    "foreign": "there is a frame of another segment",
    "order": "a frame does not follow from the one before",
    "bad records": "a frame's records are damaged",
    "closed": "the server had been stopped",
}


@dataclass(frozen=True, slots=True)
class Pending:
    """A frame that is not proven durable. The opening rewrites it before the server answers."""

    seq: int
    count: int
    records: bytes
    segment: int
    offset: int  # of the frame


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of the frames in a segment that a later one follows, or will follow."""

    head: SegmentHead
    offset: int
    seq: int  # of the last frame
    prev_crc: int  # its head_crc


@dataclass(slots=True)
class Found:
    """The content of a log. An empty directory has `database_id` None and the defaults."""

    database_id: bytes | None = None
    has_identity: bool = False
    epoch: int = 0  # the highest
    next_seq: int = 1
    first_segment: int = FIRST_SEGMENT
    first_frame: int = 1  # the oldest frame, or the number that it would have
    last_segment: int = 0  # the last segment that stays
    sizes: dict[int, int] = field(default_factory=dict)  # of segments with frames, after shortening
    largest_bytes: int = 0  # of all segments, before shortening
    empty_segments: list[int] = field(default_factory=list)  # later ones, to be made spares in this order
    unsealed: list[Ending] = field(default_factory=list)  # to be sealed and shortened once a later one is in use
    pending: list[Pending] = field(default_factory=list)
    index: FrameIndex = field(default_factory=FrameIndex)  # of the replayed frames
    torn: bytes = b""  # the bytes after the last sound frame
    torn_offset: int = 0
    torn_segment: int = 0
    frames: int = 0
    records: int = 0
    bytes_read: int = 0


def read_log(
    directory: Path,
    replay: Replay,
    identify: Callable[[bytes], None] | None = None,
    instead: Mapping[int, bytes] = NOTHING_INSTEAD,
) -> Found:
    """Read a whole log. Frames proven durable go to `replay` in order; the others are in `Found.pending`.

    Args:
        identify: called with the database id, if there is one, before the first frame is replayed.
        instead: contents of segments to read in place of their files. The log ends with the last of them.
    Raises:
        LogDamaged, UnsupportedFormat. DirectoryFailed: a restore into the directory has not ended.
    """
    return _Reader(directory, replay, identify, instead).read()


class _Reader:
    def __init__(
        self,
        directory: Path,
        replay: Replay,
        identify: Callable[[bytes], None] | None,
        instead: Mapping[int, bytes],
    ) -> None:
        self._directory = directory
        self._identify = identify
        self._instead = instead
        self._replay = replay
        self._found = Found()
        self._heads: dict[int, SegmentHead] = {}
        self._sizes: dict[int, int] = {}
        self._proven_seq = 0  # a sound frame or head says that every frame up to here was durable
        self._prev_crc = 0
        self._reader = SegmentReader(directory)
        self._loaded: tuple[int, memoryview] | None = None  # the segment in memory

    def read(self) -> Found:
        found = self._found
        refuse_unfinished_restore(self._directory)
        identity = read_identity(self._directory)
        last = max(self._instead, default=None)
        numbers = [number for number in segment_numbers(self._directory) if last is None or number <= last]
        found.has_identity = identity is not None
        if not numbers:
            if identity is not None:
                raise LogDamaged(f"{self._directory}: the database's segments are gone; restore them from a backup")
            return found
        self._read_heads(numbers, identity)
        found.first_segment = numbers[0]
        if self._identify is not None and found.database_id is not None:
            self._identify(found.database_id)
        for number in numbers:
            if not self._read_segment(number):
                break
        if identity is None and (found.frames or found.pending or self._proven_seq):
            raise LogDamaged(f"{self._directory}: the file `database` is missing beside a log; restore a backup")
        return found

    def _damaged(self, number: int, offset: int, what: str) -> LogDamaged:
        found = self._found
        return LogDamaged(
            f"{segment_path(self._directory, number)}: offset {offset}: {what}. Frames up to {found.next_seq - 1} are "
            f"sound, those up to {self._proven_seq} were durable. Acknowledged data is damaged or missing: restore a "
            "backup, or see `fastq log check`",
            segment=number,
            offset=offset,
            sound_seq=found.next_seq - 1,
            durable_seq=self._proven_seq,
        )

    # --- heads --------------------------------------------------------------------------------------------------------

    def _read_heads(self, numbers: list[int], identity: bytes | None) -> None:
        for number in numbers:
            path = segment_path(self._directory, number)
            try:
                if number in self._instead:
                    beginning_bytes, self._sizes[number] = (
                        self._instead[number][:HEAD_BYTES],
                        len(self._instead[number]),
                    )
                else:
                    with path.open("rb", buffering=0) as file:
                        beginning_bytes, self._sizes[number] = file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
                head = unpack_head(beginning_bytes, path)
            except OSError as error:
                raise LogDamaged(f"{path}: offset 0: cannot be read: {error.strerror}") from error
            self._heads[number] = head
            self._check_head(number, identity or self._heads[numbers[0]].database_id)
        self._found.database_id = self._heads[numbers[0]].database_id
        self._found.epoch = max(head.epoch for head in self._heads.values())
        self._found.largest_bytes = max(head.file_bytes for head in self._heads.values())

    def _check_head(self, number: int, database_id: bytes) -> None:
        head = self._heads[number]
        before = self._heads.get(number - 1)
        if head.database_id != database_id:
            raise self._damaged(number, 0, "the segment belongs to another database")
        if head.number != number:
            raise self._damaged(number, 0, f"this is segment {head.number} under another name")
        if number == FIRST_SEGMENT and head.first_seq != 1:
            raise self._damaged(number, 0, f"the log begins at frame {head.first_seq} instead of 1")
        if before is None:
            if number != min(self._sizes):  # the records decide whether earlier segments are needed
                raise self._damaged(number, 0, f"segment {number - 1} is missing")
        elif head.epoch < before.epoch:
            raise self._damaged(number, 0, f"epoch {head.epoch} comes after epoch {before.epoch}")
        elif (head.epoch == before.epoch) != (head.first_seq == 0):
            raise self._damaged(number, 0, f"epoch {head.epoch} does not begin where it should")

    # --- frames -------------------------------------------------------------------------------------------------------

    def _load(self, number: int) -> memoryview:
        """Read a segment file whole. The view is valid until the next one is loaded."""
        if self._loaded is not None and self._loaded[0] == number:
            return self._loaded[1]
        self._loaded = None
        size = self._sizes[number]
        if number + 1 in self._sizes:
            announce_segment(self._directory, number + 1)
        try:
            view = self._content(number, size)
        except OSError as error:
            raise self._damaged(number, 0, f"cannot be read: {error.strerror}") from error
        if len(view) < size:
            raise self._damaged(number, len(view), "the file became shorter while it was read")
        self._loaded = number, view
        return view

    def _content(self, number: int, size: int) -> memoryview:
        if number in self._instead:
            return memoryview(self._instead[number])
        return self._reader.read(number, size)

    def _read_segment(self, number: int) -> bool:
        """Take a segment's frames. Returns whether the log goes on in the next segment."""
        found, head, after = self._found, self._heads[number], self._heads.get(number + 1)
        if head.first_seq:
            self._prev_crc = 0
        stop_seq = after.first_seq if after else 0
        data = self._load(number)
        if number == found.first_segment:
            found.next_seq, self._prev_crc = beginning(data, head)
            found.first_frame = found.next_seq
        scanned = scan_frames(
            data, start=head.first_offset, align=head.align, segment=number, epoch=head.epoch, salt=head.salt,
            next_seq=found.next_seq, prev_crc=self._prev_crc, stop_seq=stop_seq,
        )  # fmt: skip
        end, why = scanned.end, scanned.why
        found.next_seq, self._prev_crc = scanned.next_seq, scanned.prev_crc
        found.last_segment = number
        is_sealed = why == "seal"  # then it stays as long as it is; others are shortened
        found.sizes[number] = self._sizes[number] if is_sealed else min(self._sizes[number], end + head.align)
        found.bytes_read += end
        self._prove(max(scanned.proven_seq, head.synced_seq))
        for frame in scanned.frames:
            start = frame.offset + FRAME_HEAD_BYTES
            self._take(frame.seq, frame.count, data[start : start + frame.record_bytes], number, frame.offset)
        if why == "format":
            raise UnsupportedFormat(
                f"{segment_path(self._directory, number)}: offset {end}: a frame of a later log format; start the "
                "version of fastq that wrote it"
            )
        if stop_seq:
            if found.next_seq != stop_seq:
                raise self._damaged(number, end, f"{_WHY.get(why, why)}, but segment {number + 1} begins at {stop_seq}")
            if why != "seal":
                found.unsealed.append(Ending(head, end, found.next_seq - 1, self._prev_crc))
            return True
        if why == "seal":
            if after is None:
                raise self._damaged(number, end, f"the log goes on in segment {number + 1}, which is missing")
            return True
        if self._goes_on_after_empty_segments(number):
            found.unsealed.append(Ending(head, end, found.next_seq - 1, self._prev_crc))
            return True
        self._end(number, self._load(number), end, why, any_frames=bool(scanned.frames))
        return False

    def _goes_on_after_empty_segments(self, number: int) -> bool:
        """Whether a later opening began with exactly the next frame, after segments without frames.

        A kill between a seal and the first frame after it leaves an empty segment. The next opening keeps it, since
        the seal announces it; but the seal may only be in the page cache, and a power failure may lose it.
        """
        next_seq = self._found.next_seq
        later = [n for n in self._heads if n > number and self._heads[n].first_seq]
        if not later or self._heads[min(later)].first_seq != next_seq:
            return False
        first_frames = [self._first_frame_in(n) for n in range(number + 1, min(later))]
        return all(frame is None or frame[1] < next_seq for frame in first_frames)  # a seal repeats the last seq

    def _end(self, number: int, data: memoryview, end: int, why: str, *, any_frames: bool) -> None:
        """The sound frames end in this segment. Decide whether a crash tore the tail, or data was lost."""
        found, head = self._found, self._heads[number]
        found.unsealed.append(Ending(head, end, found.next_seq - 1, self._prev_crc))
        if found.next_seq <= self._proven_seq:
            raise self._damaged(number, end, _WHY[why])
        if len(data) != head.file_bytes:
            raise self._damaged(number, end, f"the file has {len(data)} bytes instead of {head.file_bytes}")
        later = find_later_frame(
            data, start=end, align=head.align, segment=number, epoch=head.epoch, salt=head.salt,
            durable_min=found.next_seq,
        )  # fmt: skip
        if later is not None:
            offset, seq, durable_seq = later
            what = f"{_WHY[why]}, but frame {seq} at {offset} says that those up to {durable_seq} were durable"
            raise self._damaged(number, end, what)
        if why not in ("closed", "foreign", "end"):
            length = used_bytes(data, start=end)
            found.torn, found.torn_segment, found.torn_offset = bytes(data[end : end + length]), number, end
        later_numbers = [n for n in self._heads if n > number]
        for n in later_numbers:
            self._check_empty(n, end, why, number)
        if not any_frames and self._may_go(number):
            found.unsealed.pop()
            later_numbers.insert(0, number)
            found.last_segment = number - 1
        found.empty_segments = later_numbers[::-1]

    def _may_go(self, number: int) -> bool:
        """Whether an empty segment can be removed: not the first one, and not one that a seal announces."""
        unsealed = {ending.head.number for ending in self._found.unsealed}
        return number - 1 in unsealed

    def _check_empty(self, number: int, end: int, why: str, tail: int) -> None:
        """Check a segment that was prepared but not used when the log ended in segment `tail`."""
        head = self._heads[number]
        if head.first_seq:
            raise self._damaged(tail, end, f"{_WHY[why]}, but segment {number} begins at {head.first_seq}")
        if (later := self._first_frame_in(number)) is not None:
            raise self._damaged(tail, end, f"{_WHY[why]}, but segment {number} holds frame {later[1]}")

    def _first_frame_in(self, number: int) -> tuple[int, int, int] | None:
        """The first sound head of a frame in a segment: its offset, seq and durable_seq."""
        head = self._heads[number]
        return find_later_frame(
            self._load(number), start=head.first_offset, align=head.align, segment=number, epoch=head.epoch,
            salt=head.salt, durable_min=0,
        )  # fmt: skip

    # --- replay -------------------------------------------------------------------------------------------------------

    def _prove(self, seq: int) -> None:
        """Note that every frame up to `seq` was durable, and replay those that waited for this."""
        self._proven_seq = max(self._proven_seq, seq)
        pending = self._found.pending
        while pending and pending[0].seq <= self._proven_seq:
            frame = pending.pop(0)
            self._apply(frame.seq, frame.count, memoryview(frame.records), frame.segment, frame.offset)

    def _take(self, seq: int, count: int, records: memoryview, number: int, offset: int) -> None:
        if seq <= self._proven_seq:
            self._apply(seq, count, records, number, offset)
        else:
            self._found.pending.append(Pending(seq, count, bytes(records), number, offset))

    def _apply(self, seq: int, count: int, records: memoryview, number: int, offset: int) -> None:
        apply_frame(self._replay, records, self._directory, seq=seq, count=count, number=number, offset=offset)
        self._found.index.add(seq, number, offset)
        self._found.frames += 1
        self._found.records += count


def beginning(data: memoryview | mmap.mmap, head: SegmentHead) -> tuple[int, int]:
    """The sequence number of a segment's first frame, and its prev_crc."""
    if head.first_seq:
        return head.first_seq, 0
    return named_at(data, head.first_offset)


def named_at(data: memoryview | mmap.mmap, offset: int) -> tuple[int, int]:
    """The next sequence number at `offset`, and the prev_crc of the frame there."""
    flags, seq, prev_crc = _FIRST_FRAME.unpack_from(data, offset)
    return int(seq) + bool(flags), int(prev_crc)  # a seal, or a closing frame, repeats the last number


def frame_bytes(head: bytes) -> int:
    """The length of a frame without its padding, from its head; only the head's if that is not sound."""
    record_bytes = int(_FRAME.unpack_from(head)[3])
    return FRAME_HEAD_BYTES + (record_bytes if record_bytes <= FRAME_RECORD_BYTES_MAX else 0)


def records_of(data: bytes, segment: int, seq: int) -> memoryview | None:
    """The records of frame `seq`, which was read alone; None if it is not as it was written.

    Args:
        data: from the frame's head on, at least up to its last record.
    """
    epoch, salt, _, record_bytes, prev_crc = _FRAME.unpack_from(data)
    scanned = scan_frames(
        data, start=0, align=1, segment=segment, epoch=epoch, salt=salt, next_seq=seq, prev_crc=prev_crc,
        stop_seq=seq + 1,
    )  # fmt: skip
    return memoryview(data)[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + record_bytes] if scanned.frames else None


def apply_frame(
    replay: Replay, records: memoryview, directory: Path, *, seq: int, count: int, number: int, offset: int
) -> None:
    """Pass a frame's records to `replay`. Errors name the frame's place.

    Args:
        number, offset: the frame's segment and offset, for messages.
    Raises:
        LogDamaged, UnsupportedFormat.
    """
    try:
        applied = replay(records, seq)
    except UnsupportedFormat as error:
        raise UnsupportedFormat(f"{segment_path(directory, number)}: offset {offset}: frame {seq}: {error}") from error
    except LogDamaged as error:
        raise _frame_damaged(directory, seq, number, offset, str(error)) from error
    if applied != count:
        raise _frame_damaged(directory, seq, number, offset, f"{applied} records instead of {count}")


def _frame_damaged(directory: Path, seq: int, number: int, offset: int, what: str) -> LogDamaged:
    path = segment_path(directory, number)
    return LogDamaged(f"{path}: offset {offset}: frame {seq}: {what}", segment=number, offset=offset, sound_seq=seq - 1)


def check_oldest(directory: Path, found: Found, oldest_frame: int) -> None:
    """Raises LogDamaged if frames are missing that the records need.

    Args:
        oldest_frame: the first frame that they need.
    """
    if found.first_frame > oldest_frame:
        path = segment_path(directory, found.first_segment)
        missing = f"frames {oldest_frame} to {found.first_frame - 1} are missing, and the log needs them"
        raise LogDamaged(f"{path}: {missing}: restore a backup")
