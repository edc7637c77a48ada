"""A new log begins with small segments, which grow with use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastq.log.files.log import ALIGN, SEGMENT_BYTES, LocalLog
from fastq.log.files.ready import READY_SEGMENTS, RESERVE_SEGMENTS
from fastq.log.files.segments import SMALL_SEGMENT_BYTES, grown_bytes
from tests.log.files.writer import Writer


def sizes(directory: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(directory.glob("segment-*"))]


async def settled(writer: Writer) -> None:
    """Return when no segment is being made."""
    ready = writer.log._ready
    while ready._work is not None:
        await asyncio.wait([ready._work])
        await asyncio.sleep(0)


async def test_an_empty_directory_takes_little_also_after_restarts(tmp_path: Path) -> None:
    for old in range(3):
        writer = await Writer(LocalLog(tmp_path)).open().start()
        await settled(writer)
        assert len(sizes(tmp_path)) - old == 1 + RESERVE_SEGMENTS
        await writer.log.close()
        assert sum(sizes(tmp_path)) <= (1 + RESERVE_SEGMENTS) * SMALL_SEGMENT_BYTES + (1 << 20)


async def test_a_used_log_gets_one_more_and_larger_ones(tmp_path: Path) -> None:
    writer = await Writer(LocalLog(tmp_path)).open().start()
    await settled(writer)
    await writer.write("a", bytes(1 << 20))
    await settled(writer)
    assert sizes(tmp_path) == [SMALL_SEGMENT_BYTES] * (1 + READY_SEGMENTS)
    for number in range(64):
        await writer.write(str(number), bytes(4 << 20))
        await settled(writer)
        assert writer.log.tail.segments_offered >= RESERVE_SEGMENTS
    made = sizes(tmp_path)
    assert made == sorted(made)
    assert made[-READY_SEGMENTS:] == [SEGMENT_BYTES] * READY_SEGMENTS
    assert writer.log.used_bytes == sum(made[:-READY_SEGMENTS])
    await writer.log.close()


def test_sizes_double_up_to_the_setting() -> None:
    used, grown = SMALL_SEGMENT_BYTES, []
    while not grown or grown[-1] < SEGMENT_BYTES:
        grown.append(grown_bytes(used, SEGMENT_BYTES))
        used += grown[-1]
    assert grown == [SMALL_SEGMENT_BYTES, 2 * SMALL_SEGMENT_BYTES, SEGMENT_BYTES]
    assert grown_bytes(1 << 40, SEGMENT_BYTES) == SEGMENT_BYTES
    assert grown_bytes(0, 4 << 20) == 4 << 20


@pytest.mark.parametrize("align", [512, ALIGN, 65536])
async def test_a_small_segment_holds_the_largest_batch(tmp_path: Path, align: int) -> None:
    writer = await Writer(LocalLog(tmp_path, align=align)).open().start()
    assert writer.log.tail.record_bytes_max >= 2 * (8 << 20)
    await settled(writer)
    await writer.log.close()
