"""A database that returned to an earlier state refuses lease tokens that were granted after that state."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from fastq.engine.commands import Ack, Lease, Submit
from fastq.engine.results import LeasedJob
from fastq.errors import LeaseLost, LogDamaged
from fastq.log.files.fence import FENCE_FILE, fence_at, read_fence, write_fence
from fastq.log.files.tools.check import empty_core, read_whole
from fastq.log.files.tools.dump import FrameSeen, walk
from fastq.log.files.tools.repair import carry_out, plan
from fastq.log.files.tools.restore import restore
from tests.engines import CLIENT, START_US, WORKER, Hand, Running, running
from tests.log.files.frames import HEAD_BYTES, flip
from tests.log.files.jobs import log_of, segment_files, write_jobs
from tests.log.files.tools.test_backup import offline

LEASE = Lease(had_body=True, queues=("fenced",), worker_id="w")


async def leased_once(directory: Path, hand: Hand) -> LeasedJob:
    """Lease the queue's only job, in a life that ends at once."""
    async with running(log_of(directory), hand) as r:
        return await r.lease_one(LEASE)


async def is_refused(r: Running, leased: LeasedJob) -> bool:
    try:
        await r.ask.ack(WORKER, Ack(leased.job_id, leased.token))
    except LeaseLost:
        return True
    return False


async def submit_to(directory: Path, hand: Hand) -> None:
    async with running(log_of(directory), hand) as r:
        await r.submit(CLIENT, Submit(b"1", queue="fenced"))


async def the_old_token_is_refused(directory: Path, old: LeasedJob, hand: Hand) -> LeasedJob:
    """Check that a directory without the old lease refuses its token. Returns the new lease, which is still held."""
    async with running(log_of(directory), hand) as r:
        assert await is_refused(r, old), "the job waits"
        new = await r.lease_one(LEASE)
        assert new.job_id == old.job_id and new.token != old.token
        assert await is_refused(r, old), "another worker has it"
    async with running(log_of(directory), hand) as r:
        assert await is_refused(r, old), "also after a restart"
        return new


def test_a_restored_database_takes_no_token_from_after_the_backup(memory_path: Path) -> None:
    async def play() -> None:
        data, first, second = memory_path / "data", memory_path / "first", memory_path / "second"
        hand = Hand()
        await submit_to(data, hand)
        backup = offline(data)
        original = await leased_once(data, hand)
        restore(io.BytesIO(backup), first, hand.us)
        restored = await the_old_token_is_refused(first, original, hand)
        hand.us += 60_000_000
        restore(io.BytesIO(backup), second, hand.us)
        again = await the_old_token_is_refused(second, restored, hand)
        async with running(log_of(second), hand) as r:
            assert await is_refused(r, original)
            await r.ask.ack(WORKER, Ack(again.job_id, again.token))

    asyncio.run(play())


def test_a_token_from_before_the_backup_still_works(memory_path: Path) -> None:
    async def play() -> None:
        hand = Hand()
        await submit_to(memory_path / "data", hand)
        leased = await leased_once(memory_path / "data", hand)
        restore(io.BytesIO(offline(memory_path / "data")), memory_path / "restored", hand.us)
        async with running(log_of(memory_path / "restored"), hand) as r:
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token))

    asyncio.run(play())


def test_a_backup_of_a_restored_database_gets_a_new_fence_also_after_a_clock_step(memory_path: Path) -> None:
    async def play() -> None:
        hand = Hand()
        await submit_to(memory_path / "data", hand)
        restore(io.BytesIO(offline(memory_path / "data")), memory_path / "first", hand.us)
        backup = offline(memory_path / "first")
        hand.us += 5_000_000
        old = await leased_once(memory_path / "first", hand)
        restore(io.BytesIO(backup), memory_path / "second", hand.us)
        await the_old_token_is_refused(memory_path / "second", old, hand)
        restore(io.BytesIO(backup), memory_path / "third", hand.us - 3_600_000_000)
        assert read_fence(memory_path / "third") == fence_at(START_US), "the log knows that it is later"

    asyncio.run(play())


def test_a_repair_invalidates_tokens_of_the_frames_it_gives_up(memory_path: Path) -> None:
    async def play() -> None:
        data, hand = memory_path / "data", Hand()
        await submit_to(data, hand)
        sound_seq = read_whole(data, empty_core()).next_seq - 1
        old = await leased_once(data, hand)
        seen = next(seen for seen in walk(data) if isinstance(seen, FrameSeen) and seen.seq == sound_seq + 1)
        flip(next(path for path in segment_files(data) if int(path.name[-8:]) == seen.segment),
             seen.offset + HEAD_BYTES + 9)  # fmt: skip
        carry_out(data, plan(data, seen.seq), hand.us)
        await the_old_token_is_refused(data, old, hand)

    asyncio.run(play())


def test_a_damaged_fence_is_refused(memory_path: Path) -> None:
    write_jobs(memory_path / "data", 3)
    write_fence(memory_path / "data", 1000)
    write_fence(memory_path / "data", 10)
    assert read_fence(memory_path / "data") == 1000, "it never goes back"
    flip(memory_path / "data" / FENCE_FILE, 9)
    with pytest.raises(LogDamaged, match="the fence file"):
        running(log_of(memory_path / "data")).engine.open()
