"""A new log begins with small segments, which grow with use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fastq.log.files.log import ALIGN, SEGMENT_BYTES, LocalLog
from fastq.log.files.ready import READY_SEGMENTS, RESERVE_SEGMENTS
from fastq.log.files.segments import read_head, segment_numbers
from fastq.log.files.sizes import SMALL_SEGMENT_BYTES, segment_sizes, size_in_use
from tests.log.files.writer import Writer, abandon, quiet

SMALL = 64 << 10


def small_log(directory: Path, small_bytes: int = SMALL) -> LocalLog:
    return LocalLog(directory, segment_bytes=4 * SMALL, small_segment_bytes=small_bytes, align=512, cache_bytes=0)


def sizes(directory: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(directory.glob("segment-*"))]


def made_sizes(directory: Path) -> list[int]:
    """Before they were shortened."""
    return [read_head(directory, number).file_bytes for number in segment_numbers(directory)]


async def settled(writer: Writer) -> None:
    """Return when no segment is being made."""
    await quiet(writer)
    await asyncio.sleep(0)
    await quiet(writer)


async def used(writer: Writer, count: int) -> None:
    """Write frames of an eighth of a small segment."""
    for number in range(count):
        while not writer.log.tail.has_room(SMALL // 8, 0):
            await quiet(writer)
            await asyncio.sleep(0)
        await writer.write(str(number), bytes(SMALL // 8))


async def test_an_empty_directory_takes_little_also_after_restarts(tmp_path: Path) -> None:
    for old in range(3):
        writer = await Writer(LocalLog(tmp_path)).open().start()
        await settled(writer)
        assert len(sizes(tmp_path)) - old == 1 + RESERVE_SEGMENTS
        await writer.log.close()
        assert sum(sizes(tmp_path)) <= (1 + RESERVE_SEGMENTS) * SMALL_SEGMENT_BYTES + (1 << 20)


async def test_a_used_log_gets_one_more_and_larger_ones(tmp_path: Path) -> None:
    writer = await Writer(small_log(tmp_path)).open().start()
    await settled(writer)
    await used(writer, 1)
    await settled(writer)
    assert sizes(tmp_path) == [SMALL] * (1 + READY_SEGMENTS)
    await used(writer, 64)
    await settled(writer)
    made = sizes(tmp_path)
    assert made == sorted(made)
    assert made[-READY_SEGMENTS:] == [4 * SMALL] * READY_SEGMENTS
    assert writer.log.used_bytes == sum(made[:-READY_SEGMENTS])
    await writer.log.close()


@pytest.mark.parametrize("close", [True, False])
async def test_a_log_in_use_does_not_begin_small_again(tmp_path: Path, close: bool) -> None:
    """Not even if the log takes little: its jobs are done and cleaned."""
    writer = await Writer(small_log(tmp_path, small_bytes=4 * SMALL)).open().start()
    await used(writer, 1)
    await settled(writer)
    await (writer.log.close() if close else abandon(writer))
    writer = await Writer(small_log(tmp_path)).open().start()
    await settled(writer)
    assert set(made_sizes(tmp_path)) == {4 * SMALL}
    assert len(sizes(tmp_path)) == 2 + READY_SEGMENTS
    await writer.log.close()


async def test_spares_of_a_smaller_size_are_used_up(tmp_path: Path) -> None:
    """The disk may have no room for larger ones."""
    writer = await Writer(small_log(tmp_path, small_bytes=2 * SMALL)).open().start()
    await settled(writer)
    await used(writer, 1)
    await settled(writer)
    await abandon(writer)
    (tmp_path / "spare-8").write_bytes(bytes(SMALL))
    (tmp_path / "spare-9").write_bytes(bytes(SMALL + 512))
    writer = await Writer(small_log(tmp_path)).open().start()
    await used(writer, 1)
    await settled(writer)
    assert made_sizes(tmp_path) == [2 * SMALL] * 4 + [SMALL]
    await writer.log.close()


async def test_an_opening_needs_no_more_disk_than_a_small_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await Writer(small_log(tmp_path)).open().start()
    await used(writer, 64)
    await settled(writer)
    documents = writer.documents()
    await abandon(writer)
    for number in segment_numbers(tmp_path)[-READY_SEGMENTS:]:
        (tmp_path / f"segment-{number:08d}").unlink()
    room = os.statvfs(tmp_path)
    free = SMALL * 2
    fake = os.statvfs_result([room.f_bsize, 512, room.f_blocks, free // 512, free // 512, *tuple(room)[5:10]])
    monkeypatch.setattr(os, "statvfs", lambda _: fake)
    log = small_log(tmp_path)
    assert Writer(log).open().documents() == documents
    assert made_sizes(tmp_path)[-1] < 4 * SMALL
    log._release()


def test_sizes_double_up_to_the_setting() -> None:
    small = SMALL_SEGMENT_BYTES
    ladder = segment_sizes(small, SEGMENT_BYTES)
    assert ladder == (small, 2 * small, SEGMENT_BYTES)
    assert segment_sizes(small, 4 << 20) == (4 << 20,)
    assert segment_sizes(small, small) == (small,)
    assert [size_in_use(ladder, used, 0) for used in (0, small, 2 * small, 4 * small - 1, 4 * small, 1 << 40)] == [
        small, small, 2 * small, 2 * small, SEGMENT_BYTES, SEGMENT_BYTES,
    ]  # fmt: skip
    assert [size_in_use(ladder, 0, found) for found in (small, small + 1, 2 * small, SEGMENT_BYTES, 1 << 40)] == [
        small, 2 * small, 2 * small, SEGMENT_BYTES, SEGMENT_BYTES,
    ]  # fmt: skip


@pytest.mark.parametrize("align", [512, ALIGN, 65536])
async def test_a_small_segment_holds_the_largest_batch(tmp_path: Path, align: int) -> None:
    writer = await Writer(LocalLog(tmp_path, align=align)).open().start()
    assert writer.log.tail.record_bytes_max >= 2 * (8 << 20)
    await settled(writer)
    await writer.log.close()
