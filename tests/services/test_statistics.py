"""Figures: rates and durations over time, and sweeps over the queues of a caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fastq._core import LATENCY_BOUNDS_US, latency_bucket
from fastq.engine.commands import Ack, Lease, Principal, Submit
from fastq.services import statistics
from fastq.services.statistics import Statistics, memory_bytes, quantile
from tests.engines import CLIENT, OTHER, WORKER, Running, running

ADMIN = Principal("admin_1", "root", "admin", frozenset())


def counts_of(*durations_us: int) -> list[int]:
    counts = [0] * (len(LATENCY_BOUNDS_US) + 1)
    for us in durations_us:
        counts[latency_bucket(us)] += 1
    return counts


def test_a_quantile_is_within_a_quarter_of_the_duration() -> None:
    durations = [1_000] * 90 + [50_000] * 9 + [3_000_000]
    counts = counts_of(*durations)
    for share, wanted in ((0.5, 1_000), (0.95, 50_000), (0.999, 3_000_000)):
        found = quantile(counts, share)
        assert found is not None
        assert wanted / 1.25 <= found <= wanted * 1.25


def test_no_duration_has_no_quantile_and_one_without_bound_counts_as_the_last_bound() -> None:
    assert quantile(counts_of(), 0.5) is None
    assert quantile(counts_of(1 << 60), 0.99) == LATENCY_BOUNDS_US[-1]
    assert quantile(counts_of(0), 1.0) == LATENCY_BOUNDS_US[0]


def test_the_memory_of_this_process() -> None:
    assert 5 << 20 < memory_bytes() < 64 << 30


@pytest.fixture
async def one() -> AsyncIterator[Running]:
    async with running() as engine:
        yield engine


@pytest.fixture
async def figures(one: Running) -> AsyncIterator[Statistics]:
    found = Statistics(one.engine)
    found.start()
    yield found
    found.stop()


async def test_rates_are_of_the_samples(one: Running, figures: Statistics) -> None:
    assert figures.rates(60)["submitted"] == 0.0  # one sample: there is no time yet
    for second in range(1, 71):
        for _ in range(20 if second > 60 else 1):
            await one.submit(CLIENT, Submit(b"1"))
        one.hand.us += 1_000_000
        figures.sample()
    assert figures.rates(1)["submitted"] == pytest.approx(20)
    assert figures.rates(10)["submitted"] == pytest.approx(20)
    assert figures.rates(60)["submitted"] == pytest.approx((50 + 200) / 60)
    assert len(figures.by_second()) == 60
    assert figures.by_second()[-1]["submitted"] == pytest.approx(20)


async def test_durations_are_of_the_last_minute(one: Running, figures: Statistics) -> None:
    assert figures.durations_us("run") == (None, None, None)
    await one.submit(CLIENT, Submit(b"1"))
    one.hand.us += 8_000_000
    leased = await one.lease_one(Lease())
    one.hand.us += 2_000_000
    await one.ask.ack(WORKER, Ack(leased.job_id, leased.token))
    figures.sample()
    for name, wanted_us in (("wait", 8_000_000), ("run", 2_000_000)):
        found = figures.durations_us(name)[0]
        assert found is not None
        assert wanted_us / 1.25 <= found <= wanted_us * 1.25
    for _ in range(61):
        figures.sample()
    assert figures.durations_us("run") == (None, None, None)


async def test_everybody_who_asks_at_the_same_time_shares_a_sweep(
    one: Running, figures: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = 0
    sweep = figures._sweep

    async def counted(access: object) -> object:
        nonlocal sweeps
        sweeps += 1
        return await sweep(access)  # type: ignore[arg-type]

    monkeypatch.setattr(figures, "_sweep", counted)
    await asyncio.gather(*(figures.overview(ADMIN) for _ in range(50)))
    await figures.overview(ADMIN)
    assert sweeps == 1
    one.hand.us += 2_000_000
    await figures.overview(ADMIN)
    assert sweeps == 2


async def test_one_that_asks_and_goes_leaves_the_sweep_to_the_others(one: Running, figures: Statistics) -> None:
    gone, stays = (asyncio.create_task(figures.overview(ADMIN)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).totals.queues == 0


async def test_the_outcomes_of_sweeps_are_bounded(
    one: Running, figures: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "KEPT_MAX", 3)
    for owner in range(10):
        await figures.overview(Principal("k", f"owner-{owner}", "client", frozenset()))
    assert len(figures._sweeps) == 3


async def test_worst_queues_come_first_across_slices(
    one: Running, figures: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SLICE_PLACES", 3)
    monkeypatch.setattr(statistics, "SLICE_HOLDINGS", 3)
    for n in (4, 0, 9, 2, 7, 5, 1, 8, 3, 6):
        await one.submit(CLIENT, Submit(b"1", queue=f"q{n}", delay_ms=(1 + n) * 1_000))
    await one.submit(CLIENT, Submit(b"1", queue="later", delay_ms=60_000))
    one.hand.us += 21_000_000
    one.engine.run_due()
    names = [view.name for view in await figures.worst(ADMIN, 4)]
    assert names == ["q0", "q1", "q2", "q3"]
    overview = await figures.overview(ADMIN)
    assert [view.name for view in overview.queues] == [*(f"q{n}" for n in range(10)), "later"]
    assert overview.totals.queues == 11
    assert one.hand.us - overview.oldest_ready_us == pytest.approx(20_000_000, rel=0.04)


async def test_an_owner_gets_its_own_totals_in_any_number_of_slices(
    one: Running, figures: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SLICE_HOLDINGS", 2)
    for n in range(7):
        await one.submit(CLIENT, Submit(b"1", queue=f"q{n}"))
        await one.submit(OTHER, Submit(b"1", queue=f"q{n}"))
    await one.submit(CLIENT, Submit(b"1", queue="q3"))
    await one.submit(CLIENT, Submit(b"1", queue="q5", delay_ms=60_000))
    await one.ask.lease(WORKER, Lease(queues=("q0",), limit=2))
    totals = await figures.totals(CLIENT)
    assert (totals.runnable, totals.running, totals.scheduled, totals.queues) == (7, 1, 1, 7)
    overview = await figures.overview(CLIENT)
    assert overview.queues[0].name == "q3"  # the most ready jobs
    assert [view.ready for view in overview.queues] == [2, 1, 1, 1, 1, 1, 0]
    assert overview.oldest_ready_us == 0


async def test_a_key_of_some_queues_gets_the_totals_of_these(one: Running, figures: Statistics) -> None:
    for queue in ("a", "b", "c"):
        await one.submit(CLIENT, Submit(b"1", queue=queue))
    bound = Principal("worker_9", "ops", "worker", frozenset({"jobs:read"}), frozenset({"a", "c", "absent"}))
    totals = await figures.totals(bound)
    assert (totals.runnable, totals.queues) == (2, 2)
    assert sorted(view.name for view in await figures.worst(bound, 10)) == ["a", "c"]


async def test_a_hundred_thousand_queues_hold_up_nobody(one: Running, figures: Statistics) -> None:
    """A sweep pauses between its slices, and shows the worst 100."""
    total = 100_000
    for first in range(0, total, 10_000):
        await one.ask.submit_many(CLIENT, [Submit(b"1", queue=f"q{first + n}") for n in range(10_000)])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    try:
        for who in (ADMIN, CLIENT):
            turns = 0
            overview = await figures.overview(who)
            assert turns >= total // statistics.SLICE_PLACES
            assert overview.totals.runnable == total
            assert overview.totals.queues == total
            assert len(overview.queues) == statistics.WORST_MAX
    finally:
        other.cancel()
