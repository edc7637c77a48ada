"""Small segments: requests that come at once do not use up what ends jobs and the cleaner need on a full disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastq.engine.commands import Submit
from fastq.errors import Overloaded
from fastq.log.files.log import LocalLog
from fastq.log.files.ready import READY_SEGMENTS, RESERVE_SEGMENTS
from tests.engines import CLIENT, running
from tests.log.files.writer import quiet

SMALL = 256 << 10
BATCH = [Submit(b"9" * (SMALL // 20))] * 10  # more than half of a small segment


def small_log(directory: Path) -> LocalLog:
    return LocalLog(directory, segment_bytes=16 * SMALL, small_segment_bytes=SMALL, align=512)


async def test_batches_of_one_turn_leave_the_reserve(tmp_path: Path) -> None:
    """The segment after the reserve is made only when a log is used, so there may be none yet."""
    async with running(small_log(tmp_path)) as r:
        await quiet(r)
        assert r.log.tail.segments_offered == RESERVE_SEGMENTS
        r.engine.submit_many(CLIENT, BATCH)
        with pytest.raises(Overloaded):
            r.engine.submit_many(CLIENT, BATCH)
        assert r.log.tail.segments_offered == RESERVE_SEGMENTS
        await r.engine.caught_up()
        r.engine.submit_many(CLIENT, BATCH)
        assert r.log.tail.segments_offered >= RESERVE_SEGMENTS


async def test_a_burst_waits_for_segments_and_leaves_the_reserve(tmp_path: Path) -> None:
    async with running(small_log(tmp_path)) as r:
        await quiet(r)
        for _ in range(160):
            try:
                r.engine.submit_many(CLIENT, BATCH)
            except Overloaded:
                await r.engine.caught_up()
                r.engine.submit_many(CLIENT, BATCH)
            assert r.log.tail.segments_offered >= RESERVE_SEGMENTS
        await r.engine.durable()
        await quiet(r)
        assert r.log.tail.segments_offered == READY_SEGMENTS


async def test_a_wait_for_a_segment_ends_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(small_log(tmp_path)) as r:
        await quiet(r)
        r.engine.submit_many(CLIENT, BATCH)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fastq.log.files.ready.fill_spare", full)
        async with asyncio.timeout(0.5):
            await r.engine.caught_up()
        assert r.log.disk_full
        assert r.log.tail.segments_offered == RESERVE_SEGMENTS
