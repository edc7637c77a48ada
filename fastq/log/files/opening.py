"""An opening writes a new segment before the server answers: frames that are not proven durable are rewritten in it.

After a crash at any point, the next opening reads the same log.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastq.drafts import sync_directory
from fastq.log.files._flusher import FRAME_HEAD_BYTES, SEAL, fill_head
from fastq.log.files.recovery import Ending, Found, Pending
from fastq.log.files.segments import (
    SegmentHead,
    fill_spare,
    name_segment,
    recycle_segment,
    segment_path,
    spare_paths,
    write_all,
    write_identity,
)

TORN_BYTES_KEPT = 16 << 20  # of a torn tail; more than a batch takes


@dataclass(slots=True)
class Begun:
    """The first segment that an opening writes."""

    head: SegmentHead
    fd: int
    end: int  # offset after its frames
    prev_crc: int  # head_crc of the last one; 0: none
    rewritten: list[tuple[Pending, int]] = field(default_factory=list)  # each frame and its offset here
    notes: list[str] = field(default_factory=list)


def begin(
    directory: Path, found: Found, *, sizes: Sequence[int], segment_bytes: int, align: int, draw: Callable[[int], bytes]
) -> Begun:
    """Make the opening's first segment, with the frames that are not proven durable.

    Args:
        sizes: that segments may have, ascending.
        segment_bytes: the one that it should have.
        draw: returns that many random bytes.
    Raises:
        OSError.
    """
    notes = _keep_torn(directory, found)
    for number in found.empty_segments:
        recycle_segment(directory, number)
    database_id = found.database_id or draw(16)
    frames_bytes = sum(_padded(len(frame.records), align) for frame in found.pending)
    spare = _first_spare(directory, sizes, segment_bytes, frames_bytes)
    head = SegmentHead(
        database_id=database_id,
        epoch=found.epoch + 1,
        number=found.last_segment + 1,
        align=align,
        file_bytes=spare.stat().st_size,
        first_seq=found.pending[0].seq if found.pending else found.next_seq,
        synced_seq=found.next_seq - 1,
        salt=int.from_bytes(draw(8), "little"),
    )
    frames, prev_crc, offsets = _rewrite(found.pending, head)
    fd = name_segment(spare, head, frames)
    if not found.has_identity:
        # The identity comes last: a directory that names a database must have a segment.
        write_identity(directory, database_id)
    if found.pending:
        frames_were = f"{len(found.pending)} frames were" if len(found.pending) > 1 else "frame was"
        notes.append(f"the last {frames_were} not known to be on stable storage and written again")
    return Begun(
        head, fd, head.first_offset + len(frames), prev_crc, list(zip(found.pending, offsets, strict=True)), notes
    )


def _first_spare(directory: Path, sizes: Sequence[int], segment_bytes: int, frames_bytes: int) -> Path:
    """A file for the first segment. On a full disk it may be smaller: the server then starts in what there is."""
    # Frames written under larger segments may need a larger file.
    wanted_bytes = segment_bytes + (frames_bytes if frames_bytes > segment_bytes // 4 else 0)
    small_bytes = sizes[0] if frames_bytes <= sizes[0] // 4 else max(sizes[0], sizes[0] // 2 + frames_bytes)
    spare = take_spare(directory, [size for size in sizes if small_bytes <= size <= segment_bytes])
    try:
        spare = spare or fill_spare(directory, wanted_bytes)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or small_bytes >= wanted_bytes:
            raise
        spare = fill_spare(directory, small_bytes)
    assert spare is not None, "nobody breaks the fill off"
    return spare


def _padded(record_bytes: int, align: int) -> int:
    return (FRAME_HEAD_BYTES + record_bytes + align - 1) // align * align


def _rewrite(pending: list[Pending], head: SegmentHead) -> tuple[bytes, int, list[int]]:
    """The same frames for a new segment. Returns their bytes, the head_crc of the last, and each offset."""
    frames, prev_crc, offsets = bytearray(), 0, []
    for frame in pending:
        new = bytearray(_padded(len(frame.records), head.align))
        new[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + len(frame.records)] = frame.records
        prev_crc = fill_head(
            new, seq=frame.seq, durable_seq=head.first_seq - 1, epoch=head.epoch, salt=head.salt, segment=head.number,
            record_bytes=len(frame.records), count=frame.count, prev_crc=prev_crc,
        )  # fmt: skip
        offsets.append(head.first_offset + len(frames))
        frames += new
    return bytes(frames), prev_crc, offsets


def _keep_torn(directory: Path, found: Found) -> list[str]:
    """Keep a copy of the bytes after the last sound frame, for the operator. Returns notes."""
    if not found.torn:
        return []
    name = f"torn-{found.torn_segment:08d}-{found.torn_offset}-epoch-{found.epoch}"
    where = f"{segment_path(directory, found.torn_segment)}: offset {found.torn_offset}"
    cut = f"{where}: {len(found.torn)} bytes of a frame that was never acknowledged were cut"
    try:
        fd = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(fd, found.torn[:TORN_BYTES_KEPT], 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(directory)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        (directory / name).unlink(missing_ok=True)
        return [f"{cut}; the disk has no room for a copy"]
    return [f"{cut}; a copy is in {name}"]


def take_spare(directory: Path, sizes: Collection[int]) -> Path | None:
    """The largest spare that has one of `sizes`, if there is one. Removes spares of other sizes."""
    fitting: list[tuple[int, Path]] = []
    for path in spare_paths(directory):
        if (size := path.stat().st_size) in sizes:
            fitting.append((size, path))
        else:
            path.unlink()
    return max(fitting)[1] if fitting else None


def seal_and_shorten(directory: Path, ending: Ending, durable_seq: int) -> None:
    """Seal a segment that a later one follows, and free the disk behind its last frame.

    Args:
        durable_seq: the last frame known to be durable; it lies in a later segment.
    Raises:
        OSError.
    """
    head = ending.head
    frame = bytearray(head.align)
    fill_head(
        frame, seq=ending.seq, durable_seq=durable_seq, epoch=head.epoch, salt=head.salt, segment=head.number,
        record_bytes=0, count=0, prev_crc=ending.prev_crc, flags=SEAL,
    )  # fmt: skip
    fd = os.open(segment_path(directory, head.number), os.O_RDWR)
    try:
        write_all(fd, frame, ending.offset)
        os.fdatasync(fd)
        os.ftruncate(fd, ending.offset + len(frame))
        os.fsync(fd)
    finally:
        os.close(fd)
