"""Queues whose pause ends by itself, in a loop whose time the test moves."""

from __future__ import annotations

import pytest

from fastq.errors import DiskFull
from fastq.services.queues import RESUMED_MAX, QueueSettings
from tests.timed import ADMIN, World, at, in_hand, running

ONE, TWO, THREE = "2026-01-05T01:00:00Z", "2026-01-05T02:00:00Z", "2026-01-05T03:00:00Z"


def paused(world: World, name: str = "q") -> bool:
    return world.queues.show(ADMIN, name)[1].paused


def resumes(world: World) -> list[str]:
    entries, _ = world.audit.page(0, 100)
    return [one.target for one in entries if one.action == "queue.resume" and one.key_id == "system"]


@in_hand
async def test_a_pause_ends_at_its_time_and_is_logged_once() -> None:
    async with running() as world:
        world.queues.pause(ADMIN, "q", create=True, reason="x", until=ONE)
        await world.step_until(at("2026-01-05T00:59:59"))
        assert paused(world) and resumes(world) == []
        await world.step_until(at("2026-01-05T01:00:01"))
        settings = world.queues.show(ADMIN, "q")[1]
        assert settings == QueueSettings() and resumes(world) == ["q"]
        await world.step_until(at("2026-01-05T04:00"))
        assert resumes(world) == ["q"]


@in_hand
async def test_a_pause_that_ended_while_the_server_was_down_ends_at_the_start_and_once() -> None:
    async with running() as world:
        world.queues.pause(ADMIN, "q", create=True, until=ONE)
        await world.engine.durable()
        log = world.crash()
    async with running(log) as world:
        assert paused(world)
        await world.until(at("2026-01-05T02:00"))
        log = world.crash()
    async with running(log) as world:
        await world.until(at("2026-01-05T02:01"))
        assert not paused(world) and resumes(world) == ["q"]
        log = world.crash()
    async with running(log) as world:
        await world.until(at("2026-01-05T05:00"))
        assert not paused(world) and resumes(world) == ["q"]


@in_hand
async def test_the_last_pause_counts() -> None:
    async with running() as world:
        world.queues.pause(ADMIN, "q", create=True, until=ONE)
        world.queues.pause(ADMIN, "q", until=THREE)
        world.queues.pause(ADMIN, "for-ever", create=True, until=ONE)
        world.queues.pause(ADMIN, "for-ever")
        world.queues.pause(ADMIN, "resumed", create=True, until=ONE)
        world.queues.resume(ADMIN, "resumed")
        world.queues.pause(ADMIN, "gone", create=True, until=ONE)
        world.queues.delete(ADMIN, "gone")
        await world.step_until(at("2026-01-05T02:00"))
        assert paused(world) and paused(world, "for-ever") and resumes(world) == []
        await world.step_until(at("2026-01-05T03:01"))
        assert not paused(world) and paused(world, "for-ever") and resumes(world) == ["q"]


@in_hand
async def test_many_pauses_end_in_slices() -> None:
    names = [f"q{n}" for n in range(3 * RESUMED_MAX)]
    async with running() as world:
        for name in names:
            world.queues.pause(ADMIN, name, create=True, until=ONE)
        await world.engine.durable()
        await world.step_until(at("2026-01-05T01:01"))
        assert not any(paused(world, name) for name in names)
        assert len(world.audit.page(0, 1000)[0]) == 2 * len(names)


@in_hand
async def test_a_refused_resume_is_tried_again() -> None:
    async with running() as world:
        world.queues.pause(ADMIN, "q", create=True, until=ONE)

        def full(*_: object) -> None:
            raise DiskFull

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.engine, "group", full)
            await world.step_until(at("2026-01-05T01:01"))
            assert paused(world)
        await world.step_until(at("2026-01-05T01:02"))
        assert not paused(world) and resumes(world) == ["q"]
