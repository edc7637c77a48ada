"""Lease, over a real socket: leases that wait, and queues by weight."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.resources.requests import ack, post
from tests.http.wire import Reply, request_bytes
from tests.http.world import World, running


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/jobs/lease", {"queues": []}, "queues must have at least 1 entry, or be left out"),
        ("/jobs/lease", {"queues": ["a", "ü"]}, "queues must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        ("/jobs/lease", {"queues": ["a"] * 65}, "queues must be of length <= 64"),
        ("/jobs/lease", {"max": 0}, "max must be >= 1"),
        ("/jobs/lease", {"max": 1001}, "max must be <= 1000"),
        ("/jobs/lease", {"wait_ms": 60_001}, "wait_ms must be <= 60000"),
        ("/jobs/lease", {"request_id": "x" * 201}, "request_id must be at most 200 bytes"),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    reply = await post(world, path, body, who="worker")
    assert (reply.status, reply.error) == (400, message)


async def test_a_lease_waits_for_a_job(world: World) -> None:
    wire = await world.connect()
    await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), b'{"wait_ms": 30000}'))
    await world.until_at_work()
    job_id = await world.submit()
    assert (await wire.reply()).json["job_id"] == job_id


async def test_a_waiting_lease_of_a_closed_connection_takes_no_job(world: World) -> None:
    wire = await world.connect()
    await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), b'{"wait_ms": 30000}'))
    await world.until_at_work()
    await wire.close()
    async with asyncio.timeout(10):
        while world.engine._leases.waiters.count:  # noqa: ASYNC110 -- nothing tells a client that the server saw it go
            await asyncio.sleep(0.001)
    job_id = await world.submit()
    assert (await world.lease())["job_id"] == job_id


async def test_queues_by_weight(world: World) -> None:
    for queue in ("a", "b"):
        await world.call("client", "POST", "/jobs/batch", {"jobs": [{"payload": 1, "queue": queue}] * 40})
    jobs = (await post(world, "/jobs/lease", {"queues": {"a": 3, "b": 1}, "max": 20})).json["jobs"]
    assert [job["queue"] for job in jobs].count("a") == 15


async def test_a_lease_by_weight_waits(world: World) -> None:
    wire = await world.connect()
    body = b'{"queues": {"a": 3, "b": 1}, "wait_ms": 30000}'
    await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), body))
    await world.until_at_work()
    job_id = await world.submit(queue="b")
    assert (await wire.reply()).json["job_id"] == job_id


async def test_a_waiting_lease_is_woken_when_a_limit_ends() -> None:
    """By a resumed queue, by a lease that ends under a limit, and by a rate limit's next token."""
    async with running(lease_check_ms=60_000) as world:

        async def put(settings: dict[str, Any]) -> None:
            reply = await world.call("admin", "PUT", "/queues/q", settings)
            assert reply.status == 200, reply.body

        async def waiting() -> asyncio.Task[Reply]:
            wire = await world.connect()
            body = b'{"queues": ["q"], "wait_ms": 30000}'
            await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), body))
            await world.until_at_work()
            return asyncio.create_task(wire.reply())

        await put({"paused": True})
        for _ in range(3):
            await world.submit(queue="q")
        first = await waiting()
        await world.call("admin", "POST", "/queues/q/resume")
        one = (await first).json
        await put({"concurrency": 1})
        second = await waiting()
        await ack(world, one)
        assert (await second).status == 200
        await put({"rate_limit": {"n": 1, "per_ms": 50}})
        third = await waiting()
        assert (await third).status == 200
