"""Places stay true: after rewrites at a start and moves by the cleaner, each link leads to its record."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fastq._core import ALL
from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, JobOptions, Lease, Submit
from fastq.log.files.log import LocalLog
from fastq.log.memory import MemoryLog
from tests.engines import CLIENT, WORKER, Hand, Running, running
from tests.log.files.frames import checked
from tests.log.files.jobs import clean_all
from tests.log.files.writer import quiet

SEGMENT_BYTES = 128 << 10
KEPT = EngineOptions(lease_check_ms=10, log_slack_bytes=1 << 40)
CLEANED = EngineOptions(lease_check_ms=10, log_slack_bytes=2 * SEGMENT_BYTES)


def log_of(directory: Path) -> LocalLog:
    return LocalLog(directory, segment_bytes=SEGMENT_BYTES, align=512, cache_bytes=0)


async def events(r: Running, job_id: str) -> list[str]:
    return [event.what for event in (await r.ask.history(CLIENT, job_id)).events]


async def test_links_in_a_rewritten_frame_stay_true(tmp_path: Path) -> None:
    """The last frame of a killed server has a job's submit and three replaces. Two later starts both rewrite it."""
    hand, job_id = Hand(), ""
    replacing = Submit(b'"p"', options=JobOptions(unique_key="one", replace=True))
    async with running(log_of(tmp_path / "killed"), hand, KEPT) as r:
        job_id = (await r.submit_many(CLIENT, [replacing] * 4))[0]
        await quiet(r)
        shutil.copytree(tmp_path / "killed", tmp_path / "log")  # what a kill leaves
    for _ in range(2):
        async with running(log_of(tmp_path / "log"), hand, KEPT) as r:
            assert await events(r, job_id) == ["replaced"] * 3
    async with running(log_of(tmp_path / "log"), hand, CLEANED) as r:
        assert await events(r, job_id) == ["replaced"] * 3
        await clean_all(r)
        assert await events(r, job_id) == ["replaced"] * 3
    async with running(log_of(tmp_path / "log"), hand, KEPT) as r:
        assert await events(r, job_id) == ["replaced"] * 3


def packed(frame: int, offset: int, length: int) -> bytes:
    """A place as records contain it, from docs/log-format.md alone."""
    return (frame << 52 | offset << 26 | length).to_bytes(12, "little")


async def failed(r: Running, times: int, queue: str = "a") -> str:
    """Submit a job and fail it that many times."""
    job_id = await r.submit(CLIENT, Submit(b"1", max_retries=50, queue=queue))
    for number in range(times):
        leased = await r.lease_one(Lease(had_body=True, queues=(queue,)))
        await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, error=f"error {number}", retry_after_ms=0))
    return job_id


async def test_a_link_is_the_place_of_the_record_before() -> None:
    log = MemoryLog()
    async with running(log, options=KEPT) as r:
        job_id = await failed(r, 2)
        newest = r.core.job(r.hand.us, ALL, job_id).history_place
        assert newest is not None
        before = next(frame for frame in log._frames if b"error 0" in frame.records)
        assert packed(before.seq, 12, len(before.records) - 12) in (await log.read([newest]))[0]


@pytest.mark.parametrize("nowhere", [packed(1 << 40, 0, 60), packed(1, 0, 32), packed(1, 0, 8), packed(1, 9999, 8)])
async def test_a_broken_link_cuts_one_history_and_the_server_goes_on(
    nowhere: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Links that a defect might write: to no frame, to another record, into a record, past the frame."""
    log = MemoryLog(segment_bytes=SEGMENT_BYTES, cache_bytes=0)
    async with running(log, options=KEPT) as r:
        job_id, other_id = await failed(r, 3), await failed(r, 3, "b")
        first, second, _ = [frame for frame in log._frames if b"error" in frame.records][:3]
        link = packed(first.seq, 12, len(first.records) - 12)  # in a group of its own
        assert link in second.records
        broken = second.records[:12] + checked(second.records[12:].replace(link, nowhere))
        log._frames[second.seq - 1] = replace(second, records=broken)
        log = log.crash()
    async with running(log, options=CLEANED) as r:
        assert r.core.broken_links == 1
        with pytest.raises(Exception, match=r"frame|record|nothing"):
            await events(r, job_id)
        assert await events(r, other_id) == ["attempt"] * 3
        await clean_all(r)
        assert await events(r, job_id) == ["attempt"] * 2
        assert await events(r, other_id) == ["attempt"] * 3
        (message,) = [record.getMessage() for record in caplog.records if record.name == "fastq.engine.cleaner"]
        assert job_id in message
        log = log.crash()
    async with running(log, options=KEPT) as r:
        assert r.core.broken_links == 0
        assert await events(r, job_id) == ["attempt"] * 2


async def test_cached_pages_are_read_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(log_of(tmp_path / "log"), Hand(), KEPT) as r:
        job_id = await r.submit(CLIENT, Submit(b'"%s"' % (b"x" * 9000)))
        place = r.core.job(r.core.last_us, ALL, job_id).place
        (record,) = await r.log.read([place])  # so it is in the page cache from here on
        assert r.log.read_now([place, place]) == [record, record]

        def opens(*_: object) -> int:
            raise AssertionError("the loop opens no file")

        with monkeypatch.context() as patch:
            patch.setattr("os.open", opens)
            assert r.log.read_now([place]) == [record]
            r.log._spans.forget_before(1 << 30)
            assert r.log.read_now([place]) is None
