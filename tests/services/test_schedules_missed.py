"""Schedules across restarts, stops, clock jumps and crashes: each time fires once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastq.log.memory import MemoryLog
from tests.timed import DAY_US, HOUR_US, START_US, HandLoop, at, in_hand, running

NOON = at("2026-01-05T12:00")

# --- what was missed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "down_until", "fired"),
    [
        ({"catch_up": "skip"}, "05:30", []),
        ({"catch_up": "skip"}, "05:00:20", ["05 05:00"]),  # late, not missed
        ({"catch_up": "one"}, "05:30", ["05 05:30"]),
        ({"catch_up": "all"}, "05:30", ["05 05:30"] * 4),
        ({"catch_up": "all", "catch_up_max": 3}, "05:30", ["05 05:30"] * 3),
    ],
)
def test_a_restart_across_missed_times(fields: dict[str, Any], down_until: str, fired: list[str]) -> None:
    @in_hand
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HandLoop)
        async with running() as world:
            await world.put(overlap="allow", **fields)
            await world.until(at("2026-01-05T01:00"))
            assert world.fired() == ["05 01:00"]
            log = world.crash()
        loop.us = at(f"2026-01-05T{down_until}")
        async with running(log) as world:
            assert world.fired()[1:] == fired
            log = world.crash()
        async with running(log) as world:
            assert world.fired()[1:] == fired, "made up for twice"
            await world.until(at("2026-01-05T06:00"))
            assert world.fired()[1:] == [*fired, "05 06:00"]

    run()


@in_hand
async def test_catch_up_all_with_overlap_skip() -> None:
    """What the API refuses to combine: one job, and no more until it is done."""
    async with running() as world:
        await world.put(catch_up="all")
        await world.until(at("2026-01-05T05:30"))
        assert world.fired() == ["05 05:30"]


@in_hand
async def test_the_clock_jumps() -> None:
    """Time itself does not jump: the wall clock is approached by a tenth of what passes, and the timer is not late."""
    async with running(wall_ahead_us=DAY_US) as world:
        await world.put(cron="0 12 * * *")
        steps = 0
        while not world.jobs():
            next_us = world.loop.next_timer_us()
            assert next_us is not None
            await world.until(max(next_us, world.loop.us))
            steps += 1
            assert steps < 200
        assert world.fired() == ["05 12:00"]
        late_us = world.jobs()[0].created_us - NOON
        assert 0 <= late_us < 200_000
        assert NOON - world.loop.us > HOUR_US  # the timer's time: it was an hour ahead of it
    assert steps < 60  # with the engine's own, once an hour


@in_hand
async def test_a_stopped_process_and_a_clock_set_back() -> None:
    async with running() as world:
        await world.put(overlap="allow")
        await world.until(at("2026-01-06T00:30"))  # stopped for a day
        assert world.fired() == ["06 00:30"]
        await world.until(at("2026-01-06T01:00"))
        log = world.crash()
    world.loop.us = at("2026-01-05T12:30")  # ACCEPT_CLOCK_BACK: the log's times lie ahead
    async with running(log) as world:
        await world.until(at("2026-01-05T13:00"))
        assert len(world.jobs()) == 3, "silent until the clock has caught up"
        await world.until(at("2026-01-05T14:00"))
        assert len(world.jobs()) == 4


@in_hand
async def test_all_schedules_share_one_timer() -> None:
    async with running() as world:
        world.engine._timer.stop()  # the engine's own
        for n in range(300):
            await world.put(f"s{n}", cron=f"0 {n % 24} * * *", overlap="allow")
        world.engine._timer.stop()
        timers = [timer for timer in world.loop._scheduled if not timer.cancelled()]
        assert len(timers) == 1
        await world.until(at("2026-01-05T01:00:00"))
        assert len(world.jobs()) == 13  # 300 over 24 hours, more than one of them at once


# --- whatever crashes -------------------------------------------------------------------------------------------------


@in_hand
async def test_a_crash_before_the_record_and_after_it() -> None:
    for durable in (False, True):
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HandLoop)
        loop.us = START_US
        async with running() as world:
            await world.put()
            if not durable:
                world.log.hold()
            await world.until(at("2026-01-05T01:00"))
            assert world.fired() == ["05 01:00"]
            log = world.crash()
        async with running(log) as world:  # within the minute
            assert world.fired() == ["05 01:00"]
            assert world.schedules._kept["s"].state.job_id == world.jobs()[0].job_id
            await world.until(at("2026-01-05T01:00:30"))
            assert len(world.jobs()) == 1


@in_hand
async def test_a_crash_at_every_batch_of_a_catch_up() -> None:
    """Seven missed times that take several batches: however many of these were durable, each time fires once."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HandLoop)
    job = b'{"payload":"%s"}' % (b"x" * 30_000)
    async with running(MemoryLog(segment_bytes=1 << 17)) as world:
        await world.put(job=job, catch_up="all", overlap="allow")
        before = world.crash()
    loop.us = at("2026-01-05T07:00")
    async with running(before.crash()) as world:
        whole = world.crash()
    survived = set()
    for count in range(len(before._frames), len(whole._frames) + 1):
        loop.us = at("2026-01-05T07:00:10")
        log = whole.crash()
        log._frames = whole._frames[:count]
        survived.add(sum(b"xxx" in frame.records for frame in log._frames))
        async with running(log) as world:
            while len(world.jobs()) < 7:
                next_us = world.loop.next_timer_us()
                assert next_us is not None
                await world.until(max(loop.us, next_us))
            await world.until(at("2026-01-05T07:50"))
            assert len(world.jobs()) == 7
            world.crash()
    assert len(survived) > 3
