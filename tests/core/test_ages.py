"""The age of a queue's oldest ready job, and the queues that wait the longest."""

from __future__ import annotations

import random

import pytest

from bench.bare import START_US, Bare
from fastq._core import ALL, Ack, Filter, NewJob

FILTER = Filter()
DAY_US = 86_400_000_000
MONTH_US = 30 * DAY_US


def submit_at(bare: Bare, run_at_us: int, queue: str = "default", priority: int = 0) -> str:
    """A job that becomes ready at that time."""
    new = NewJob(b"1", 3, queue=queue, run_at_us=run_at_us, priority=priority)
    job_id, _ = bare.core.submit(bare.now_us, new, owner_id="ann", key_id="k")
    bare.settle()
    return job_id


def off(bare: Bare, oldest_us: int) -> float:
    """How far the shown age is from the true one, as a share of it."""
    shown_us = bare.core.queue(bare.now_us, ALL, "default").oldest_ready_us
    return abs(shown_us - oldest_us) / max(bare.now_us - oldest_us, 3_400_000)


@pytest.mark.parametrize("order", ["oldest first", "youngest first", "any"])
@pytest.mark.parametrize("begins", ["evenly", "by octaves"])
def test_the_oldest_age_is_within_3_percent_over_a_month(order: str, begins: str) -> None:
    rng = random.Random(order + begins)
    bare = Bare()
    ages_us = [int(MONTH_US * (1 - i / 3000) if begins == "evenly" else 2 ** rng.uniform(0, 41.2)) for i in range(3000)]
    for age_us in sorted(ages_us, reverse=True):
        bare.now_us = START_US + MONTH_US - age_us
        bare.core.advance(bare.now_us, 1_000_000)
        submit_at(bare, bare.now_us)
    bare.now_us = START_US + MONTH_US
    bare.core.check()
    left = {job.job_id: job.run_at_us for job in bare.core.page(bare.now_us, ALL, FILTER, 0, 9999, 9999)[0]}
    gone = sorted(left, key=lambda job_id: left[job_id], reverse=order == "youngest first")
    if order == "any":
        rng.shuffle(gone)
    for n, job_id in enumerate(gone):
        if n % 10 == 0:
            assert off(bare, min(left.values())) <= 0.03
        bare.core.delete(bare.now_us, ALL, [job_id])
        bare.settle()
        del left[job_id]
    assert bare.core.queue(bare.now_us, ALL, "default").oldest_ready_us == 0
    bare.core.check()


def test_jobs_that_become_ready_out_of_order_have_their_own_ages() -> None:
    rng = random.Random(7)
    bare = Bare()
    bare.now_us = START_US + MONTH_US
    times = [START_US + rng.randrange(MONTH_US) for _ in range(3000)]
    left = {}
    for run_at_us in times:  # as in a replay of jobs that the cleaner has moved
        bare.now_us = run_at_us
        left[submit_at(bare, run_at_us)] = run_at_us
    bare.now_us = START_US + MONTH_US
    for job_id in list(left):
        assert off(bare, min(left.values())) <= 0.03
        bare.core.delete(bare.now_us, ALL, [job_id])
        bare.settle()
        del left[job_id]
    bare.core.check()


def test_a_low_priority_job_that_starves_is_the_oldest() -> None:
    bare = Bare()
    old_us = bare.now_us
    submit_at(bare, old_us, priority=-5)
    for _ in range(1000):
        bare.now_us += 1_000_000
        submit_at(bare, bare.now_us, priority=5)
        (lease,) = bare.core.lease(bare.now_us, ["default"], 1, lease_ms=1000, key_id="k")
        bare.core.ack(bare.now_us, ALL, Ack(lease.job_id, lease.token), key_id="k")
        bare.settle()
    assert bare.core.queue(bare.now_us, ALL, "default").oldest_ready_us == old_us


def test_a_clock_that_was_set_back_leaves_ages_and_rates_consistent() -> None:
    bare = Bare()
    bare.core.resume(bare.now_us, 1)
    for _ in range(20):
        bare.now_us += 500_000
        submit_at(bare, bare.now_us)
    oldest_us = START_US + 500_000
    bare.now_us -= 3600_000_000
    submit_at(bare, bare.now_us)
    bare.core.check()
    assert bare.core.queue(bare.now_us, ALL, "default").oldest_ready_us == bare.now_us < oldest_us
    assert bare.core.queue(bare.now_us, ALL, "default").in_per_s == pytest.approx(2, abs=0.3)
    (lease,) = bare.core.lease(bare.now_us, ["default"], 1, lease_ms=1000, key_id="k")
    bare.core.ack(bare.now_us - 10, ALL, Ack(lease.job_id, lease.token), key_id="k")
    latencies = bare.core.latencies()
    assert latencies is not None and (latencies.run_sum_us, sum(latencies.run)) == (0, 1)
    bare.core.check()


def test_the_worst_queues_are_found_among_many_at_little_cost() -> None:
    bare = Bare()
    for number in range(3000):
        bare.now_us += 1_000_000
        submit_at(bare, bare.now_us, queue=f"q{(number * 7) % 3000}")
    expected = [f"q{number * 7 % 3000}" for number in range(3000)]
    assert bare.core.worst_queues(ALL, 0, bare.core.queue_places, 10) == expected[:10]
    halves = [bare.core.worst_queues(ALL, first, first + 1500, 10) for first in (0, 1500, 3000, 4500)]
    assert set(expected[:10]) <= {name for half in halves for name in half}
    assert bare.core.worst_queues(ALL, 0, 1 << 30, 0) == []
