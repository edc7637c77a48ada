"""Benchmarks of the core alone: submit, lease and ack at growing backlogs, without disk, loop or HTTP.

`./dev bench` runs them. Compare the figures: a backlog of a million must cost little more than one of a thousand, a
thousand groups little more than one, all limits little more than none. FASTQ_BENCH_LARGEST=1 adds a backlog of ten
million, which takes some minutes and 2 GB.
"""

from __future__ import annotations

import os
import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.bare import Bare
from fastq._core import ALL, Ack, NewJob, QueueSettings, SubmitOptions

PAYLOAD = b'"' + b"x" * 100 + b'"'
BACKLOGS = [1_000, 100_000, 1_000_000]
if os.environ.get("FASTQ_BENCH_LARGEST"):
    BACKLOGS.append(10_000_000)
GROUPS = [1, 1_000]
OPERATIONS = 2_000
BATCH = 1_000
ALL_LIMITS = QueueSettings(
    fair=True, concurrency=10_000, group_concurrency=9_000, rate_n=1_000_000, rate_per_ms=1, max_depth=100_000_000
)
CLIENT, WORKER = "client_abcdefghijkl", "worker_abcdefghijkl"


class Backlog(Bare):
    """A core with a backlog in queue `default`."""

    def __init__(self, jobs: int, groups: int = 1, settings: QueueSettings | None = None) -> None:
        super().__init__(cache_bytes=16 << 20)
        self.core.configure_queue(self.now_us, "default", settings)
        self.now_us += 1_000_000
        rng = random.Random(1)
        options = [SubmitOptions(group=f"g{k}") if groups > 1 else None for k in range(groups)]
        for start in range(0, jobs, BATCH):
            self.now_us += 1
            batch = [
                NewJob(PAYLOAD, 3, rng.randrange(-3, 4), options=rng.choice(options))
                for _ in range(min(BATCH, jobs - start))
            ]
            self.core.submit_many(self.now_us, batch, owner_id="dev-client", key_id=CLIENT)
            self.settle()
        self.held: list[tuple[str, str]] = []

    def submit(self, options: SubmitOptions | None = None) -> None:
        self.now_us += 1
        self.core.submit(self.now_us, NewJob(PAYLOAD, 3, options=options), owner_id="dev-client", key_id=CLIENT)

    def lease(self, queues: list[str] | dict[str, int], limit: int) -> None:
        self.now_us += 1
        granted = self.core.lease(self.now_us, queues, limit, lease_ms=30_000, key_id=WORKER)
        assert len(granted) == limit
        self.held += [(leased.job_id, leased.token) for leased in granted]

    def ack_all(self, outcome: str) -> None:
        for job_id, token in self.held:
            self.core.ack(self.now_us, ALL, Ack(job_id, token, outcome), key_id=WORKER)
        self.held.clear()
        self.settle()


@pytest.mark.parametrize("backlog", BACKLOGS)
def test_submit(benchmark: BenchmarkFixture, backlog: int) -> None:
    bare = Backlog(backlog)

    def submits() -> None:
        for _ in range(OPERATIONS):
            bare.submit()
        bare.settle()

    benchmark.extra_info["operations"] = OPERATIONS
    benchmark.pedantic(submits, rounds=10)


@pytest.mark.parametrize("backlog", BACKLOGS)
def test_submit_lease_ack(benchmark: BenchmarkFixture, backlog: int) -> None:
    bare = Backlog(backlog)

    def cycles() -> None:
        for _ in range(OPERATIONS):
            bare.submit()
            bare.lease(["default"], 1)
            ((job_id, token),) = bare.held
            bare.core.ack(bare.now_us, ALL, Ack(job_id, token), key_id=WORKER)
            bare.held.clear()
        bare.settle()

    benchmark.extra_info["operations"] = OPERATIONS
    benchmark.pedantic(cycles, rounds=10)


@pytest.mark.parametrize("limits", ["no limits", "all limits"])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("backlog", BACKLOGS)
def test_lease(benchmark: BenchmarkFixture, backlog: int, groups: int, limits: str) -> None:
    """Lease one job a call; the leases are released between rounds."""
    bare = Backlog(backlog, groups, ALL_LIMITS if limits == "all limits" else None)
    operations = min(OPERATIONS, backlog // 2)

    def leases() -> None:
        for _ in range(operations):
            bare.lease(["default"], 1)

    benchmark.extra_info["operations"] = operations
    benchmark.pedantic(leases, setup=lambda: bare.ack_all("release"), rounds=20)


@pytest.mark.parametrize("groups", GROUPS)
def test_lease_by_weight_in_batches(benchmark: BenchmarkFixture, groups: int) -> None:
    """Ask for 64 queues, the most allowed; all but one are empty or do not exist."""
    bare = Backlog(100_000, groups, ALL_LIMITS)
    queues = {"default": 3} | {f"q{k}": k for k in range(1, 64)}

    def leases() -> None:
        for _ in range(OPERATIONS // 100):
            bare.lease(queues, 100)

    benchmark.extra_info["operations"] = OPERATIONS
    benchmark.pedantic(leases, setup=lambda: bare.ack_all("release"), rounds=20)
