"""The routes of schedules over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from fastq.engine.documents import DocumentKind
from fastq.services.keys import Grants
from tests.http.wire import request_bytes
from tests.http.world import World, running

NIGHTLY: dict[str, Any] = {
    "cron": "30 2 * * *",
    "timezone": "Europe/Vienna",
    "job": {"payload": {"n": 1}, "queue": "q"},
}


async def put(world: World, name: str = "nightly", who: str = "admin", **fields: Any) -> dict[str, Any]:
    reply = await world.call(who, "PUT", f"/schedules/{name}", NIGHTLY | fields)
    assert reply.status == 200, reply.body
    shown: dict[str, Any] = reply.json
    return shown


async def test_put_show_list_delete(world: World) -> None:
    assert (await world.call("admin", "GET", "/schedules")).json == {"schedules": []}
    shown = await put(world)
    runs = shown.pop("next_runs")
    assert len(runs) == 5 and runs == sorted(runs) and runs[0] == shown["next_at"]
    assert shown.pop("next_at").endswith(("T00:30:00Z", "T01:30:00Z"))
    assert shown == NIGHTLY | {
        "name": "nightly",
        "catch_up": "one",
        "catch_up_max": 100,
        "overlap": "skip",
        "owner_id": "admin-owner",
        "passed": 0,
        "missed": 0,
    }
    assert (await world.call("admin", "GET", "/schedules/nightly")).json["cron"] == "30 2 * * *"
    await put(world, "another", timezone="UTC", overlap="allow", catch_up="all", catch_up_max=7)
    listed = (await world.call("admin", "GET", "/schedules")).json["schedules"]
    assert [schedule["name"] for schedule in listed] == ["another", "nightly"]
    assert not any("job" in schedule or "next_runs" in schedule for schedule in listed)
    page = (await world.call("admin", "GET", "/schedules?limit=1")).json
    assert page["cursor"] == "another"
    page = (await world.call("admin", "GET", "/schedules?limit=1&cursor=another")).json
    assert [schedule["name"] for schedule in page["schedules"]] == ["nightly"]
    assert "cursor" not in page
    assert (await world.call("admin", "DELETE", "/schedules/nightly")).status == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/run")):
        reply = await world.call("admin", method, f"/schedules/nightly{path}")
        assert (reply.status, reply.json["code"]) == (404, "schedule_not_found")


async def test_pause_and_resume(world: World) -> None:
    shown = await put(world)
    paused = (await world.call("admin", "POST", "/schedules/nightly/pause")).json
    assert shown.pop("next_at") and shown.pop("next_runs") and paused == shown | {"paused": True}
    again = await put(world, cron="0 3 * * *")
    assert again["paused"] is True and "next_at" not in again
    assert (await world.call("admin", "GET", "/schedules")).json["schedules"][0]["paused"] is True
    assert (await world.call("admin", "POST", "/schedules/nightly/run")).status == 201
    resumed = (await world.call("admin", "POST", "/schedules/nightly/resume")).json
    assert "paused" not in resumed and "next_at" in resumed
    for action in ("pause", "resume"):
        reply = await world.call("admin", "POST", f"/schedules/absent/{action}")
        assert (reply.status, reply.json["code"]) == (404, "schedule_not_found")


async def test_run_now(world: World) -> None:
    await put(world)
    reply = await world.call("admin", "POST", "/schedules/nightly/run")
    assert reply.status == 201
    job = await world.lease({"queues": ["q"]})
    assert (job["job_id"], job["payload"]) == (reply.json["job_id"], {"n": 1})
    shown = (await world.call("admin", "GET", "/schedules/nightly")).json
    assert shown["last_job_id"] == job["job_id"]
    assert shown["last_fired_at"] == job["created_at"]
    await world.call("admin", "PUT", "/queues/q", {"max_depth": 1})
    full = await world.call("admin", "POST", "/schedules/nightly/run")
    assert (full.status, full.json["code"]) == (429, "queue_full")


async def test_it_fires_and_the_payload_is_kept_byte_for_byte(world: World) -> None:
    """The time comes while the server runs; its jobs are the owner's of the key that put it."""
    await world.make_key("planner", "client", "client-owner", grants=Grants(scopes=("schedules:manage",)))
    body = b'{"cron":"* * * * *","job":{"payload":{"b": 1.50,"a":[1,  2]}}}'
    assert (await world.call("planner", "PUT", "/schedules/s", body)).status == 200
    world.hands.ahead_us += 61_000_000
    world.node.schedules._tick()  # the loop's own timer knows nothing of a clock that was moved
    job = await world.lease({"wait_ms": 5_000})
    assert (await world.show(job["job_id"]))["state"] == "RUNNING"  # for the owner's other key
    assert (await world.call("stranger", "GET", f"/jobs/{job['job_id']}")).status == 404
    shown = (await world.call("planner", "GET", "/schedules/s")).body
    assert b'{"payload":{"b": 1.50,"a":[1,  2]}}' in shown
    assert orjson.loads(shown)["last_job_id"] == job["job_id"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cron": "61 * * * *"}, "cron is invalid: bad minute"),
        ({"cron": "* * * *"}, "cron must have 5 fields: minute, hour, day of month, month, day of week"),
        ({"cron": ""}, "cron is required"),
        ({"cron": "0 " * 101}, "cron must be of length <= 200"),
        ({"cron": 5}, "invalid JSON: cron must be a string"),
        ({"timezone": "Mars/Olympus"}, "timezone must be the name of an IANA time zone, such as Europe/Vienna or UTC"),
        ({"timezone": "x" * 65}, "timezone must be of length <= 64"),
        ({"catch_up": "some"}, "catch_up must be all, one or skip, not some"),
        ({"catch_up_max": 0}, "catch_up_max must be >= 1"),
        ({"catch_up_max": 1001}, "catch_up_max must be <= 1000"),
        ({"overlap": "maybe"}, "overlap must be allow or skip, not maybe"),
        ({"catch_up": "all"}, "overlap must be allow when catch_up is all"),
        ({"job": {"payload": None}}, "job: payload is required"),
        ({"job": {}}, "job: payload is required"),
        ({"job": "work"}, "job: invalid JSON: the body must be an object"),
        ({"job": {"payload": 1, "colour": "red"}}, "job: unknown field: colour"),
        ({"job": {"payload": 1, "priority": 2**31}}, "job: priority must be <= 2147483647"),
        ({"job": {"payload": 1, "run_at": "2030-01-01T00:00:00Z"}}, "job.run_at must be left out"),
        ({"job": {"payload": 1, "expires_at": "2030-01-01T00:00:00Z"}}, "job.expires_at must be left out"),
        ({"job": {"payload": 1, "idempotency_key": "k"}}, "job.idempotency_key must be left out"),
        ({"paused": True}, "unknown field: paused"),
        ({"every_ms": 60_000}, "one of cron and every_ms is required, and not both"),
        ({"every_ms": 60_000, "cron": None}, "timezone must be left out when every_ms is given"),
        ({"every_ms": 999}, "every_ms must be >= 1000"),
    ],
)
async def test_bad_fields_are_named(world: World, fields: dict[str, Any], message: str) -> None:
    reply = await world.call("admin", "PUT", "/schedules/bad", NIGHTLY | fields)
    assert reply.status == 400
    assert reply.error.startswith(message), reply.error
    assert world.engine.documents(DocumentKind.SCHEDULE) == {}


async def test_a_missing_field_is_named(world: World) -> None:
    for name, message in (("cron", "one of cron and every_ms is required, and not both"), ("job", "job is required")):
        body = {key: value for key, value in NIGHTLY.items() if key != name}
        assert (await world.call("admin", "PUT", "/schedules/bad", body)).error == message
    assert (await world.call("admin", "PUT", "/schedules/a%20b", NIGHTLY)).error.startswith("schedule must be 1 to 64")


async def test_a_put_is_answered_when_it_is_durable(world: World) -> None:
    world.log.hold()
    wire = await world.connect()
    await wire.send(request_bytes("PUT", "/schedules/s", (world.bearer("admin"),), orjson.dumps(NIGHTLY)))
    await world.until_at_work()
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.server.server_state.tasks, "answered before it was durable"
    world.log.release()
    assert (await wire.reply()).status == 200


async def test_schedules_survive_a_restart() -> None:
    async with running() as world:
        shown = await put(world)
        await world.call("admin", "POST", "/schedules/nightly/run")
        log = world.log.crash()
    async with running(log=log) as world:
        again = (await world.call("admin", "GET", "/schedules/nightly")).json
        assert again.pop("last_job_id") and again.pop("last_fired_at") and again.pop("last_run")["state"] == "READY"
        assert again == shown


async def test_an_interval_and_the_last_run(world: World) -> None:
    body = {"every_ms": 300_000, "job": {"payload": 1}}
    shown = (await world.call("admin", "PUT", "/schedules/often", body)).json
    assert shown["every_ms"] == 300_000 and {"cron", "timezone", "last_run"}.isdisjoint(shown)
    assert shown["next_at"][-4:] == ":00Z" and int(shown["next_at"][14:16]) % 5 == 0
    job_id = (await world.call("admin", "POST", "/schedules/often/run")).json["job_id"]
    for path in ("/schedules/often", "/schedules"):
        answer = (await world.call("admin", "GET", path)).json
        last = (answer["schedules"][0] if path == "/schedules" else answer)["last_run"]
        assert (last["job_id"], last["state"]) == (job_id, "READY") and last["at"].endswith("Z")
    await world.call("admin", "DELETE", f"/jobs/{job_id}")
    assert "state" not in (await world.call("admin", "GET", "/schedules/often")).json["last_run"]
    entries = (await world.call("admin", "GET", "/admin/audit")).json["entries"]
    assert entries[-1]["details"]["every_ms"] == "300000"
