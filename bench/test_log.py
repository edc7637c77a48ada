"""Benchmarks of the log alone: encoding a frame, a group commit on this disk, and recovery.

`./dev bench suites -q bench/test_log.py`. A commit's time is mostly the disk's: compare it with `sync_us`, the latency
of fdatasync. `extra_info` says what one round does.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.compare.machine import sync_us
from fastq._core import Core, CoreSettings, NewJob, Tail
from fastq.log.files.log import LocalLog

START_US = 1_763_973_600_000_000
PAYLOAD = b'"' + b"x" * 100 + b'"'
BATCHES = [1, 64, 1_000]
RECOVERED = 500_000


def submit(core: Core, count: int) -> None:
    for _ in range(count):
        core.submit(START_US, NewJob(PAYLOAD, 3), owner_id="ann", key_id="client_abcdefghijkl")


class Committing:
    """A core on a log in files with its real flusher, on a loop that runs only while a frame is in flight."""

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.log = LocalLog(directory)
        self.core = Core(self.log.tail, CoreSettings())
        opened = self.log.open(self.core)
        self.loop.run_until_complete(self._start())
        self.core.resume(START_US, opened.epoch)
        self.commit()

    async def _start(self) -> None:
        self.durable = asyncio.Event()
        self.log.start(self._on_durable, self._on_failed)

    def _on_durable(self, seq: int) -> None:
        self.log.tail.durable(seq)
        self.durable.set()

    def _on_failed(self, error: BaseException) -> None:
        raise error

    def commit(self) -> None:
        """Commit what was appended. Returns when it is durable."""
        self.loop.run_until_complete(self._commit())

    async def _commit(self) -> None:
        while (batch := self.log.tail.take()) is not None:
            self.durable.clear()
            self.log.commit(batch)
            await self.durable.wait()

    def close(self) -> None:
        self.loop.run_until_complete(self.log.close())
        self.loop.close()


@pytest.fixture
def committing(tmp_path: Path) -> Iterator[Committing]:
    made = Committing(tmp_path / "log")
    yield made
    made.close()


@pytest.mark.parametrize("jobs", BATCHES)
def test_encode(benchmark: BenchmarkFixture, jobs: int) -> None:
    """Apply jobs, encode their records, and take the batch: no disk."""
    tail = Tail(4096, 0, 4 << 20)
    segment = 0

    core = Core(tail, CoreSettings())
    core.identify(b"d" * 16)

    def encoded() -> None:
        nonlocal segment
        while tail.segments_offered < 2:
            segment += 1
            tail.offer_segment(segment, 4096, 64 << 20)
        submit(core, jobs)
        while (batch := tail.take()) is not None:
            tail.durable(batch.seq)

    benchmark.extra_info["jobs"] = jobs
    benchmark(encoded)


@pytest.mark.parametrize("jobs", BATCHES)
def test_group_commit(benchmark: BenchmarkFixture, committing: Committing, tmp_path: Path, jobs: int) -> None:
    """The time from a frame's first record until the frame is durable."""

    def committed() -> None:
        submit(committing.core, jobs)
        committing.commit()

    benchmark.extra_info |= {"jobs": jobs, "sync_us": round(sync_us(tmp_path, 4096))}
    benchmark.pedantic(committed, rounds=200, warmup_rounds=5)  # type: ignore[no-untyped-call]


def test_recovery(benchmark: BenchmarkFixture, committing: Committing, tmp_path: Path) -> None:
    """Open a log of half a million jobs after a crash. `bytes`: the size of its files."""
    for _ in range(RECOVERED // 1000):
        submit(committing.core, 1000)
        committing.commit()
    copies = 0

    def copied() -> tuple[tuple[Path], dict[str, object]]:
        nonlocal copies
        copies += 1
        path = tmp_path / f"copy{copies}"
        shutil.copytree(tmp_path / "log", path)
        return (path,), {}

    def recovered(path: Path) -> None:
        log = LocalLog(path)
        core = Core(log.tail, CoreSettings())
        opened = log.open(core)
        assert core.counts()["READY"] == RECOVERED
        benchmark.extra_info |= {"jobs": RECOVERED, "bytes": opened.bytes_read}
        asyncio.run(log.close())

    benchmark.pedantic(recovered, setup=copied, rounds=3)  # type: ignore[no-untyped-call]
    if benchmark.stats is not None:
        benchmark.extra_info["mb_per_s"] = round(benchmark.extra_info["bytes"] / benchmark.stats["median"] / 1e6, 1)
