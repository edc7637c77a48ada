"""A request that waits is answered when its key changes or expires: it gets no job after that, and sees no end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fastq.services.keys import Grants
from tests.http.wire import Reply, request_bytes
from tests.http.world import World

Change = Callable[[World], Awaitable[Reply]]


async def revoked(world: World) -> Reply:
    return await world.call("admin", "DELETE", f"/keys/{world.key_ids['waiting']}")


async def rotated(world: World) -> Reply:
    return await world.call("admin", "POST", f"/admin/keys/{world.key_ids['waiting']}/rotate", {"overlap_ms": 0})


async def begin(world: World, method: str, path: str, body: bytes | None = None) -> asyncio.Task[Reply]:
    wire = await world.connect()
    await wire.send(request_bytes(method, path, (world.bearer("waiting"),), body))
    await world.until_at_work()
    return asyncio.create_task(wire.reply())


async def lease(world: World) -> asyncio.Task[Reply]:
    asked = await begin(world, "POST", "/jobs/lease", b'{"wait_ms": 60000, "max": 5}')
    async with asyncio.timeout(10):
        while not world.engine._leases.waiters.count:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
    return asked


@pytest.mark.parametrize("change", [revoked, rotated])
async def test_a_key_that_changed_is_granted_no_job(world: World, change: Change) -> None:
    await world.make_key("waiting", "worker")
    asked = await lease(world)
    assert (await change(world)).status < 300
    job_id = await world.submit()
    assert (await asked).json == {"jobs": []}
    assert (await world.call("worker", "POST", "/jobs/lease", {"max": 1})).json["jobs"][0]["job_id"] == job_id
    assert (await world.call("waiting", "POST", "/jobs/lease", {"max": 1})).status == 401


async def test_a_key_that_expired_is_granted_no_job(world: World) -> None:
    in_a_minute = world.engine.now_us() + 30_000_000
    await world.make_key("waiting", "worker", grants=Grants(expires_us=in_a_minute))
    asked = await lease(world)
    world.hands.ahead_us += 31_000_000  # the loop's timers do not notice
    job_id = await world.submit()
    assert (await asked).json == {"jobs": []}
    assert (await world.call("worker", "POST", "/jobs/lease", {"max": 1})).json["jobs"][0]["job_id"] == job_id


async def test_a_wait_is_no_longer_than_its_key_is_valid(world: World) -> None:
    await world.make_key("waiting", "worker", grants=Grants(expires_us=world.engine.now_us() + 300_000))
    asked = await lease(world)
    async with asyncio.timeout(20):
        assert (await asked).json == {"jobs": []}


@pytest.mark.parametrize("change", [revoked, rotated])
async def test_a_key_that_changed_sees_no_end(world: World, change: Change) -> None:
    await world.make_key("waiting", "client", "client-owner")
    job_id = await world.submit()
    asked = await begin(world, "GET", f"/jobs/{job_id}?wait_ms=60000")
    assert (await change(world)).status < 300
    async with asyncio.timeout(20):
        assert (await asked).json["state"] == "READY"


async def test_other_keys_wait_on(world: World) -> None:
    await world.make_key("waiting", "worker")
    asked = await lease(world)
    await world.make_key("other", "worker")
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['other']}")).status < 300
    job_id = await world.submit()
    assert [job["job_id"] for job in (await asked).json["jobs"]] == [job_id]
