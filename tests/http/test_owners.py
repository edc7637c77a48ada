"""Two owners and every route with an id: another owner's object is answered as an absent one."""

from __future__ import annotations

from typing import Any

import pytest

from fastq.services.keys import Grants
from tests.http.test_table import ABSENT
from tests.http.world import World, running


async def job_routes_with_an_id(world: World) -> set[tuple[str, str]]:
    return {(route.method, route.path) for route in world.app.route_table if route.path_fields}


async def test_every_route_with_an_id_has_a_case(world: World) -> None:
    assert await job_routes_with_an_id(world) == {
        ("DELETE", "/keys/{key}"),
        ("POST", "/admin/keys/{key_id}/rotate"),  # for admins only, who see everything
    } | {(method, path) for method, path, _ in JOBS} | QUEUES | {(method, path) for method, path, _ in SCHEDULES}


TOKEN = {"lease_token": "0" * 24}
JOBS: list[tuple[str, str, Any]] = [
    ("GET", "/jobs/{job_id}", None),
    ("GET", "/jobs/{job_id}/attempts", None),
    ("GET", "/jobs/{job_id}/history", None),
    ("GET", "/jobs/{job_id}/why", None),
    ("PATCH", "/jobs/{job_id}", {"priority": 1}),
    ("DELETE", "/jobs/{job_id}", None),
    ("POST", "/jobs/{job_id}/cancel", {"force": True}),
    ("POST", "/jobs/{job_id}/redrive", None),
    ("POST", "/jobs/{job_id}/resubmit", {"priority": 1}),
    ("POST", "/jobs/{job_id}/ack", None),
    ("POST", "/jobs/{job_id}/extend", TOKEN),
    ("POST", "/jobs/{job_id}/progress", TOKEN | {"percent": 1}),
]

# Queues are no owner's.
QUEUES = {
    ("GET", "/queues/{queue}"),
    ("PUT", "/queues/{queue}"),
    ("DELETE", "/queues/{queue}"),
    ("POST", "/queues/{queue}/pause"),
    ("POST", "/queues/{queue}/resume"),
    ("POST", "/queues/{queue}/purge"),
}
SCHEDULES = [
    ("GET", "/schedules/{schedule}", None),
    ("PUT", "/schedules/{schedule}", {"cron": "0 0 * * *", "job": {"payload": 1}}),
    ("DELETE", "/schedules/{schedule}", None),
    ("POST", "/schedules/{schedule}/run", None),
    ("POST", "/schedules/{schedule}/pause", None),
    ("POST", "/schedules/{schedule}/resume", None),
]


@pytest.mark.parametrize(("method", "path", "body"), SCHEDULES)
async def test_another_owners_schedule_answers_as_an_absent_one(
    world: World, method: str, path: str, body: Any
) -> None:
    for who in ("client", "stranger"):
        await world.make_key(who, "client", f"{who}-owner", grants=Grants(scopes=("schedules:manage",)))
    put = {"cron": "0 0 * * *", "job": {"payload": 1}}
    assert (await world.call("stranger", "PUT", "/schedules/theirs", put)).status == 200
    same_id = (("X-Request-Id", "same"),)
    theirs = await world.call("client", method, path.replace("{schedule}", "theirs"), body, same_id)
    if method == "PUT":  # the one thing that shows: a name can be used once
        assert (theirs.status, theirs.json["code"]) == (409, "name_taken")
        return
    absent = await world.call("client", method, path.replace("{schedule}", "absent"), body, same_id)
    assert theirs.status == absent.status == 404
    assert theirs.body == absent.body.replace(b"absent", b"theirs")
    assert (await world.call("client", "GET", "/schedules")).json == {"schedules": []}
    assert len((await world.call("admin", "GET", "/schedules")).json["schedules"]) == 1


@pytest.mark.parametrize("state", ["READY", "SCHEDULED", "RUNNING", "ACKED", "RETRY", "DEAD"])
async def test_another_owners_job_answers_as_an_absent_one(world: World, state: str) -> None:
    fields: dict[str, Any] = {"SCHEDULED": {"delay_ms": 60_000}, "DEAD": {"max_retries": 1}}.get(state, {})
    job_id = await world.submit(**fields)
    if state not in ("READY", "SCHEDULED"):
        await world.lease()
    if state in ("ACKED", "RETRY", "DEAD"):
        body = {} if state == "ACKED" else {"result_error": "boom"}
        await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    assert (await world.show(job_id))["state"] == state

    await world.make_key(
        "stranger", "client", "stranger-owner", grants=Grants(scopes=("jobs:read", "jobs:submit", "jobs:ack"))
    )
    same_id = (("X-Request-Id", "same"),)
    before = await world.show(job_id)
    for method, path, body in JOBS:
        theirs = await world.call("stranger", method, path.replace("{job_id}", job_id), body, same_id)
        absent = await world.call("stranger", method, path.replace("{job_id}", ABSENT), body, same_id)
        assert theirs.status == absent.status == (400 if path.endswith("/ack") else 404), (method, path)
        assert theirs.body == absent.body.replace(ABSENT.encode(), job_id.encode())
        assert {**theirs.headers, "date": ""} == {**absent.headers, "date": ""}
    assert (await world.show(job_id)) == before
    listed = (await world.call("stranger", "GET", "/jobs")).json
    assert listed == {"jobs": []}
    for who in ("worker", "admin"):  # whose types see all
        assert (await world.show(job_id, who))["job_id"] == job_id


@pytest.mark.parametrize("body", [None, {}, {"max": 2}, {"wait_ms": 50}])
async def test_a_client_key_leases_no_jobs_of_others(world: World, body: dict[str, Any] | None) -> None:
    """The next job may be another owner's: leasing is for worker keys, whatever scopes a client key has."""
    job_id = await world.submit()
    for who in ("client", "stranger"):
        grants = Grants(scopes=("jobs:lease", "jobs:submit", "jobs:read", "jobs:ack"))
        await world.make_key(who, "client", f"{who}-owner", grants=grants)
        reply = await world.call(who, "POST", "/jobs/lease", body)
        assert (reply.status, reply.json["code"]) == (403, "workers_only")
        assert reply.error == "a client key cannot lease: the next job may be another owner's; use a worker key"
    assert (await world.show(job_id))["state"] == "READY"
    assert (await world.call("worker", "POST", "/jobs/lease", body)).status == 200


async def test_without_isolation_a_client_key_may_lease() -> None:
    async with running(owner_isolation=False) as world:
        job_id = await world.submit()
        await world.make_key("stranger", "client", "stranger-owner", grants=Grants(scopes=("jobs:lease",)))
        assert (await world.call("stranger", "POST", "/jobs/lease", {})).json["job_id"] == job_id


async def test_without_isolation_any_reader_reads_any_job() -> None:
    async with running(owner_isolation=False) as world:
        job_id = await world.submit()
        assert (await world.show(job_id, "stranger"))["state"] == "READY"


async def test_keys_of_one_owner_see_each_others_jobs(world: World) -> None:
    await world.make_key("second", "client", "client-owner")
    assert (await world.show(await world.submit(), "second"))["state"] == "READY"


async def test_another_owners_key(world: World) -> None:
    """The original's rule, kept: it says that the key is another's."""
    for name in (world.key_ids["client"], world.secrets["client"]):
        reply = await world.call("stranger", "DELETE", f"/keys/{name}")
        assert (reply.status, reply.error) == (403, "access denied: not the owner")
    assert (await world.call("client", "GET", "/keys")).status == 200
    assert (await world.call("stranger", "GET", "/keys")).json[0]["owner_id"] == "stranger-owner"
