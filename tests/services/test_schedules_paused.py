"""Schedules that are paused, in a loop whose time the test moves."""

from __future__ import annotations

import pytest

from fastq._core import ALL
from fastq.errors import ScheduleNotFound
from fastq.services.queues import QueueSettings
from tests.timed import ADMIN, ANN, BOB, at, in_hand, running


@in_hand
async def test_a_paused_schedule_is_not_due_until_it_is_resumed() -> None:
    """Times while it was paused never fire, whatever catch_up is; a put, a run and a crash leave it paused."""
    async with running() as world:
        await world.put(catch_up="all", overlap="allow")
        await world.until(at("2026-01-05T01:00"))
        assert world.schedules.pause(ANN, "s").due_us is None
        frames = len(world.log._frames)
        world.schedules.pause(ADMIN, "s")
        assert len(world.log._frames) == frames
        await world.until(at("2026-01-05T02:00"))
        await world.put(cron="30 * * * *", catch_up="all", overlap="allow")
        await world.until(at("2026-01-05T02:45"))
        world.schedules.run(ANN, "s")
        await world.until(at("2026-01-05T02:46"))
        assert world.fired() == ["05 01:00", "05 02:45"]
        log = world.crash()
    async with running(log) as world:
        await world.until(at("2026-01-05T03:45"))
        kept = world.schedules.show(ANN, "s")
        assert kept.schedule.paused and kept.due_us is None and kept.state.passed == 0
        assert world.schedules.resume(ANN, "s").due_us == at("2026-01-05T04:30")
        world.schedules.resume(ANN, "s")
        entries, _ = world.audit.page(0, 9)
        assert [one.action for one in entries if one.action != "schedule.put"] == [
            "schedule.resume", "schedule.run", "schedule.pause",
        ]  # fmt: skip
        await world.until(at("2026-01-05T03:46"))
        log = world.crash()
    async with running(log) as world:
        await world.until(at("2026-01-05T04:30"))
        assert world.fired() == ["05 01:00", "05 02:45", "05 04:30"]


@in_hand
async def test_a_pause_while_a_fire_is_refused_ends_it() -> None:
    async with running() as world:
        world.queues.put(ADMIN, "q", QueueSettings(max_depth=1))
        await world.put(job=b'{"payload":1,"queue":"q"}', overlap="allow")
        world.schedules.run(ANN, "s")
        await world.until(at("2026-01-05T01:00"))
        assert world.schedules.show(ANN, "s").refusal
        world.schedules.pause(ANN, "s")
        world.node.core.delete(world.engine.now_us(), ALL, [world.jobs()[0].job_id])
        await world.until(at("2026-01-05T01:30"))
        assert not world.schedules.resume(ANN, "s").refusal
        await world.until(at("2026-01-05T02:00"))
        assert world.fired() == ["05 02:00"]


@in_hand
async def test_pausing_is_for_the_owner() -> None:
    async with running() as world:
        await world.put()
        for change in (world.schedules.pause, world.schedules.resume):
            for who, name in ((BOB, "s"), (ANN, "absent")):
                with pytest.raises(ScheduleNotFound):
                    change(who, name)
