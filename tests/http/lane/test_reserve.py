"""The short way keeps the log's reserve, as every other way does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from fastq.engine.commits import CLEANER_SEGMENTS
from fastq.log.protocol import RESERVE_SEGMENTS
from tests.engines import FullDisk
from tests.http.lane.test_lane_ends import taken
from tests.http.world import World, running

TEXT = "x" * 5000

Ask = Callable[[World], Awaitable[int]]


async def submit_one(world: World) -> int:
    return (await world.call("client", "POST", "/jobs", {"payload": TEXT})).status


async def submit_many(world: World) -> int:
    return (await world.call("client", "POST", "/jobs/batch", {"jobs": [{"payload": TEXT}] * 3})).status


async def ack_one(world: World) -> int:
    lease = await world.call("worker", "POST", "/jobs/lease", {"max": 1})
    if lease.status != 200:
        return lease.status
    (job,) = lease.json["jobs"]  # else there was room for the ends of all jobs
    body = {"lease_token": job["lease_token"], "result": 3 * TEXT}
    return (await world.call("worker", "POST", f"/jobs/{job['job_id']}/ack", body)).status


async def ack_many(world: World) -> int:
    lease = await world.call("worker", "POST", "/jobs/lease", {"max": 3})
    if lease.status != 200:
        return lease.status
    assert lease.json["jobs"], "there was room for the ends of all jobs"
    acks = [
        {"job_id": job["job_id"], "lease_token": job["lease_token"], "result": 3 * TEXT} for job in lease.json["jobs"]
    ]
    return (await world.call("worker", "POST", "/jobs/ack", {"acks": acks})).status


@pytest.mark.parametrize(("submit", "ack"), [(submit_one, ack_one), (submit_many, ack_many)])
async def test_the_reserve_is_kept_before_the_disk_is_known_to_be_full(submit: Ask, ack: Ask) -> None:
    async with running(log=FullDisk(segment_bytes=256 << 10)) as world:
        tail = world.engine.tail
        while (status := await submit(world)) == 201:
            pass
        assert (status, tail.segments_offered) == (503, RESERVE_SEGMENTS)
        while (status := await ack(world)) == 200:
            pass
        assert (status, tail.segments_offered) == (503, CLEANER_SEGMENTS)
        assert taken(world) > 10
