"""What the core alone costs: submit, lease and ack at growing backlogs, without disk, loop or HTTP.

`./dev bench` runs it. What matters is how the figures relate: a backlog of a million must cost little more than one of
a thousand.
"""

from __future__ import annotations

import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastq._core import Core, Tail

START_US = 1_763_973_600_000_000
PAYLOAD = b'"' + b"x" * 100 + b'"'
BACKLOGS = [1_000, 100_000, 1_000_000]
OPERATIONS = 2_000


class Bare:
    """A core whose batches are durable as soon as they are taken."""

    def __init__(self, jobs: int) -> None:
        self.tail = Tail(4096, 16 << 20, 4 << 20)
        self.segment = 0
        self.core = Core(self.tail)
        self.now_us = START_US
        self.settle()
        self.core.identify(b"d" * 16)
        rng = random.Random(1)
        for i in range(jobs):
            self.submit(rng.randrange(-3, 4))
            if i % 64 == 0:
                self.settle()

    def submit(self, priority: int = 0) -> str:
        self.now_us += 1
        return self.core.submit(
            self.now_us, PAYLOAD, owner_id="dev-client", key_id="client_abcdefghijkl", max_retries=3, priority=priority
        )

    def settle(self) -> None:
        while (batch := self.tail.take()) is not None:
            self.tail.durable(batch.seq)
        while self.tail.segments_offered < 2:
            self.segment += 1
            self.tail.offer_segment(self.segment, 4096, 64 << 20)

    def lease_and_ack(self) -> None:
        leased = self.core.lease(self.now_us, lease_ms=30_000, key_id="worker_abcdefghijkl")
        assert leased is not None
        self.core.ack(self.now_us, leased.job_id, leased.token, key_id="worker_abcdefghijkl")


@pytest.mark.parametrize("backlog", BACKLOGS)
def test_submit(benchmark: BenchmarkFixture, backlog: int) -> None:
    bare = Bare(backlog)

    def submits() -> None:
        for _ in range(OPERATIONS):
            bare.submit()
        bare.settle()

    benchmark.extra_info["operations"] = OPERATIONS
    benchmark.pedantic(submits, rounds=10)


@pytest.mark.parametrize("backlog", BACKLOGS)
def test_submit_lease_ack(benchmark: BenchmarkFixture, backlog: int) -> None:
    bare = Bare(backlog)

    def cycles() -> None:
        for _ in range(OPERATIONS):
            bare.submit()
            bare.lease_and_ack()
        bare.settle()

    benchmark.extra_info["operations"] = OPERATIONS
    benchmark.pedantic(cycles, rounds=10)
