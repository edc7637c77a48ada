"""A lease whose connection is closed before its answer is taken back, on both ways."""

from __future__ import annotations

import asyncio

from fastq._core import ALL
from tests.http.wire import PATIENCE_S, request_bytes
from tests.http.world import World


async def _gone(world: World, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(world.server.server_state.connections) > count:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)


async def _until_state(world: World, job_id: str, state: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while world.core.job(world.engine.now_us(), ALL, job_id).state != state:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)


async def test_a_lease_is_taken_back_if_its_connection_closes_before_it_is_durable(world: World) -> None:
    await world.call("worker", "POST", "/jobs/lease", {})  # from here on the key is known
    job_id = await world.submit()
    others = len(world.server.server_state.connections)
    world.log.hold()
    wire = await world.connect()
    await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), b"{}"))
    await _until_state(world, job_id, "RUNNING")
    wire.abort()
    await _gone(world, others)
    world.log.release()
    await _until_state(world, job_id, "READY")
    assert (await world.lease({}))["attempt"] == 1


async def test_a_lease_after_a_wait_is_taken_back_too(world: World) -> None:
    await world.call("worker", "POST", "/jobs/lease", {})
    wire = await world.connect()
    await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), b'{"wait_ms":60000}'))
    await world.until_at_work()
    submitting = await world.connect()
    world.log.hold()
    await submitting.send(request_bytes("POST", "/jobs", (world.bearer("client"),), b'{"payload":1}'))
    async with asyncio.timeout(PATIENCE_S):
        while not (running := world.core.running(ALL, 0, 1)):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
    others = len(world.server.server_state.connections) - 1
    wire.abort()
    await _gone(world, others)
    world.log.release()
    await _until_state(world, running[0].job_id, "READY")
    assert (await world.lease({}))["attempt"] == 1
