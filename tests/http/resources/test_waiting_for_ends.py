"""Readers that wait for a job's end get it, also when retention removes the job in the same commit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.wire import Reply, request_bytes
from tests.http.world import World, running

BY_QUEUE: list[dict[str, Any]] = [{"acked_ms": 0, "dead_ms": 0}, {"max": 0}]
BY_SERVER = [
    {"retention_acked_ms": 0, "retention_dead_ms": 0},
    {"finished_jobs_max": 0},
    {"finished_bytes_max": 0},
]
ENDS = ["ACKED", "DEAD", "CANCELLED", "EXPIRED"]


async def waiting(world: World, job_id: str) -> asyncio.Task[Reply]:
    """A reader that waits."""
    wire = await world.connect()
    path = f"/jobs/{job_id}?wait_ms=60000&include=payload"
    await wire.send(request_bytes("GET", path, (world.bearer("client"),)))
    await world.until_at_work()
    return asyncio.create_task(wire.reply())


async def end(world: World, job_id: str, state: str) -> None:
    if state == "CANCELLED":
        assert (await world.call("client", "POST", f"/jobs/{job_id}/cancel")).json["state"] == state
    elif state == "EXPIRED":
        world.hands.ahead_us += 60_000_000
        world.engine.run_due()
    else:
        leased = await world.lease({})
        outcome = {"result": {"is": 7}} if state == "ACKED" else {"outcome": "discard", "result_error": "boom"}
        body = {"lease_token": leased["lease_token"], **outcome}
        assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)).status == 200


def is_the_end(reply: Reply, state: str) -> None:
    assert reply.status == 200, reply.body
    shown = reply.json
    assert (shown["state"], shown["payload"]) == (state, "work")
    assert shown.get("result") == ({"is": 7} if state == "ACKED" else None)
    assert shown.get("result_error") == ("boom" if state == "DEAD" else None)


async def gone(world: World, job_id: str) -> None:
    async with asyncio.timeout(10):
        while (await world.call("client", "GET", f"/jobs/{job_id}")).status != 404:
            await world.engine.durable()


@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("retention", [*BY_QUEUE, *BY_SERVER], ids="-".join)
async def test_who_waits_gets_the_end_before_the_job_is_forgotten(retention: dict[str, Any], state: str) -> None:
    by_queue = retention in BY_QUEUE
    async with running(**({} if by_queue else retention)) as world:
        if by_queue:
            await world.call("admin", "PUT", "/queues/default", {"retention": retention})
        job_id = await world.submit(**({"expires_ms": 50_000} if state == "EXPIRED" else {}))
        readers = [await waiting(world, job_id) for _ in range(2)]
        await end(world, job_id, state)
        for reader in readers:
            is_the_end(await reader, state)
        await gone(world, job_id)
        # The client submits, and then asks to wait: it may come a little late.
        is_the_end(await (await waiting(world, job_id)), state)
        stranger = await world.call("stranger", "GET", f"/jobs/{job_id}?wait_ms=1")
        assert stranger.json["code"] == "job_not_found"
        world.hands.ahead_us += 5_000_001
        assert (await world.call("client", "GET", f"/jobs/{job_id}?wait_ms=1")).status == 404


async def test_retention_that_changes_while_one_waits(world: World) -> None:
    job_id = await world.submit()
    reader = await waiting(world, job_id)
    await world.call("admin", "PUT", "/queues/default", {"retention": {"max": 0}})
    await end(world, job_id, "ACKED")
    is_the_end(await reader, "ACKED")


async def test_who_waits_for_a_job_that_is_deleted_learns_it(world: World) -> None:
    job_id = await world.submit()
    reader = await waiting(world, job_id)
    assert (await world.call("client", "DELETE", f"/jobs/{job_id}")).status == 200
    assert (await reader).status == 404
    assert (await world.call("client", "GET", f"/jobs/{job_id}?wait_ms=1")).status == 404


async def test_a_keyed_submit_is_repeated_after_its_job_is_forgotten(world: World) -> None:
    await world.call("admin", "PUT", "/queues/default", {"retention": {"acked_ms": 0}})
    key = (("Idempotency-Key", "k"),)
    job_id = (await world.call("client", "POST", "/jobs", {"payload": "work"}, key)).json["job_id"]
    reader = await waiting(world, job_id)
    await end(world, job_id, "ACKED")
    is_the_end(await reader, "ACKED")
    await gone(world, job_id)
    again = await world.call("client", "POST", "/jobs", {"payload": "work"}, key)
    assert (again.status, again.json["job_id"]) == (200, job_id)
