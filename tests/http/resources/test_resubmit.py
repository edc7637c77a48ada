"""Submit a job again: what the new job has, whose it is, and what is refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from fastq.services.keys import Grants
from tests.http.world import World

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def again(
    world: World, job_id: str, body: Any = None, who: str = "client", headers: Any = (), status: int = 201
) -> str:
    reply = await world.call(who, "POST", f"/jobs/{job_id}/resubmit", body, headers)
    assert reply.status == status, reply.body
    new_id: str = reply.json["job_id"]
    return new_id


async def everything(world: World, job_id: str, who: str = "client") -> dict[str, Any]:
    reply = await world.call(who, "GET", f"/jobs/{job_id}?include=payload")
    assert reply.status == 200
    shown: dict[str, Any] = reply.json
    return shown


async def test_a_new_job_has_the_payload_and_options_of_the_old_one(world: World) -> None:
    options = {
        "queue": "mail", "group": "g", "priority": 7, "max_retries": 4, "lease_ms": 90_000, "tags": ["a", "b"],
        "backoff": {"base_ms": 5, "factor": 3, "cap_ms": 50}, "traceparent": TRACE, "expires_ms": 3_600_000,
        "unique_key": "u", "idempotency_key": "i", "delay_ms": 60_000,
    }  # fmt: skip
    old_id = await world.submit({"big": 2**63, "text": "\u202e<b>"}, **options)
    new_id = await again(world, old_id)
    old, new = await everything(world, old_id), await everything(world, new_id)
    assert new_id != old_id and new["state"] == "READY" and old["state"] == "SCHEDULED"
    same = ("payload", "queue", "group", "priority", "max_retries", "tags")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    lasts = [
        datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["created_at"]) for job in (old, new)
    ]
    assert abs((lasts[0] - lasts[1]).total_seconds()) < 0.01
    leased = (await world.lease({"queues": ["mail"], "max": 5}))["jobs"]
    assert [(job["job_id"], job["traceparent"]) for job in leased] == [(new_id, TRACE)]
    lease = datetime.fromisoformat(leased[0]["lease_until"]) - datetime.fromisoformat(new["created_at"])
    assert 89 < lease.total_seconds() < 100
    body = {"lease_token": leased[0]["lease_token"], "result_error": "boom"}
    await world.call("worker", "POST", f"/jobs/{new_id}/ack", body)
    waits = datetime.fromisoformat((await world.show(new_id))["run_at"]) - datetime.now(tz=lease_zone(new))
    assert waits.total_seconds() < 1, "its own backoff"


def lease_zone(job: dict[str, Any]) -> Any:
    return datetime.fromisoformat(job["created_at"]).tzinfo


async def test_what_the_body_gives_is_otherwise(world: World) -> None:
    old_id = await world.submit(priority=1)
    body = {"queue": "other", "priority": -3, "max_retries": 9, "delay_ms": 60_000}
    new = await world.show(await again(world, old_id, body))
    assert (new["queue"], new["priority"], new["max_retries"], new["state"]) == ("other", -3, 9, "SCHEDULED")
    new = await world.show(await again(world, old_id, {"run_at": "2030-01-01T00:00:00Z", "priority": 0}))
    assert (new["run_at"], new["priority"]) == ("2030-01-01T00:00:00Z", 0)
    new_id = await again(world, old_id, headers=(("traceparent", OTHER_TRACE),))
    traces = {job["job_id"]: job.get("traceparent") for job in (await world.lease({"max": 9}))["jobs"]}
    assert traces[new_id] == OTHER_TRACE


@pytest.mark.parametrize("state", ["READY", "RUNNING", "ACKED", "DEAD", "CANCELLED"])
async def test_a_job_in_any_state_is_submitted_again_and_stays_as_it_is(world: World, state: str) -> None:
    old_id = await world.submit(max_retries=0)
    if state == "CANCELLED":
        await world.call("client", "POST", f"/jobs/{old_id}/cancel")
    elif state != "READY":
        token = (await world.lease({}))["lease_token"]
        if state != "RUNNING":
            body = {"lease_token": token} | ({"result_error": "x"} if state == "DEAD" else {})
            await world.call("worker", "POST", f"/jobs/{old_id}/ack", body)
    before = await world.show(old_id)
    assert before["state"] == state
    new = await world.show(await again(world, old_id))
    assert (new["state"], new["attempts"]) == ("READY", 0)
    assert await world.show(old_id) == before


async def test_it_belongs_to_the_owner_of_the_old_job(world: World) -> None:
    old_id = await world.submit()
    new_id = await again(world, old_id, who="admin")
    assert (await world.show(new_id))["state"] == "READY"
    history = (await world.call("client", "GET", f"/jobs/{new_id}/history")).json["events"]
    assert history[0]["by"] == world.key_ids["admin"]


async def test_an_idempotency_key_gives_the_same_job(world: World) -> None:
    old_id = await world.submit()
    key = (("Idempotency-Key", "once"),)
    first = await again(world, old_id, headers=key)
    assert await again(world, old_id, headers=key, status=200) == first
    reply = await world.call("client", "POST", f"/jobs/{old_id}/resubmit", {"priority": 5}, key)
    assert reply.status == 422
    other_id = await world.submit()
    assert (await world.call("client", "POST", f"/jobs/{other_id}/resubmit", None, key)).status == 422


async def test_a_key_may_act_on_its_own_jobs_only(world: World) -> None:
    old_id = await world.submit()
    for who, status in (("stranger", 404), ("worker", 403)):
        assert (await world.call(who, "POST", f"/jobs/{old_id}/resubmit")).status == status
    await world.make_key("bound", "client", "client-owner", Grants(scopes=("jobs:submit",), queues=frozenset({"mail"})))
    assert (await world.call("bound", "POST", f"/jobs/{old_id}/resubmit")).status == 404


async def test_the_limits_of_a_submit_hold(world: World) -> None:
    old_id = await world.submit(queue="small")
    await world.call("admin", "PUT", "/queues/small", {"max_depth": 1})
    assert (await world.call("client", "POST", f"/jobs/{old_id}/resubmit")).status == 429
    assert (await again(world, old_id, {"queue": "other"})) != old_id


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"payload": 1}, "unknown field: payload"),
        ({"delay_ms": 1, "run_at": "2030-01-01T00:00:00Z"}, "run_at must be left out when delay_ms is given"),
        ({"queue": "a b"}, "queue must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        ({"max_retries": 1001}, "max_retries must be <= 1000"),
        ({"run_at": "2099-01-01T00:00:00Z"}, "run_at must be at most 10 years ahead"),
        ([], "the body must be an object"),
    ],
)
async def test_bad_bodies(world: World, body: Any, message: str) -> None:
    reply = await world.call("client", "POST", f"/jobs/{await world.submit()}/resubmit", body)
    assert reply.status == 400
    assert message in reply.error or reply.error.startswith("invalid"), reply.error
