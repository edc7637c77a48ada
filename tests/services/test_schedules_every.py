"""Schedules with a fixed interval, their next times, and the times that they missed."""

from __future__ import annotations

import pytest

from fastq.errors import InvalidRequest
from fastq.services.cron import Every
from fastq.services.schedule import MISSED_COUNTED, RUNS_SHOWN, interval_ms
from tests.timed import ADMIN, ANN, at, in_hand, running, schedule, shown

FIVE_MINUTES_MS = 300_000


def test_the_times_of_an_interval() -> None:
    every = Every(90_000)
    assert every.after(0) == 90_000_000
    assert every.after(90_000_000) == 180_000_000
    assert every.after(89_999_999) == 90_000_000
    assert list(every.until(270_000_001)) == [270_000_000, 180_000_000, 90_000_000]
    assert list(every.until(90_000_000)) == [90_000_000]
    assert list(every.until(89_999_999)) == []


@in_hand
async def test_it_fires_at_its_multiples_over_restarts() -> None:
    async with running() as world:
        await world.put(cron="", every_ms=FIVE_MINUTES_MS, overlap="allow")
        await world.step_until(at("2026-01-05T00:11"))
        assert world.fired() == ["05 00:05", "05 00:10"]
        log = world.crash()
    async with running(log) as world:
        assert [shown(us) for us in world.schedules.show(ANN, "s").next_runs()] == [
            "05 00:15", "05 00:20", "05 00:25", "05 00:30", "05 00:35",
        ]  # fmt: skip
        await world.step_until(at("2026-01-05T00:16"))
        assert world.fired() == ["05 00:05", "05 00:10", "05 00:15"]


@in_hand
async def test_next_runs_follow_the_schedule() -> None:
    async with running() as world:
        await world.put(cron="30 2 * * *", timezone="Europe/Berlin")
        kept = world.schedules.show(ANN, "s")
        assert [shown(us) for us in kept.next_runs()][:2] == ["05 01:30", "06 01:30"]
        assert len(kept.next_runs()) == RUNS_SHOWN
        await world.step_until(at("2026-01-05T01:31"))
        assert shown(world.schedules.show(ANN, "s").next_runs()[0]) == "06 01:30"
        assert world.schedules.pause(ADMIN, "s").next_runs() == []


@pytest.mark.parametrize(
    ("catch_up", "fired", "missed"), [("one", 1, 4), ("skip", 0, 5), ("all", 5, 0), ("all-2", 2, 3)]
)
def test_missed_times_are_counted(catch_up: str, fired: int, missed: int) -> None:
    @in_hand
    async def missing() -> None:
        name, _, most = catch_up.partition("-")
        async with running() as world:
            await world.put(catch_up=name, catch_up_max=int(most or 100), overlap="allow")
            await world.step_until(at("2026-01-05T01:01"))
            log = world.crash()
            world.loop.us = at("2026-01-05T06:30")
        async with running(log) as world:
            await world.until(at("2026-01-05T06:31"))
            assert len(world.fired()) == 1 + fired
            assert world.schedules.show(ANN, "s").state.missed == missed
            await world.step_until(at("2026-01-05T08:01"))
            assert world.schedules.show(ANN, "s").state.missed == missed, "none since"
            log = world.crash()
        async with running(log) as world:
            assert world.schedules.show(ANN, "s").state.missed == missed

    missing()


@in_hand
async def test_of_a_long_gap_a_bounded_number_is_counted() -> None:
    async with running() as world:
        await world.put(cron="", every_ms=1_000)
        log = world.crash()
        world.loop.us = at("2026-02-05T00:00")
    async with running(log) as world:
        await world.until(at("2026-02-05T00:01"))
        assert world.schedules.show(ANN, "s").state.missed >= MISSED_COUNTED


@pytest.mark.parametrize(
    ("expression", "ms"), [("@every 5m", 300_000), ("@every 90s", 90_000), ("@every 2h", 7_200_000), ("0 * * * *", 0)]
)
def test_an_interval_as_a_person_writes_it(expression: str, ms: int) -> None:
    assert interval_ms(expression) == ms
    cron = "" if ms else expression
    assert schedule(cron=cron, every_ms=ms).expression == expression


def test_a_bad_interval() -> None:
    for expression in ("@every day", "@every 5", "@every -5m", "@every 1.5h"):
        with pytest.raises(InvalidRequest, match="an interval is a number"):
            interval_ms(expression)
