"""Extend and heartbeat, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.resources.requests import ack, call, leased_job, post
from tests.http.world import World


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/jobs/x/extend", {}, "lease_token is required"),
        ("/jobs/x/extend", {"lease_token": "x", "lease_ms": 999}, "lease_ms must be >= 1000"),
        ("/workers/heartbeat", {}, "worker_id is required"),
        ("/workers/heartbeat", {"worker_id": ""}, "worker_id must be 1 to 200 bytes"),
        ("/workers/heartbeat", {"worker_id": "w", "leases": [{"job_id": "x"}]}, "leases[0].lease_token is required"),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    reply = await post(world, path, body, who="worker")
    assert (reply.status, reply.error) == (400, message)


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


async def test_a_heartbeat_extends_held_leases_and_reports_lost_ones(world: World) -> None:
    held, lost, cancelled = [await leased_job(world) for _ in range(3)]
    await ack(world, lost)
    await world.call("client", "POST", f"/jobs/{cancelled['job_id']}/cancel")
    leases = [{"job_id": job["job_id"], "lease_token": job["lease_token"]} for job in (held, lost, cancelled)]
    leases.append({"job_id": "nope", "lease_token": "x"})
    body = {"worker_id": "w1", "leases": leases, "lease_ms": 600_000}
    answered = (await post(world, "/workers/heartbeat", body)).json["leases"]
    assert [one["job_id"] for one in answered] == [lease["job_id"] for lease in leases]
    assert answered[0]["lease_until"] > held["lease_until"] and answered[0]["cancel_requested"] is False
    assert (answered[1]["code"], answered[1]["state"]) == ("lease_lost", "ACKED")
    assert answered[2]["cancel_requested"] is True
    assert answered[3]["code"] == "job_not_found"
    shorter = (await post(world, "/workers/heartbeat", body | {"lease_ms": 1000})).json["leases"]
    assert shorter[0]["lease_until"] == answered[0]["lease_until"], "a deadline never moves earlier"
