"""The rules of recovery, one by one: what is cut, what is refused, and nothing else."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
from pathlib import Path

import pytest

from fastq._core import RecordPlace
from fastq.errors import CoreFailed, LogDamaged, UnsupportedFormat
from fastq.log.files._flusher import crc32c, fill_head
from fastq.log.files.segments import SegmentHead, segment_numbers, unpack_head
from tests.log.files.frames import HEAD_BYTES, change, flip, read_segment
from tests.log.files.writer import Writer, bodies_of, local, quiet, read_back, write

BODY = b"b" * 600


def segment(directory: Path, number: int) -> Path:
    return directory / f"segment-{number:08d}"


def rewrite_head(path: Path, **fields: object) -> None:
    head = unpack_head(path.read_bytes()[:4096], path)
    values = {name: getattr(head, name) for name in SegmentHead.__slots__} | fields
    change(path, 0, SegmentHead(**values).pack())


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A killed log of five documents in one segment. Frame 1 is the RESUME record."""
    write(tmp_path, [BODY] * 5, close=False)
    return tmp_path


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A killed log over several segments of one life."""
    write(tmp_path, bodies_of([20_000] * 12), close=False)
    return tmp_path


def refusal(directory: Path) -> str:
    with pytest.raises(LogDamaged) as caught:
        read_back(directory)
    return str(caught.value)


# --- a torn tail ------------------------------------------------------------------------------------------------------


def test_a_torn_last_frame_is_cut_and_a_copy_is_kept(killed: Path) -> None:
    last = read_segment(segment(killed, 1)).frames[-1]
    flip(segment(killed, 1), last.offset + HEAD_BYTES + 50)
    torn = segment(killed, 1).read_bytes()[last.offset : last.offset + HEAD_BYTES + last.record_bytes]
    again = read_back(killed)
    assert list(again.documents()) == ["0", "1", "2", "3"]
    assert again.opened.bytes_cut == len(torn)
    (copy,) = killed.glob("torn-*")
    assert copy.read_bytes() == torn
    assert f"offset {last.offset}" in again.opened.notes[0] and copy.name in again.opened.notes[0]


async def test_a_log_goes_on_after_a_cut(killed: Path) -> None:
    flip(segment(killed, 1), read_segment(segment(killed, 1)).frames[-1].offset + 3)
    writer = await Writer(local(killed)).open().start()
    await writer.write("new", b"n")
    await writer.log.close()
    assert list(read_back(killed).documents()) == ["0", "1", "2", "3", "new"]


def test_later_frames_without_proof_are_a_torn_tail(killed: Path) -> None:
    """Two frames were in flight and only the second arrived: its durable_seq is below the first."""
    path = segment(killed, 1)
    head = read_segment(path)
    *_, before, last = head.frames
    frame = bytearray(512)
    fill_head(
        frame, seq=last.seq + 1, durable_seq=before.seq, epoch=head.epoch, salt=head.salt, segment=1, record_bytes=0,
        count=0, prev_crc=last.head_crc,
    )  # fmt: skip
    change(path, last.offset + 1024, bytes(frame))
    flip(path, last.offset + 1)
    assert list(read_back(killed).documents()) == ["0", "1", "2", "3"]


def test_a_single_frame_that_was_just_durable_is_recovered(tmp_path: Path) -> None:
    write(tmp_path, [], close=False)
    again = read_back(tmp_path)
    assert (again.opened.frames, again.opened.records) == (1, 1)
    assert again.core.database_id == again.opened.database_id


def test_a_torn_first_frame_of_a_segment_is_cut(long: Path) -> None:
    numbers = [n for n in range(1, 9) if segment(long, n).exists() and read_segment(segment(long, n)).with_records]
    path = segment(long, numbers[-1])
    kept = [f.seq for n in numbers[:-1] for f in read_segment(segment(long, n)).with_records]
    for frame in read_segment(path).frames:
        change(path, frame.offset, bytes(512))  # every head in it
    again = read_back(long)
    assert again.opened.frames == kept[-1]
    assert again.opened.bytes_cut > 0
    assert read_back(long).documents() == again.documents()


# --- what was not proven durable --------------------------------------------------------------------------------------


def test_the_last_frame_is_rewritten_and_keeps_its_place(killed: Path) -> None:
    before = read_segment(segment(killed, 1)).frames
    again = read_back(killed)
    new = read_segment(segment(killed, 2))
    assert [frame.records for frame in new.frames] == [before[-1].records]
    assert new.frames[0].seq == new.first_seq == new.synced_seq == before[-1].seq
    assert again.places[-1][0] == RecordPlace(before[-1].seq, 0, len(before[-1].records))
    assert "written again" in again.opened.notes[0]


def test_after_an_orderly_stop_nothing_is_rewritten(tmp_path: Path) -> None:
    write(tmp_path, [BODY] * 3)
    again = read_back(tmp_path)
    assert again.opened.notes == []
    assert not read_segment(segment(tmp_path, 2)).frames


def test_a_rewritten_frame_is_not_rewritten_again(killed: Path) -> None:
    assert read_back(killed).opened.notes
    for _ in range(3):
        assert read_back(killed).opened.notes == []


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_damaged_frame_before_a_proof_is_refused(killed: Path) -> None:
    frame = read_segment(segment(killed, 1)).frames[2]
    flip(segment(killed, 1), frame.offset + HEAD_BYTES + 5)
    text = refusal(killed)
    assert str(segment(killed, 1)) in text
    assert f"offset {frame.offset}" in text
    assert f"up to {frame.seq - 1} are sound" in text
    assert "fastq log check" in text


def test_after_an_orderly_stop_even_the_last_frame_is_proven(tmp_path: Path) -> None:
    write(tmp_path, [BODY] * 3)
    flip(segment(tmp_path, 1), read_segment(segment(tmp_path, 1)).with_records[-1].offset + HEAD_BYTES)
    assert "those up to 4 were durable" in refusal(tmp_path)


def test_a_damaged_frame_in_an_earlier_segment_is_refused(long: Path) -> None:
    last_of_first = read_segment(segment(long, 1)).with_records[-1]
    flip(segment(long, 1), last_of_first.offset + 20)
    assert f"offset {last_of_first.offset}" in refusal(long)


def test_a_lost_seal_before_frames_is_refused(long: Path) -> None:
    seal = read_segment(segment(long, 1)).frames[-1]
    assert seal.flags == 1
    change(segment(long, 1), seal.offset, bytes(512))
    assert "segment 2 holds frame" in refusal(long)


def test_a_zeroed_segment_is_refused_if_a_later_one_proves_it(long: Path) -> None:
    read_back(long)
    shutil.copy(segment(long, 1), long / "kept")
    change(segment(long, 1), 4096, bytes(len(segment(long, 1).read_bytes()) - 4096))
    assert "offset 4096" in refusal(long)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_missing_segment_is_refused(long: Path, number: int) -> None:
    frames = read_segment(segment(long, number)).frames
    segment(long, number).unlink()
    missing = f"segment {number} is missing"
    if number == 1:  # only the records tell what should be before the first file
        missing = f"frames 1 to {frames[-1].seq} are missing"
    assert missing in refusal(long)


def test_a_seal_without_the_segment_that_it_announces_is_refused(long: Path) -> None:
    for number in range(2, 20):
        segment(long, number).unlink(missing_ok=True)
    assert "goes on in segment 2, which is missing" in refusal(long)


def test_a_segment_after_a_sealed_one_must_exist(tmp_path: Path) -> None:
    write(tmp_path, [BODY])
    write(tmp_path, [BODY] * 2, first=1, when_quiet=True)
    for number in range(2, 20):
        segment(tmp_path, number).unlink(missing_ok=True)
    assert "goes on in segment 2, which is missing" in refusal(tmp_path)


def test_swapped_segments_are_refused(long: Path) -> None:
    os.rename(segment(long, 1), long / "aside")
    os.rename(segment(long, 2), segment(long, 1))
    os.rename(long / "aside", segment(long, 2))
    assert "segment 2 under another name" in refusal(long)


def test_a_segment_of_another_database_is_refused(long: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other, bodies_of([20_000] * 12), close=False)
    shutil.copy(segment(other, 2), segment(long, 2))
    assert "belongs to another database" in refusal(long)


def test_an_earlier_copy_of_a_segment_is_refused(long: Path) -> None:
    """The same file from a backup: right database, right number, but its frames end too early."""
    path = segment(long, 2)
    last = read_segment(path).with_records[-1]
    change(path, last.offset, bytes(path.stat().st_size - last.offset))
    assert f"offset {last.offset}" in refusal(long)


def test_an_epoch_that_goes_back_is_refused(tmp_path: Path) -> None:
    for first in range(3):
        write(tmp_path, [BODY], first=first)
    rewrite_head(segment(tmp_path, 3), epoch=1)
    assert "epoch 1 comes after epoch 2" in refusal(tmp_path)


def test_frames_of_another_epoch_are_not_taken(tmp_path: Path) -> None:
    write(tmp_path, [BODY])
    write(tmp_path, [BODY], first=1, when_quiet=True)  # the first segment is sealed
    rewrite_head(segment(tmp_path, 2), epoch=3)
    for number in segment_numbers(tmp_path)[2:]:  # those made ready show an epoch that goes back
        segment(tmp_path, number).unlink()
    assert "there is a frame of another segment" in refusal(tmp_path)


def test_a_gap_in_the_sequence_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [BODY])
    write(tmp_path, [BODY], first=1)
    rewrite_head(segment(tmp_path, 2), first_seq=4)
    assert "begins at 4" in refusal(tmp_path)


def test_a_shortened_last_segment_is_refused(killed: Path) -> None:
    os.truncate(segment(killed, 1), 40_000)
    assert "40000 bytes instead of 65536" in refusal(killed)


def test_a_damaged_head_is_refused(killed: Path) -> None:
    flip(segment(killed, 1), 30)
    assert "the segment's head is damaged" in refusal(killed)


def test_an_unreadable_segment_is_refused(killed: Path) -> None:
    segment(killed, 1).unlink()
    segment(killed, 1).mkdir()
    assert "cannot be read" in refusal(killed)


def test_invalid_records_are_refused_with_their_place(killed: Path) -> None:
    path = segment(killed, 1)
    frame = read_segment(path).frames[1]
    whole = bytearray(path.read_bytes()[frame.offset : frame.offset + HEAD_BYTES + frame.record_bytes])
    struct.pack_into("<I", whole, HEAD_BYTES + 4, 3)  # a record shorter than its head
    fill_head(
        whole, seq=frame.seq, durable_seq=frame.durable_seq, epoch=frame.epoch, salt=frame.salt, segment=1,
        record_bytes=frame.record_bytes, count=frame.count, prev_crc=frame.prev_crc,
    )  # fmt: skip
    change(path, frame.offset, bytes(whole))
    after = read_segment(path).frames[2]
    chained = bytearray(path.read_bytes()[after.offset : after.offset + HEAD_BYTES + after.record_bytes])
    (prev_crc,) = struct.unpack_from("<I", whole, 60)
    fill_head(
        chained, seq=after.seq, durable_seq=after.durable_seq, epoch=after.epoch, salt=after.salt, segment=1,
        record_bytes=after.record_bytes, count=after.count, prev_crc=prev_crc,
    )  # fmt: skip
    change(path, after.offset, bytes(chained))
    text = refusal(killed)
    assert f"offset {frame.offset}" in text


# --- identity ---------------------------------------------------------------------------------------------------------


def test_a_database_without_its_segments_is_refused(killed: Path) -> None:
    for path in killed.glob("segment-*"):
        path.unlink()
    assert "segments are gone" in refusal(killed)


def test_a_log_without_its_identity_is_refused(killed: Path) -> None:
    (killed / "database").unlink()
    assert "the file `database` is missing" in refusal(killed)


def test_a_damaged_identity_is_refused(killed: Path) -> None:
    flip(killed / "database", 14)
    assert "names the database is damaged" in refusal(killed)


def test_a_first_start_that_stopped_before_the_identity_is_completed(tmp_path: Path) -> None:
    read_back(tmp_path)
    (tmp_path / "database").unlink()
    read_back(tmp_path)
    assert (tmp_path / "database").exists()
    write(tmp_path, [BODY])
    assert len(read_back(tmp_path).documents()) == 1


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 4])
def test_another_segment_format_is_refused_and_named(killed: Path, version: int) -> None:
    packed = bytearray(segment(killed, 1).read_bytes()[:84])
    struct.pack_into("<I", packed, 8, version)
    struct.pack_into("<I", packed, 80, crc32c(packed[:80]))
    change(segment(killed, 1), 0, bytes(packed))
    with pytest.raises(UnsupportedFormat, match=f"written in log format {version}; this version of fastq reads 3"):
        read_back(killed)


def test_a_later_frame_format_is_refused(killed: Path) -> None:
    path = segment(killed, 1)
    frame = read_segment(path).frames[-1]
    head = bytearray(path.read_bytes()[frame.offset : frame.offset + 64])
    struct.pack_into("<H", head, 4, 2)
    struct.pack_into("<I", head, 60, crc32c(head[:60]))
    change(path, frame.offset, bytes(head))
    with pytest.raises(UnsupportedFormat, match=f"offset {frame.offset}: a frame of a later log format"):
        read_back(killed)


def test_a_trim_beyond_the_log_is_refused_and_deletes_nothing(tmp_path: Path) -> None:
    async def live() -> None:
        writer = await Writer(local(tmp_path)).open().start()
        with pytest.raises(CoreFailed, match="says that no frame before 1000 is needed"):
            writer.core.trim(3, 1000)
        await writer.settled()
        await writer.log.close()

    asyncio.run(live())
    assert "says that no frame before 1000 is needed" in refusal(tmp_path)
    assert read_segment(segment(tmp_path, 1)).with_records, "what there was is still there"


def killed_behind_a_seal(directory: Path) -> int:
    """Three documents in segment 1, sealed; segment 2 is empty. Returns the seal's offset."""
    write(directory, [BODY] * 3, close=False, when_quiet=True)
    first, head = segment(directory, 1), unpack_head(segment(directory, 1).read_bytes()[:4096], segment(directory, 1))
    last = read_segment(first).frames[-1]
    end = last.offset + (HEAD_BYTES + last.record_bytes + 511) // 512 * 512
    seal = bytearray(512)
    fill_head(
        seal, seq=last.seq, durable_seq=last.seq, epoch=head.epoch, salt=head.salt, segment=1, record_bytes=0, count=0,
        prev_crc=last.head_crc, flags=1,
    )  # fmt: skip
    change(first, end, bytes(seal))
    return end


@pytest.mark.parametrize("when_quiet", [False, True])
def test_a_seal_lost_to_a_power_failure_after_the_next_start_is_not_needed(tmp_path: Path, when_quiet: bool) -> None:
    """Killed after a seal and started again; then a power failure loses the seal."""
    end = killed_behind_a_seal(tmp_path)
    write(tmp_path, [BODY], close=False, first=3, when_quiet=when_quiet)
    change(segment(tmp_path, 1), end, bytes(512))
    assert list(read_back(tmp_path).documents()) == ["0", "1", "2", "3"]
    assert list(read_back(tmp_path).documents()) == ["0", "1", "2", "3"]


def test_a_segment_that_holds_only_a_seal_may_be_the_first(tmp_path: Path) -> None:
    killed_behind_a_seal(tmp_path)

    async def trim() -> None:
        writer = await Writer(local(tmp_path)).open().start()
        await quiet(writer)
        assert [frame.flags for frame in read_segment(segment(tmp_path, 2)).frames] == [1]
        sealed = segment(tmp_path, 2).read_bytes()
        for name, body in writer.documents().items():
            writer.append(name, body)
        needed = read_segment(segment(tmp_path, 3)).frames[0].seq
        writer.core.trim(3, needed)
        await writer.settled()
        writer.log.drop_before(needed)
        await quiet(writer)
        await writer.log.close()
        segment(tmp_path, 2).write_bytes(sealed)  # as after a crash between the two

    asyncio.run(trim())
    assert not segment(tmp_path, 1).exists()
    assert list(read_back(tmp_path).documents()) == ["0", "1", "2"]


async def test_frames_of_an_earlier_opening_end_where_its_copies_begin(killed: Path) -> None:
    """Its last frame was rewritten elsewhere; the file is shortened after the frames before it."""
    read_back(killed)
    writer = Writer(local(killed)).open()
    writer.log.start(writer._durable, writer._failed)
    found = [frame async for frame, _ in writer.log.frames(writer.log.oldest_part())]
    assert found == [place.frame for place, _ in writer.places[:-1]]
    await writer.log.close()


def test_a_lost_frame_before_a_later_opening_is_still_refused(tmp_path: Path) -> None:
    write(tmp_path, [BODY] * 3, close=False)
    write(tmp_path, [BODY], close=False, first=3)
    lost = read_segment(segment(tmp_path, 1)).with_records[-2]
    change(segment(tmp_path, 1), lost.offset, bytes(HEAD_BYTES))
    assert "segment 2 begins at" in refusal(tmp_path)
