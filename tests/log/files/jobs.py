"""A log in files with real jobs in it, written by a real engine."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, Lease, Submit
from fastq.log.files.log import LocalLog
from tests.engines import CLIENT, WORKER, Hand, Running, running, until

SEGMENT_BYTES = 64 << 10
PAYLOAD = b'"payload-canary ' + b"p" * 3000 + b'"'
RESULT = b'"result-canary"'
OPTIONS = EngineOptions(lease_check_ms=10, retention_acked_ms=1000, log_slack_bytes=1 << 40)
CLEANED = EngineOptions(lease_check_ms=10, retention_acked_ms=1000, log_slack_bytes=4 * SEGMENT_BYTES)


def log_of(directory: Path, segment_bytes: int = SEGMENT_BYTES) -> LocalLog:
    return LocalLog(directory, segment_bytes=segment_bytes, align=512, cache_bytes=0)


async def has_room(r: Running) -> bool:
    """Whether the next segment was made ready, and the cleaner keeps up."""
    return r.engine.commits.has_room(24 << 10, spare_segments=1) and not r.engine.cleaner.is_behind


async def clean_all(r: Running) -> None:
    """Let the cleaner move everything that is live."""
    end = r.log.tail.appended_seq

    async def is_clean() -> bool:
        await until(lambda: has_room(r))
        if r.engine.cleaner.is_behind:
            return False
        await r.ask.delete(CLIENT, await r.submit(CLIENT, Submit(b'"' + b"x" * 12_000 + b'"', queue="ticks")))
        return r.core.oldest_frame > end

    await until(is_clean)
    assert not r.failures


async def work(r: Running, jobs: int, rng: random.Random) -> list[str]:
    """Submit, lease, ack, fail and extend. Returns the submitted ids."""
    ids = [await r.submit(CLIENT, Submit(PAYLOAD, max_retries=2, queue=rng.choice(["a", "b"])))]
    while len(ids) < jobs:
        await until(lambda: has_room(r))
        ids += await r.submit_many(CLIENT, [Submit(PAYLOAD, max_retries=2, queue="a")] * 2)
        (leased,) = await r.ask.lease(WORKER, Lease(had_body=True, queues=("a", "b"), worker_id="w"))
        chance = rng.random()
        if chance < 0.2:
            await r.ask.extend(WORKER, [(leased.job_id, leased.token)], 3_600_000)
        elif chance < 0.9:
            error = "boom-canary" if chance < 0.4 else ""
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, result=RESULT, error=error))
        r.hand.us += 20_000
    return ids


async def write_jobs_async(
    directory: Path, jobs: int, *, lives: int = 2, killed: bool = False, clean: bool = False, seed: int = 1
) -> list[str]:
    """Write jobs in several lives; the last one is killed or closed. Returns the ids."""
    rng, hand, ids = random.Random(seed), Hand(), []
    options = CLEANED if clean else OPTIONS
    for _ in range(lives):
        log = log_of(directory)
        async with running(log, hand, options) as r:
            await r.ask.put_document(7, "a-document", b"body-canary")
            ids += await work(r, jobs, rng)
            if clean:

                async def is_clean(r: Running = r, log: LocalLog = log) -> bool:
                    await until(lambda: has_room(r))
                    await r.submit(CLIENT, Submit(b"1", queue="ticks"))
                    return r.core.oldest_frame > 1 and log.used_bytes <= r.engine.cleaner.bound_bytes

                await until(is_clean)
            if killed:
                log._opened_seq = log._durable_seq  # as after a kill: close writes no closing frame
    return ids


def write_jobs(
    directory: Path, jobs: int = 30, *, lives: int = 2, killed: bool = False, clean: bool = False, seed: int = 1
) -> list[str]:
    """`write_jobs_async` for tests that have no loop."""
    return asyncio.run(write_jobs_async(directory, jobs, lives=lives, killed=killed, clean=clean, seed=seed))


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below it."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def copy_of(directory: Path, name: str) -> Path:
    """A copy of the log in another directory."""
    return Path(shutil.copytree(directory, directory.with_name(name)))


def segment_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("segment-*"))
