"""The reserve of the log stays for those whom it is for, whoever finds the disk full, and when."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, Lease, Submit
from fastq.engine.commits import CLEANER_SEGMENTS
from fastq.engine.results import LeasedJob
from fastq.errors import ApiError, DiskFull, Overloaded
from fastq.log.files import ready
from fastq.log.files.log import LocalLog
from fastq.log.files.ready import READY_SEGMENTS
from fastq.log.protocol import RESERVE_SEGMENTS
from tests.engines import CLIENT, WORKER, FullDisk, Hand, Running, fill, running, until
from tests.log.files.jobs import log_of

JOBS = 1000
LEASE_MS = 60_000


@pytest.fixture
async def leased() -> AsyncIterator[Running]:
    """A log without room for more segments, and 1,000 jobs that run."""
    options = EngineOptions(lease_check_ms=3_600_000)
    async with running(FullDisk(segment_bytes=1 << 20, cache_bytes=0), Hand(), options) as r:
        await r.submit_many(CLIENT, [Submit(b"1", max_retries=1)] * JOBS)
        yield r


async def lease_all(r: Running) -> list[LeasedJob]:
    taken: list[LeasedJob] = []
    while len(taken) < JOBS:
        taken += await r.ask.lease(WORKER, Lease(had_body=True, limit=100, lease_ms=LEASE_MS))
    return taken


async def store(r: Running) -> None:
    """Store documents, which may be stored for as long as jobs may be acked."""
    number = 0
    while True:
        await r.ask.put_document(7, str(number), b"x" * 1000)
        number += 1


async def test_the_reserve_is_kept_before_the_disk_is_known_to_be_full(leased: Running) -> None:
    """It shows when the next segment is made. New jobs have used a segment meanwhile, and so have acks."""
    r, tail = leased, leased.log.tail
    held = await lease_all(r)
    with pytest.raises(Overloaded):
        await fill(r)
    assert tail.segments_offered == RESERVE_SEGMENTS
    with pytest.raises(Overloaded):
        await store(r)
    assert tail.segments_offered == CLEANER_SEGMENTS
    r.log.disk_full = True
    with pytest.raises(DiskFull):
        await r.ask.ack(WORKER, Ack(held[0].job_id, held[0].token, result=b'"' + b"r" * 20_000 + b'"'))
    assert tail.segments_offered == CLEANER_SEGMENTS
    assert r.engine.commits.has_room(20_000, is_cleaner=True)


@pytest.mark.parametrize("is_known", [False, True])
async def test_what_the_server_does_by_itself_leaves_the_segment_of_the_cleaner(
    leased: Running, is_known: bool
) -> None:
    """Answers are not delivered, leases expire, finished jobs are forgotten."""
    r, tail = leased, leased.log.tail
    held = await lease_all(r)
    r.log.disk_full = is_known
    with pytest.raises(ApiError):
        await store(r)
    assert tail.segments_offered == CLEANER_SEGMENTS
    r.engine.take_back(held[: JOBS // 2])
    await r.engine.durable()
    assert r.core.counts()["RUNNING"] > JOBS // 2, "all answers were taken back: there was room"
    assert tail.segments_offered == CLEANER_SEGMENTS
    r.hand.us += 2 * LEASE_MS * 1000
    while r.engine._expiry.expire(r.engine.now_us()):
        assert r.core.counts()["RUNNING"], "all leases expired: there was room"
        await r.engine.durable()
    r.engine._retention.forget(r.engine.now_us() + (1 << 50))
    await r.engine.durable()
    assert tail.segments_offered == CLEANER_SEGMENTS


async def test_a_full_disk_that_shows_late_leaves_the_whole_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next segment is made slower than jobs fill the one in use, and then there is no space for it."""
    go_on, fill_spare = threading.Event(), ready.fill_spare

    def slow(*_: object) -> None:
        go_on.wait()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = log_of(tmp_path)
    assert isinstance(log, LocalLog)
    async with running(log) as r:

        async def all_made() -> bool:
            return log.tail.segments_offered == READY_SEGMENTS

        async def is_known() -> bool:
            return log.disk_full

        await until(all_made)
        ids = await r.submit_many(CLIENT, [Submit(b"1")] * 20)
        monkeypatch.setattr(ready, "fill_spare", slow)
        try:
            with pytest.raises(Overloaded):
                await fill(r)
        finally:
            go_on.set()
        await until(is_known)
        with pytest.raises(DiskFull):
            await fill(r)
        assert log.tail.segments_offered == RESERVE_SEGMENTS
        for _ in ids:
            job = await r.lease_one(Lease(had_body=True))
            await r.ask.ack(WORKER, Ack(job.job_id, job.token, result=b'"' + b"r" * 1000 + b'"'))
        monkeypatch.setattr(ready, "fill_spare", fill_spare)
        assert log.tail.segments_offered >= CLEANER_SEGMENTS
