"""Batches, leases that wait, and extend, over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.wire import request_bytes
from tests.http.world import World


async def call(world: World, who: str, path: str, body: Any, status: int) -> Any:
    reply = await world.call(who, "POST", path, body)
    assert reply.status == status, reply.body
    return reply.json


async def test_a_batch_through_its_life(world: World) -> None:
    jobs = [{"payload": {"n": n}, "queue": "mail", "priority": n % 2} for n in range(5)]
    ids = (await call(world, "client", "/jobs/batch", {"jobs": jobs}, 201))["job_ids"]
    leased = (await call(world, "worker", "/jobs/lease", {"queues": ["none", "mail"], "max": 10}, 200))["jobs"]
    assert [job["job_id"] for job in leased] == [ids[1], ids[3], ids[0], ids[2], ids[4]]
    assert leased[0]["payload"] == {"n": 1} and leased[0]["queue"] == "mail"
    acks = [{"job_id": job["job_id"], "lease_token": job["lease_token"], "result": 7} for job in leased[:3]]
    acks += [{"job_id": leased[3]["job_id"], "lease_token": "0" * 24}, {"job_id": "nope"}]
    results = (await call(world, "worker", "/jobs/ack", {"acks": acks}, 200))["results"]
    assert [result.get("ok") for result in results] == [True, True, True, None, None]
    assert (results[3]["code"], results[3]["state"]) == ("lease_lost", "RUNNING")
    assert results[4] == {"job_id": "nope", "error": "failed to ack job: job not found: nope", "code": "job_not_found"}
    assert (await world.show(leased[0]["job_id"]))["result"] == 7
    assert (await call(world, "worker", "/jobs/lease", {"queues": ["mail"], "max": 10}, 200)) == {"jobs": []}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/jobs/batch", {"jobs": []}, "jobs is required"),
        ("/jobs/batch", {}, "jobs is required"),
        ("/jobs/batch", {"jobs": {}}, "invalid JSON: jobs must be an array"),
        ("/jobs/batch", {"jobs": [{"payload": 1}, {"payload": ""}]}, "jobs[1]: payload is required"),
        ("/jobs/batch", {"jobs": [{"payload": 1, "colour": 2}]}, "jobs[0]: unknown field: colour"),
        ("/jobs/batch", {"jobs": [{"payload": 1, "queue": "a b"}]}, "jobs[0]: queue must be 1 to 64 characters"),
        ("/jobs/batch", {"jobs": [{"payload": 1, "max_retries": -1}]}, "jobs[0]: max_retries must be >= 0"),
        ("/jobs/lease", {"queues": []}, "queues is required"),
        ("/jobs/lease", {"queues": ["a", "ü"]}, "queues must be 1 to 64 characters"),
        ("/jobs/lease", {"queues": ["a"] * 65}, "queues must be of length <= 64"),
        ("/jobs/lease", {"max": 0}, "max must be >= 1"),
        ("/jobs/lease", {"max": 1001}, "max must be <= 1000"),
        ("/jobs/lease", {"wait_ms": 60_001}, "wait_ms must be <= 60000"),
        ("/jobs/lease", {"request_id": "x" * 201}, "request_id must be at most 200 bytes"),
        ("/jobs/ack", {"acks": [{"lease_token": "x"}]}, "acks[0]: job_id is required"),
        ("/jobs/ack", {"acks": [{"job_id": "x", "outcome": "maybe"}]}, "acks[0]: outcome must be ok, error, discard"),
        ("/jobs/x/extend", {}, "lease_token is required"),
        ("/jobs/x/extend", {"lease_token": "x", "lease_ms": 999}, "lease_ms must be >= 1000"),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    who = "client" if path == "/jobs/batch" else "worker"
    assert (await call(world, who, path, body, 400))["error"].startswith(message)


async def test_a_batch_is_stored_whole_or_not_at_all(world: World) -> None:
    jobs = [{"payload": "good"}, {"payload": None}]
    await call(world, "client", "/jobs/batch", {"jobs": jobs}, 400)
    assert await call(world, "worker", "/jobs/lease", {"max": 5}, 200) == {"jobs": []}


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


async def test_extend(world: World) -> None:
    await world.submit()
    leased = await world.lease({"lease_ms": 1000})
    token = leased["lease_token"]
    path = f"/jobs/{leased['job_id']}/extend"
    longer = await call(world, "worker", path, {"lease_token": token, "lease_ms": 60_000}, 200)
    assert longer["lease_until"] > leased["lease_until"]
    assert (await call(world, "worker", path, {"lease_token": token, "lease_ms": 1000}, 200)) == longer
    lost = await call(world, "worker", path, {"lease_token": "0" * 24}, 409)
    assert (lost["code"], lost["state"]) == ("lease_lost", "RUNNING")
    await call(world, "worker", "/jobs/nope/extend", {"lease_token": token}, 404)
