"""Schedules: when they fire, in a loop whose time the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import fastq.services.schedules
from fastq._core import ALL
from fastq.clock import Clock
from fastq.engine.commands import Submit
from fastq.engine.documents import DocumentKind
from fastq.errors import InvalidRequest, NameTaken, QueueFull, ScheduleNotFound, TooMany
from fastq.services.catch_up import MISSED_US, Search
from fastq.services.cron import Cron
from fastq.services.queues import QueueSettings
from fastq.services.schedule import State
from fastq.services.schedules import FIRE_STEPS, RETRY_US, SLICE_STEPS
from tests.timed import (
    ADMIN,
    ANN,
    BOB,
    DAY_US,
    HOUR_US,
    MINUTE_US,
    HandLoop,
    World,
    at,
    fail,
    in_hand,
    running,
    schedule,
)  # fmt: skip

# --- which times fire -------------------------------------------------------------------------------------------------

HOURLY = Cron("0 * * * *", "UTC")
NOON = at("2026-01-05T12:00")


@pytest.mark.parametrize(
    ("fields", "since", "now", "fires", "seen"),
    [
        ({"catch_up": "one"}, NOON - HOUR_US, NOON, [NOON], NOON),
        ({"catch_up": "one"}, NOON, NOON + MINUTE_US, [], NOON),
        ({"catch_up": "one"}, NOON - 5 * HOUR_US, NOON + HOUR_US - 1, [NOON], NOON),
        ({"catch_up": "skip"}, NOON - HOUR_US, NOON + MISSED_US - 1, [NOON], NOON),  # late, not missed
        ({"catch_up": "skip"}, NOON - HOUR_US, NOON + MISSED_US, [], NOON),
        ({"catch_up": "skip"}, NOON - 5 * HOUR_US, NOON + 1, [NOON], NOON),
        ({"catch_up": "all"}, NOON - 3 * HOUR_US, NOON, [NOON - 2 * HOUR_US, NOON - HOUR_US, NOON], NOON),
        ({"catch_up": "all", "catch_up_max": 2}, NOON - 9 * HOUR_US, NOON + 1, [NOON - HOUR_US, NOON], NOON),
        ({"catch_up": "all", "catch_up_max": 1000}, NOON - 1000 * DAY_US, NOON, None, NOON),
    ],
)
def test_times_to_fire(fields: dict[str, Any], since: int, now: int, fires: list[int] | None, seen: int) -> None:
    search = Search(HOURLY, since, now, fields["catch_up"], fields.get("catch_up_max", 100))
    while not search.is_over:
        assert search.go(7) <= 7
    times, next_us = [], search.first_us
    while next_us is not None and next_us <= now:
        times.append(next_us)
        next_us = HOURLY.after(next_us)
    assert search.last_us == seen
    assert times == ([NOON - n * HOUR_US for n in range(999, -1, -1)] if fires is None else fires)


# --- while it runs ----------------------------------------------------------------------------------------------------


@in_hand
async def test_it_fires_when_due_for_the_owner_who_put_it() -> None:
    async with running() as world:
        job = b'{"payload":{"n": 1},"queue":"reports","priority":7,"max_retries":2,"delay_ms":1500}'
        await world.put(cron="0,30 * * * *", job=job, overlap="allow")
        assert world.jobs() == []
        await world.until(at("2026-01-05T00:29:59"))
        assert world.jobs() == []
        await world.until(at("2026-01-05T00:30:00"))
        await world.until(at("2026-01-05T01:00:00"))
        assert world.fired() == ["05 00:30", "05 01:00"]
        last = world.jobs()[-1]
        assert (last.owner_id, last.queue, last.priority, last.max_retries) == ("ann", "reports", 7, 2)
        assert last.run_at_us == at("2026-01-05T01:00:00") + 1_500_000
        kept = world.schedules.show(ANN, "s")
        assert (kept.state.job_id, kept.state.fired_us) == (last.job_id, last.created_us)
        assert kept.due_us == at("2026-01-05T01:30:00")


@in_hand
async def test_skipped_times_fire_right_after_the_gap() -> None:
    """02:30 in Vienna on the day without one; the other times, also New York's, as ever."""
    async with running() as world:
        await world.until(at("2026-03-28T20:00"))
        for zone in ("Europe/Vienna", "America/New_York"):
            for cron in ("30 2 * * *", "30 1 * * *"):
                await world.put(f"{zone[:2]}-{cron[3]}", cron=cron, timezone=zone, overlap="allow")
        await world.step_until(at("2026-03-29T23:00"))
        assert world.fired() == ["29 00:30", "29 01:00", "29 05:30", "29 06:30"]  # UTC; 03:00 of Vienna is 01:00


@in_hand
async def test_one_job_for_a_repeated_hour() -> None:
    async with running() as world:
        await world.until(at("2026-10-24T20:00"))
        await world.put(cron="30 2 * * *", timezone="Europe/Vienna", overlap="allow")
        await world.put("u", cron="30 1 * * *", timezone="America/New_York", overlap="allow")
        await world.step_until(at("2026-11-01T20:00"))
        vienna = [time for time in world.fired() if time.endswith((" 00:30", " 01:30"))]
        assert vienna == [
            "25 00:30",
            "26 01:30",
            "27 01:30",
            "28 01:30",
            "29 01:30",
            "30 01:30",
            "31 01:30",
            "01 01:30",
        ]
        assert [time for time in world.fired() if time not in vienna][-2:] == ["31 05:30", "01 05:30"]


@in_hand
async def test_a_fire_is_one_record() -> None:
    async with running() as world:
        await world.put()
        frames = len(world.log._frames)
        await world.until(at("2026-01-05T01:00"))
        assert [frame.count for frame in world.log._frames[frames:]] == [1]


@in_hand
async def test_overlap_skip_skips_the_time_and_does_not_catch_up() -> None:
    async with running() as world:
        await world.put()
        await world.until(at("2026-01-05T01:00"))
        await world.until(at("2026-01-05T02:00"))
        await world.until(at("2026-01-05T03:00"))
        assert world.fired() == ["05 01:00"]
        assert world.schedules._kept["s"].state.passed == 2
        await world.finish_all()
        log = world.crash()
    async with running(log) as world:
        assert world.fired() == ["05 01:00"], "a time that was let pass came back after a restart"
        await world.until(at("2026-01-05T04:00"))
        assert world.fired() == ["05 01:00", "05 04:00"]
        world.node.core.delete(world.engine.now_us(), ALL, [world.jobs()[-1].job_id])  # not there is not unfinished
        await world.until(at("2026-01-05T05:00"))
        assert world.fired() == ["05 01:00", "05 05:00"]


@in_hand
async def test_overlap_skip_does_not_skip_for_a_job_past_its_expiry() -> None:
    """Also while the expiry is not logged: the job never runs, so the next time must."""
    async with running() as world:
        await world.put(job=b'{"payload":1,"expires_ms":60000}')
        await world.until(at("2026-01-05T01:00"))
        (job,) = world.jobs()
        assert job.state == "READY"
        assert world.schedules._is_unfinished(job.job_id, job.expires_us - 1)
        assert not world.schedules._is_unfinished(job.job_id, job.expires_us)


@in_hand
async def test_overlap_allow() -> None:
    async with running() as world:
        await world.put(overlap="allow")
        for hour in (1, 2, 3):
            await world.until(at(f"2026-01-05T0{hour}:00"))
        assert world.fired() == ["05 01:00", "05 02:00", "05 03:00"]


@in_hand
async def test_run_now_does_not_move_the_schedule() -> None:
    async with running() as world:
        await world.put()
        await world.until(at("2026-01-05T00:10"))
        job_id = world.schedules.run(ADMIN, "s")
        assert (world.jobs()[0].job_id, world.jobs()[0].owner_id) == (job_id, "ann")
        again = world.schedules.run(ANN, "s")  # also while the last one is not finished
        assert again != job_id
        await world.finish_all()
        await world.until(at("2026-01-05T01:00"))
        assert world.fired() == ["05 00:10", "05 00:10", "05 01:00"]
        entries, _ = world.audit.page(0, 2)
        assert [(entry.action, entry.key_id, entry.details["job_id"]) for entry in entries] == [
            ("schedule.run", "client_1", again),
            ("schedule.run", "admin_1", job_id),
        ]


# --- replacing --------------------------------------------------------------------------------------------------------


@in_hand
async def test_an_equal_put_changes_nothing() -> None:
    async with running() as world:
        await world.put()
        await world.until(at("2026-01-05T00:40"))
        frames = len(world.log._frames)
        await world.put(who=replace(ANN, key_id="client_9"))
        assert len(world.log._frames) == frames
        await world.until(at("2026-01-05T01:00"))
        assert world.fired() == ["05 01:00"]


@in_hand
async def test_a_changed_schedule_fires_from_now_on() -> None:
    async with running() as world:
        await world.put(cron="0 * * * *", overlap="allow")
        await world.until(at("2026-01-05T01:00"))
        await world.put(cron="15 * * * *", job=b'{"payload":"new"}', overlap="allow")
        assert world.schedules._kept["s"].state.job_id == world.jobs()[0].job_id  # for the overlap
        await world.until(at("2026-01-05T02:00"))
        await world.until(at("2026-01-05T02:15"))
        assert world.fired() == ["05 01:00", "05 02:00", "05 02:15"]  # 01:15 late, at 02:00: one for what was missed
        await world.put(cron="0 * * * *", overlap="allow")
        log = world.crash()
    async with running(log) as world:
        await world.until(at("2026-01-05T03:00"))
        assert world.fired()[3:] == ["05 03:00"]


@in_hand
async def test_a_deleted_schedule_does_not_fire() -> None:
    async with running() as world:
        await world.put()
        world.schedules.delete(ANN, "s")
        await world.until(at("2026-01-05T01:00"))
        assert world.jobs() == []
        with pytest.raises(ScheduleNotFound):
            world.schedules.delete(ANN, "s")
        log = world.crash()
    async with running(log) as world:
        assert world.schedules.list(ADMIN, "", 9) == ([], "")
        assert world.engine.documents(DocumentKind.SCHEDULE_STATE) == {}


@in_hand
async def test_putting_it_often_does_not_fill_the_heap() -> None:
    async with running() as world:
        for n in range(500):
            await world.put(cron=f"{n % 60} * * * *", job=b'{"payload":%d}' % n)
        assert len(world.schedules._due) < 200
        await world.until(at("2026-01-05T00:19"))
        assert world.fired() == ["05 00:19"]


@in_hand
async def test_owners() -> None:
    async with running() as world:
        await world.put("anns")
        await world.put("bobs", BOB)
        assert [name for name, _ in (world.schedules.list(ANN, "", 9))[0]] == ["anns"]
        assert [name for name, _ in (world.schedules.list(ADMIN, "", 9))[0]] == ["anns", "bobs"]
        assert (world.schedules.list(ADMIN, "", 1))[1] == "anns"
        assert [name for name, _ in (world.schedules.list(ADMIN, "anns", 1))[0]] == ["bobs"]
        for refused in (world.schedules.show, world.schedules.delete, world.schedules.run):
            with pytest.raises(ScheduleNotFound):
                await refused(ANN, "bobs")
        with pytest.raises(NameTaken):
            await world.put("bobs", ANN)
        await world.put("bobs", ADMIN)  # takes it over, and so its jobs
        assert (world.schedules.show(ADMIN, "bobs")).schedule.owner_id == "root"


def test_refused_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_hand
    async def run() -> None:
        async with running() as world:
            for fields in ({"cron": "61 * * * *"}, {"timezone": "Mars/Olympus"}):
                with pytest.raises(InvalidRequest):
                    await world.put(**fields)
            assert world.schedules.list(ADMIN, "", 9) == ([], "")
            monkeypatch.setattr(fastq.services.schedules, "SCHEDULES_MAX", 1)
            monkeypatch.setattr(fastq.services.schedules, "JOB_BYTES_MAX", 30)
            await world.put("one")
            with pytest.raises(TooMany, match="at most 1 schedules"):
                await world.put("two")
            await world.put("one", cron="1 * * * *")
            with pytest.raises(TooMany, match="at most 30 bytes of jobs"):
                await world.put("one", job=b'{"payload":"more than thirty bytes"}')

    run()


def test_a_time_zone_that_an_upgrade_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start goes on, the schedule says what is the matter, the others fire."""

    @in_hand
    async def run() -> None:
        async with running() as world:
            await world.put("gone", timezone="Europe/Vienna")
            await world.put("there")
            log = world.crash()
        monkeypatch.setattr("fastq.services.cron.ZoneInfo", {"UTC": ZoneInfo("UTC")}.__getitem__)
        async with running(log) as world:
            kept = world.schedules.show(ADMIN, "gone")
            assert kept.due_us is None
            assert kept.refusal.startswith("timezone must be")
            await world.until(at("2026-01-05T01:00"))
            assert world.fired() == ["05 01:00"]

    run()


# --- when it cannot fire ----------------------------------------------------------------------------------------------


@in_hand
async def test_a_full_queue_is_tried_again() -> None:
    async with running() as world:
        world.queues.put(ADMIN, "small", QueueSettings(max_depth=1))
        await world.put(job=b'{"payload":1,"queue":"small"}', overlap="allow")
        await world.ask.submit(ANN, Submit(b"1", queue="small"))
        with pytest.raises(QueueFull):
            world.schedules.run(ANN, "s")
        await world.until(at("2026-01-05T01:00"))
        assert len(world.jobs()) == 1
        kept = world.schedules._kept["s"]
        assert "at most 1 unfinished" in kept.refusal
        assert kept.state == State()
        world.node.core.delete(world.engine.now_us(), ALL, [world.jobs()[0].job_id])
        await world.until(at("2026-01-05T01:00") + RETRY_US)
        assert world.fired() == ["05 01:00"]
        assert kept.refusal == ""
        assert kept.due_us == at("2026-01-05T02:00")


@in_hand
async def test_nothing_fires_while_the_server_stops() -> None:
    async with running() as world:
        await world.put()
        world.engine.drain()
        await world.until(at("2026-01-05T01:00"))
        assert world.jobs() == []


# --- catching up ------------------------------------------------------------------------------------------------------


async def put_missed(world: Any, schedules: int, catch_up_max: int, minutes: int) -> None:
    """Schedules for each minute whose times of the last `minutes` are missed, all put long before."""
    for n in range(schedules):
        await world.put(
            f"s{n}", cron="* * * * *", catch_up="all", catch_up_max=catch_up_max, overlap="allow",
            job=b'{"payload":%d}' % n,
        )  # fmt: skip
    world.schedules.stop()
    world.loop.us += minutes * MINUTE_US


@in_hand
async def test_a_start_does_not_wait_for_missed_times_and_each_turn_fires_a_bounded_number() -> None:
    async with running() as world:
        await put_missed(world, 20, 100, 100)
        log = world.crash()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HandLoop)
    late = World(loop, log)
    loop.us += 1
    fired: list[int] = []
    late.node.open()
    clock = Clock(loop.us, lambda: loop.us, lambda: loop.us)
    async with late.node.running(clock, fail), late.node.serving("late"):
        assert late.engine.counts()["jobs"] == 0, "nothing fires before the server listens"
        fired.append(0)
        while fired[-1] < 2_000:
            await asyncio.sleep(0)
            fired.append(late.engine.counts()["jobs"])
            assert len(fired) < 20_000
        steps = [after - before for before, after in pairwise(fired)]
        assert max(steps) <= SLICE_STEPS / FIRE_STEPS
        assert late.engine.counts()["jobs"] == 2_000


@in_hand
async def test_missed_times_fire_in_the_order_of_time_over_all_schedules() -> None:
    async with running() as world:
        await put_missed(world, 3, 50, 10)
        await world.schedules.fire_due()
        found = [await world.engine.job(ADMIN, job.job_id, with_payload=True) for job in world.jobs()]
        payloads = [int(job.payload) for job in found]
        assert [sorted(payloads[at : at + 3]) for at in range(0, 30, 3)] == [[0, 1, 2]] * 10


@in_hand
async def test_a_kill_in_the_middle_of_catching_up_repeats_and_skips_no_time() -> None:
    """Killed again and again: each time fires once, and at most the last `catch_up_max` of each schedule."""
    async with running() as world:
        await put_missed(world, 30, 60, 90)
        log = world.crash()
    starts, seen = 0, 0
    while seen < 30 * 60:
        starts += 1
        async with running(log) as world:
            for _ in range(3):
                await asyncio.sleep(0)
            seen = len(world.jobs())
            log = world.crash()
        assert starts < 100
    async with running(log) as world:
        await world.schedules.fire_due()
        assert len(world.jobs()) == 30 * 60, "the last 60 times of each, whatever was killed"
        states = [world.schedules._kept[f"s{n}"].state for n in range(30)]
        assert {state.seen_us for state in states} == {world.loop.us // MINUTE_US * MINUTE_US}
    assert starts > 2


@in_hand
async def test_a_put_and_a_delete_while_it_catches_up() -> None:
    async with running() as world:
        await put_missed(world, 2, 1_000, 1_000)
        world.schedules._tick()
        for _ in range(50):
            await asyncio.sleep(0)
            if world.jobs():
                break
        assert len(world.jobs()) < 100
        world.schedules.delete(ANN, "s0")
        world.schedules.put(ANN, "s1", schedule(cron="0 0 1 1 *", overlap="allow"))
        await world.schedules.fire_due()
        assert len(world.jobs()) < 100


@in_hand
async def test_the_bytes_of_jobs_are_counted_through_puts_and_deletes() -> None:
    async with running() as world:
        for n in range(5):
            await world.put(f"s{n}", job=b'{"payload":"%s"}' % (b"x" * n))
        await world.put("s1", job=b'{"payload":1}')
        world.schedules.delete(ANN, "s3")
        await world.engine.durable()
        log = world.crash()
        counted = world.schedules._job_bytes
        assert counted == sum(len(kept.schedule.job) for kept in world.schedules._kept.values())
    async with running(log) as world:
        assert world.schedules._job_bytes == counted
        assert [name for name, _ in world.schedules.list(ADMIN, "s0", 2)[0]] == ["s1", "s2"]
        assert world.schedules.list(ADMIN, "s0", 2)[1] == "s2"
