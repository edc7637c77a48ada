"""Repair a damaged log so that a server starts on it: keep the frames before the damage, move the rest aside.

A repair deletes nothing. Recovery reads the planned result before the repair begins. Until the last file is moved a
server refuses the directory. A second repair does the rest of one that was killed, and keeps files where that one did.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fastq._core import Core, CoreSettings, Tail, job_id_by_number
from fastq.drafts import sync_directory
from fastq.errors import LogDamaged, NothingToRepair, RepairRefused, UnsupportedFormat
from fastq.log.files._flusher import CLOSED, FRAME_HEAD_BYTES, SEAL, fill_head, scan_frames
from fastq.log.files.fence import fence_at, write_fence
from fastq.log.files.recovery import apply_frame, beginning, named_at, read_log
from fastq.log.files.segments import (
    HEAD_BYTES,
    SegmentHead,
    SegmentReader,
    read_head,
    segment_numbers,
    segment_path,
    write_all,
)
from fastq.log.files.tools.backup import write_end
from fastq.log.files.tools.check import COPY, ITSELF, Losses, empty_core, losses_from, read_whole

GIVING_UP, GIVEN_UP = "giving-up-", "given-up-"  # directories for the files given up: until it is done, and after


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of the consecutive frames."""

    head: SegmentHead  # of the segment
    offset: int  # in the segment, after the last frame
    next_seq: int
    prev_crc: int  # head_crc of the last frame; 0 if this opening has none
    first_frame: int  # of the log
    seals: tuple[
        tuple[SegmentHead, int], ...
    ] = ()  # (head, offset) of earlier segments' seals that know of later frames


@dataclass(slots=True)
class Plan:
    """The changes of a repair."""

    cut: Cut
    changed: dict[int, bytes]  # segments and their new content; the last one is the one that is cut
    given_up: list[int]  # later segments
    core: Core  # the remaining state
    losses: Losses

    def lost(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each job with records in the frames given up: its id, or number, and what is lost."""
        for number, losses in self.losses.jobs.items():
            known = job_id_by_number(self.core, number) is not None
            words = [ITSELF if word == COPY and not known else word for word in losses if word != COPY or not known]
            if not known and ITSELF not in words:
                words.append("and the remaining log does not have it")
            if words:
                yield self.losses.job_id(number, self.core), words


def plan(directory: Path, truncate_at: int) -> Plan:
    """Plan to give up the frames from `truncate_at` on. Writes nothing to `directory`.

    Raises:
        RepairRefused: the damage begins elsewhere, or nothing would be left. UnsupportedFormat, OSError,
        DirectoryFailed.
    """
    try:
        read_whole(directory, empty_core())
    except LogDamaged:
        pass
    else:
        raise NothingToRepair(f"{directory}: the log is sound and a server starts on it: there is nothing to repair")
    cut = _follow(directory, 0)
    try:
        core, tail = _replayed(directory, cut)
    except LogDamaged as error:  # sound frames with invalid records
        if not error.sound_seq or error.sound_seq + 1 >= cut.next_seq:
            raise RepairRefused(f"truncating does not help: {error}") from error
        cut = _follow(directory, error.sound_seq + 1)
        core, tail = _replayed(directory, cut)
    if truncate_at != cut.next_seq:
        raise RepairRefused(
            f"frames up to {cut.next_seq - 1} are sound: give up neither more nor less than what comes after them, "
            f"with --truncate-at {cut.next_seq}"
        )
    losses = losses_from(directory, cut.head.number, cut.next_seq)
    changed = _changed(directory, cut, _trim_frame(directory, cut, core, tail, losses))
    core = empty_core()
    read_whole(directory, core, changed)
    core.check()
    given_up = [number for number in segment_numbers(directory) if number > cut.head.number]
    return Plan(cut, changed, given_up, core, losses)


def carry_out(directory: Path, repair: Plan, now_us: int) -> Path:
    """Carry out a plan. The caller holds the directory's lock.

    Args:
        now_us: the wall clock, for the fence: tokens of leases that are given up become invalid.
    Returns:
        The directory with the files that were given up.
    Raises:
        OSError: a second repair does the rest, and so it does after a kill.
    """
    write_fence(directory, fence_at(max(now_us, repair.core.last_us)))
    aside = _aside(directory) or _new_aside(directory, repair.cut.next_seq)
    for number, content in repair.changed.items():
        _replace(segment_path(directory, number), content, aside)
    for given_up in repair.given_up:  # until the last one is moved, the log has a gap and no server starts
        path = segment_path(directory, given_up)
        _keep(path, aside)
        path.unlink()
        sync_directory(directory)
    core = empty_core()
    read_whole(directory, core)
    assert core.state_hash() == repair.core.state_hash(), "the result is the plan's"
    done = finish(directory)
    assert done is not None, "it is there"
    return done


def finish(directory: Path) -> Path | None:
    """Name the directory with the files given up as the work is done. None if there is no such directory.

    Raises:
        OSError.
    """
    aside = _aside(directory)
    if aside is None:
        return None
    name, taken = aside.name.replace(GIVING_UP, GIVEN_UP), {entry.name for entry in os.scandir(directory)}
    done = next(directory / free for n in range(1, len(taken) + 2) if (free := f"{name}-{n}") not in taken)
    for draft in aside.glob("*.new"):
        draft.unlink()
    os.rename(aside, done)
    sync_directory(directory)
    return done


def _aside(directory: Path) -> Path | None:
    """Where a repair that was killed had begun to move files to."""
    return next(iter(sorted(directory.glob(f"{GIVING_UP}*"))), None)


def _new_aside(directory: Path, seq: int) -> Path:
    path = directory / f"{GIVING_UP}{seq}"
    path.mkdir(mode=0o700)
    sync_directory(directory)
    return path


def _replace(path: Path, content: bytes, aside: Path) -> None:
    """Give a segment new content. The old file stays in `aside`."""
    new = aside / f"{path.name}.new"
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, content, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    _keep(path, aside)
    os.rename(new, path)
    sync_directory(aside)
    sync_directory(path.parent)


def _keep(path: Path, aside: Path) -> None:
    """Keep a file in `aside`, durably, beside one of that name which an earlier repair kept."""
    kept = sorted(aside.glob(f"{path.name}*"))
    if not any(path.samefile(file) for file in kept):
        names = {file.name for file in kept}
        free = (f"{path.name}.{n}" if n else path.name for n in range(len(kept) + 1))
        os.link(path, aside / next(name for name in free if name not in names))
    sync_directory(aside)


# --- where it ends ----------------------------------------------------------------------------------------------------


def _usable_heads(directory: Path) -> list[SegmentHead]:
    """The heads of consecutive segments from the first on."""
    heads: list[SegmentHead] = []
    for number in segment_numbers(directory):
        try:
            head = read_head(directory, number)
        except LogDamaged:
            break
        before = heads[-1] if heads else replace(head, number=number - 1)
        if head.number != number or number != before.number + 1 or head.database_id != before.database_id:
            break
        if head.epoch < before.epoch or (bool(heads) and (head.epoch > before.epoch) != bool(head.first_seq)):
            break
        heads.append(head)
    return heads


def _follow(directory: Path, limit: int) -> Cut:
    """Follow the sound frames up to the first damage, or up to `limit` (exclusive; 0: no limit).

    Raises:
        RepairRefused: not even the first frame is sound.
    """
    heads, reader = _usable_heads(directory), SegmentReader(directory)
    cut: Cut | None = None
    seals: list[tuple[SegmentHead, int, int]] = []
    next_seq = prev_crc = first_seq = 0
    for i, head in enumerate(heads):
        data = reader.read(head.number)
        if head.first_seq:
            prev_crc = 0
        if i == 0 and len(data) >= head.first_offset + FRAME_HEAD_BYTES:
            next_seq, prev_crc = beginning(data, head)
            first_seq = next_seq
        anew = next((later.first_seq for later in heads[i + 1 :] if later.first_seq), 0)
        stop_seq = min(seq for seq in (anew, limit, 1 << 63) if seq)
        scanned = scan_frames(
            data, start=head.first_offset, align=head.align, segment=head.number, epoch=head.epoch, salt=head.salt,
            next_seq=next_seq, prev_crc=prev_crc, stop_seq=stop_seq, listed=False,
        )  # fmt: skip
        end, next_seq, prev_crc, why = scanned.end, scanned.next_seq, scanned.prev_crc, scanned.why
        if why == "format":
            raise UnsupportedFormat(f"{segment_path(directory, head.number)}: offset {end}: a later log format")
        last_crc = named_at(data, end)[1] if why == "seal" else prev_crc
        known_later = tuple((sealed, at) for sealed, at, seq in seals if seq >= next_seq)
        cut = Cut(head, end, next_seq, last_crc, first_seq, known_later)
        if why == "seal":
            seals.append((head, end, scanned.proven_seq))
        if next_seq == limit or (why != "seal" and next_seq != anew):
            break
    if cut is None or cut.next_seq <= first_seq:
        raise RepairRefused(f"{directory}: no frame at the beginning is sound: restore a backup")
    return cut


# --- what is left -----------------------------------------------------------------------------------------------------


def _changed(directory: Path, cut: Cut, more: bytes) -> dict[int, bytes]:
    """The segments to change. A seal that knows of frames that are given up is written anew."""
    changed = {}
    for head, offset in cut.seals:
        data = bytearray(SegmentReader(directory).read(head.number))
        next_seq, last_crc = named_at(memoryview(data), offset)
        write_end(memoryview(data)[offset : offset + head.align], head, next_seq - 1, last_crc, SEAL)
        changed[head.number] = bytes(data)
    return changed | {cut.head.number: _cut_segment(directory, cut, more)}


def _cut_segment(directory: Path, cut: Cut, more: bytes) -> bytes:
    """The content of the cut segment: its frames, `more` (a frame or nothing), and a closing frame."""
    align, last_seq, prev_crc = cut.head.align, cut.next_seq - 1, cut.prev_crc
    kept = bytes(SegmentReader(directory).read(cut.head.number)[: cut.offset]) + more
    if more:
        last_seq, prev_crc = last_seq + 1, int.from_bytes(more[FRAME_HEAD_BYTES - 4 : FRAME_HEAD_BYTES], "little")
    closing = bytearray(align)
    write_end(memoryview(closing), cut.head, last_seq, prev_crc, CLOSED)
    head = replace(cut.head, file_bytes=len(kept) + align, synced_seq=min(cut.head.synced_seq, last_seq))
    return head.pack() + kept[HEAD_BYTES:] + closing


def _replayed(directory: Path, cut: Cut) -> tuple[Core, Tail]:
    """Replay the remaining frames. Returns the core and its tail. Raises LogDamaged, UnsupportedFormat."""
    tail = Tail(cut.head.align, 0, 1 << 20)
    core = Core(tail, CoreSettings())
    found = read_log(directory, core.replay, core.identify, _changed(directory, cut, b""))
    for frame in found.pending:
        apply_frame(
            core.replay, memoryview(frame.records), directory,
            seq=frame.seq, count=frame.count, number=frame.segment, offset=frame.offset,
        )  # fmt: skip
    return core, tail


def _trim_frame(directory: Path, cut: Cut, core: Core, tail: Tail, losses: Losses) -> bytes:
    """A frame with a new TRIM record, if the TRIM for the missing first segments is given up; else nothing.

    Raises:
        RepairRefused: no record allows those segments to be missing.
    """
    first, head = cut.first_frame, cut.head
    if core.oldest_frame >= first:
        return b""
    if losses.oldest_frame < first:
        raise RepairRefused(f"{directory}: frames {core.oldest_frame} to {first - 1} are missing: restore a backup")
    tail.resume(cut.next_seq)
    tail.offer_segment(head.number, cut.offset, cut.offset + 4 * head.align)
    core.trim(core.last_us, first)
    batch = tail.take()
    assert batch is not None and batch.seq == cut.next_seq and batch.offset == cut.offset
    frame = bytearray(memoryview(batch))
    fill_head(
        frame, seq=batch.seq, durable_seq=batch.seq - 1, epoch=head.epoch, salt=head.salt, segment=head.number,
        record_bytes=batch.record_bytes, count=batch.count, prev_crc=cut.prev_crc,
    )  # fmt: skip
    return bytes(frame)
