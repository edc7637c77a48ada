"""Changes of one job, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.wire import Reply
from tests.http.world import World


async def change(
    world: World, method: str, job_id: str, path: str = "", body: Any = None, who: str = "client"
) -> Reply:
    return await world.call(who, method, f"/jobs/{job_id}{path}", body)


async def dead_job(world: World, **fields: Any) -> str:
    job_id = await world.submit(max_retries=1, **fields)
    leased = await world.lease({})
    await change(
        world, "POST", job_id, "/ack", {"lease_token": leased["lease_token"], "result_error": "boom"}, "worker"
    )
    assert (await world.show(job_id))["state"] == "DEAD"
    return job_id


async def test_a_waiting_job_is_cancelled_at_once(world: World) -> None:
    job_id = await world.submit()
    reply = await change(world, "POST", job_id, "/cancel")
    assert (reply.status, reply.json) == (200, {"job_id": job_id, "state": "CANCELLED"})
    assert (await world.call("worker", "POST", "/jobs/lease")).status == 404
    again = await change(world, "POST", job_id, "/cancel")
    assert (again.status, again.json["code"], again.json["state"]) == (409, "job_finished", "CANCELLED")


@pytest.mark.parametrize(("outcome", "state"), [("ok", "ACKED"), ("error", "CANCELLED"), ("release", "CANCELLED")])
async def test_a_worker_sees_cancel_requested_and_its_outcome_counts(world: World, outcome: str, state: str) -> None:
    job_id = await world.submit()
    leased = await world.lease({})
    assert (await change(world, "POST", job_id, "/cancel", {})).json["state"] == "RUNNING"
    assert (await world.show(job_id))["cancel_requested"] is True
    token = {"lease_token": leased["lease_token"]}
    assert (await change(world, "POST", job_id, "/extend", token, "worker")).json["cancel_requested"] is True
    assert (await change(world, "POST", job_id, "/ack", token | {"outcome": outcome}, "worker")).status == 200
    assert (await world.show(job_id))["state"] == state


async def test_force_ends_a_running_job(world: World) -> None:
    job_id = await world.submit()
    leased = await world.lease({})
    assert (await change(world, "POST", job_id, "/cancel", {"force": True})).json["state"] == "CANCELLED"
    late = await change(world, "POST", job_id, "/ack", {"lease_token": leased["lease_token"]}, "worker")
    assert (late.status, late.json["code"], late.json["state"]) == (409, "lease_lost", "CANCELLED")


async def test_a_dead_letter_is_redriven_and_keeps_its_history(world: World) -> None:
    job_id = await dead_job(world)
    assert (await change(world, "POST", job_id, "/redrive")).json == {"job_id": job_id, "state": "READY"}
    shown = await world.show(job_id)
    assert (shown["state"], shown["attempts"]) == ("READY", 0)
    again = await change(world, "POST", job_id, "/redrive")
    assert (again.status, again.json["code"]) == (409, "not_dead")
    leased = await world.lease({})
    assert (leased["job_id"], leased["attempt"]) == (job_id, 1)
    events = (await change(world, "GET", job_id, "/history")).json["events"]
    assert [event["what"] for event in events] == ["redriven", "attempt", "submitted"]
    assert events[0]["by"] == world.key_ids["client"] and events[1]["by"] == world.key_ids["worker"]


async def test_a_dead_letter_whose_unique_key_is_taken(world: World) -> None:
    job_id = await dead_job(world, unique_key="u")
    other = await world.submit(unique_key="u")
    reply = await change(world, "POST", job_id, "/redrive")
    assert (reply.status, reply.json["code"], reply.json["job_id"]) == (409, "duplicate", other)


async def test_edit(world: World) -> None:
    job_id = await world.submit({"n": 1}, delay_ms=60_000, tags=["t"], group="g")
    body = {"payload": {"n": 2}, "priority": 5, "delay_ms": 0, "queue": "mail"}
    assert (await change(world, "PATCH", job_id, "", body)).json == {"job_id": job_id, "state": "READY"}
    leased = await world.lease({"queues": ["mail"]})
    assert (leased["payload"], leased["priority"], leased["tags"], leased["group"]) == ({"n": 2}, 5, ["t"], "g")
    running = await change(world, "PATCH", job_id, "", {"priority": 1})
    assert (running.status, running.json["code"]) == (409, "job_running")
    await change(world, "POST", job_id, "/ack", {"lease_token": leased["lease_token"]}, "worker")
    finished = await change(world, "PATCH", job_id, "", {"priority": 1})
    assert (finished.status, finished.json["code"]) == (409, "job_finished")


async def test_a_dead_letter_is_edited_and_redriven(world: World) -> None:
    job_id = await dead_job(world)
    assert (await change(world, "PATCH", job_id, "", {"payload": "mended"})).json["state"] == "DEAD"
    await change(world, "POST", job_id, "/redrive")
    assert (await world.lease({}))["payload"] == "mended"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "one of payload, priority, delay_ms, run_at and queue is required"),
        ({"payload": None}, "payload is required"),
        ({"payload": ""}, "payload is required"),
        ({"priority": 1 << 31}, "priority must be <= 2147483647"),
        ({"queue": "a b"}, "queue must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        ({"delay_ms": 1, "run_at": "2030-01-01T00:00:00Z"}, "run_at must be left out when delay_ms is given"),
        ({"run_at": "2100-01-01T00:00:00Z"}, "run_at must be at most 10 years ahead"),
        ({"tags": ["x"]}, "unknown field: tags"),
    ],
)
async def test_an_impossible_edit_is_refused(world: World, body: Any, message: str) -> None:
    reply = await change(world, "PATCH", await world.submit(), "", body)
    assert (reply.status, reply.error) == (400, message)


async def test_delete(world: World) -> None:
    job_id = await world.submit()
    assert (await change(world, "DELETE", job_id)).json == {"job_id": job_id, "deleted": True}
    assert (await change(world, "GET", job_id)).status == 404
    assert (await change(world, "DELETE", job_id)).status == 404
    await world.submit()
    running = (await world.lease({}))["job_id"]
    refused = await change(world, "DELETE", running)
    assert (refused.status, refused.json["code"]) == (409, "job_running")


async def test_an_admin_changes_any_job_and_a_worker_none(world: World) -> None:
    job_id = await world.submit()
    assert (await change(world, "POST", job_id, "/cancel", who="worker")).status == 403
    assert (await change(world, "POST", job_id, "/cancel", who="admin")).status == 200
