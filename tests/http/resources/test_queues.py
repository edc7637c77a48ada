"""The routes of queues over a real socket: settings, pause, purge, limits; and all of it after a restart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastq import _core
from fastq.engine.commands import JobOptions, Principal, Submit
from fastq.engine.documents import DocumentKind
from fastq.services.queues import DEFAULT
from tests.http.wire import request_bytes
from tests.http.world import World, running

CLIENT = Principal("client_1", "client-owner", "client", frozenset())
ALL: dict[str, Any] = {
    "paused": False,
    "pause_reason": None,
    "pause_until": None,
    "fair": True,
    "rate_limit": {"n": 1000, "per_ms": 1000},
    "concurrency": 5,
    "group_concurrency": 2,
    "lease_ms": 60_000,
    "backoff": {"base_ms": 100, "factor": 3.0, "cap_ms": 5_000},
    "retention": {"acked_ms": 0, "dead_ms": 1_000, "max": 10},
    "max_depth": 3,
}
NONE = dict.fromkeys(ALL) | {"paused": False, "fair": False}


async def put(world: World, queue: str, **settings: Any) -> dict[str, Any]:
    reply = await world.call("admin", "PUT", f"/queues/{queue}", settings)
    assert reply.status == 200, reply.body
    shown: dict[str, Any] = reply.json
    return shown


async def test_settings_are_put_shown_replaced_and_deleted(world: World) -> None:
    assert (await world.call("worker", "GET", "/queues")).json == {"queues": []}
    assert (await world.call("worker", "GET", "/queues/mail")).json["code"] == "queue_not_found"
    shown = await put(world, "mail", **ALL)
    assert shown == {
        "name": "mail",
        "settings": ALL,
        "ready": 0,
        "waiting": 0,
        "running": 0,
        "finished": {"ACKED": 0, "DEAD": 0, "EXPIRED": 0, "CANCELLED": 0},
        "why": {"code": "empty", "words": "no job is ready"},
        "groups": 0,
        **dict.fromkeys(("oldest_ready_s", "in_per_s", "out_per_s", "failed_per_s"), 0.0),
    }
    assert (await world.call("worker", "GET", "/queues/mail")).json == shown
    again = await put(world, "mail", **shown["settings"])  # what is shown may be put
    assert again == shown
    assert (await put(world, "mail", fair=True))["settings"] == NONE | {"fair": True}  # what is left out is gone
    assert (await world.call("admin", "DELETE", "/queues/mail")).status == 204
    assert (await world.call("admin", "DELETE", "/queues/mail")).json["code"] == "queue_not_found"
    assert world.engine.documents(DocumentKind.QUEUE) == {}


async def test_counts(world: World) -> None:
    await world.submit(queue="a", priority=1)
    await world.submit(queue="a", delay_ms=60_000)
    await world.submit(queue="b")
    await world.ask.submit(CLIENT, Submit(b"1", queue="a", options=JobOptions(group="g")))
    reply = await world.call("worker", "GET", "/queues")
    assert [(queue["name"], queue["ready"], queue["waiting"], queue["groups"]) for queue in reply.json["queues"]] == [
        ("a", 2, 1, 2),
        ("b", 1, 0, 1),
    ]
    assert reply.json["queues"][0]["settings"] == NONE
    leased = await world.lease({"queues": ["a"]})
    shown = (await world.call("worker", "GET", "/queues/a")).json
    assert (shown["ready"], shown["running"]) == (1, 1)
    await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", {"lease_token": leased["lease_token"]})
    assert (await world.call("worker", "GET", "/queues/a")).json["finished"]["ACKED"] == 1


async def test_paging(world: World) -> None:
    for name in "abcde":
        await put(world, name)
    found, cursor = [], ""
    while True:
        page = (await world.call("worker", "GET", f"/queues?limit=2&cursor={cursor}")).json
        found.append([queue["name"] for queue in page["queues"]])
        if "cursor" not in page:
            break
        cursor = page["cursor"]
    assert found == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit must be >= 1"),
        ("limit=1001", "limit must be <= 1000"),
        ("limit=x", "limit must be an integer"),
        ("limit=1&limit=2", "limit must be an integer"),
        ("cursor=" + "x" * 65, "cursor must be of length <= 64"),
        ("colour=red", "unknown parameter: colour"),
    ],
)
async def test_bad_parameters(world: World, query: str, message: str) -> None:
    reply = await world.call("worker", "GET", f"/queues?{query}")
    assert (reply.status, reply.error) == (400, message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paused": "yes"}, "invalid JSON: paused must be true or false"),
        ({"concurrency": 0}, "concurrency must be >= 1"),
        ({"lease_ms": 999}, "lease_ms must be >= 1000"),
        ({"lease_ms": 43_200_001}, "lease_ms must be <= 43200000"),
        ({"rate_limit": {"n": 0, "per_ms": 1}}, "rate_limit.n must be >= 1"),
        ({"rate_limit": {"n": 1}}, "rate_limit.per_ms is required"),
        ({"rate_limit": {"n": 1, "per_ms": 1, "burst": 2}}, "unknown field: rate_limit.burst"),
        ({"backoff": {"base_ms": 1, "factor": 0.5, "cap_ms": 1}}, "backoff.factor must be >= 1"),
        ({"backoff": {"base_ms": 2, "factor": 1, "cap_ms": 1}}, "backoff.cap_ms must be >= backoff.base_ms"),
        ({"retention": {"dead_ms": -1}}, "retention.dead_ms must be >= 0"),
        ({"max_depth": 1_000_000_001}, "max_depth must be <= 1000000000"),
        ({"weight": 2}, "unknown field: weight"),
    ],
)
async def test_bad_settings_name_the_field(world: World, settings: dict[str, Any], message: str) -> None:
    reply = await world.call("admin", "PUT", "/queues/mail", settings)
    assert reply.status == 400
    assert reply.error.startswith(message), reply.error
    assert world.engine.documents(DocumentKind.QUEUE) == {}


async def test_bad_names(world: World) -> None:
    for name in ("a" * 65, "a%20b", "%C3%A4"):
        for method, path in (("PUT", ""), ("POST", "/pause")):
            reply = await world.call("admin", method, f"/queues/{name}{path}", {} if method == "PUT" else None)
            assert (reply.status, reply.error) == (400, "queue must be 1 to 64 characters of A-Z a-z 0-9 . _ -")


# --- what settings do -------------------------------------------------------------------------------------------------


async def test_a_paused_queue(world: World) -> None:
    """Nothing is leased; resuming wakes whoever waits."""
    await world.submit()
    assert (await world.call("admin", "POST", "/queues/default/pause")).json["settings"]["paused"] is True
    assert (await world.call("worker", "POST", "/jobs/lease", {"max": 1})).json == {"jobs": []}
    wire = await world.connect()
    body = b'{"wait_ms": 60000}'
    await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), body))
    await world.until_at_work()
    assert (await world.call("admin", "POST", "/queues/default/resume")).json["settings"]["paused"] is False
    assert (await wire.reply()).status == 200
    assert (await world.call("admin", "POST", "/queues/later/pause?create=true")).status == 200  # before its first job
    await world.submit(queue="later")
    assert (await world.call("worker", "POST", "/jobs/lease", {"queues": ["later"]})).status == 404


@pytest.mark.parametrize("path", ["/pause", "/pause?create=false", "/resume", "/purge", ""])
async def test_a_mistyped_name_makes_no_queue(world: World, path: str) -> None:
    """A queue without jobs and settings is absent, also one that was there."""
    await put(world, "gone")
    await world.call("admin", "DELETE", "/queues/gone")
    before = world.core.state_hash()
    for name in ("never", "gone"):
        reply = await world.call("admin", "DELETE" if path == "" else "POST", f"/queues/{name}{path}")
        assert (reply.status, reply.json["code"]) == (404, "queue_not_found")
        assert ("create=true" in reply.error) == path.startswith("/pause")
    assert world.core.state_hash() == before
    assert (await world.call("admin", "GET", "/queues")).json == {"queues": []}


async def test_create_is_true_or_false(world: World) -> None:
    reply = await world.call("admin", "POST", "/queues/x/pause?create=yes")
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert (await world.call("admin", "POST", "/queues/x/pause?make=true")).error == "unknown parameter: make"


async def test_a_depth_limit(world: World) -> None:
    await put(world, "small", max_depth=2)
    await world.submit(queue="small")
    await world.submit(queue="small", delay_ms=60_000)
    reply = await world.call("client", "POST", "/jobs", {"payload": 1, "queue": "small"})
    assert (reply.status, reply.json["code"]) == (429, "queue_full")
    assert reply.headers["retry-after"]
    assert "at most 2" in reply.error
    leased = await world.lease({"queues": ["small"]})
    await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", {"lease_token": leased["lease_token"]})
    await world.submit(queue="small")


async def test_limits_of_running_jobs(world: World) -> None:
    await put(world, "work", concurrency=3, group_concurrency=2)
    for group in "aaab":
        await world.ask.submit(CLIENT, Submit(b"1", queue="work", options=JobOptions(group=group)))
    leased = (await world.call("worker", "POST", "/jobs/lease", {"queues": ["work"], "max": 9})).json["jobs"]
    now_us = world.engine.now_us()
    assert [world.core.job(now_us, _core.ALL, job["job_id"]).group for job in leased] == ["a", "a", "b"]
    await put(world, "work")
    assert len((await world.call("worker", "POST", "/jobs/lease", {"queues": ["work"], "max": 9})).json["jobs"]) == 1


async def test_retention_of_a_queue() -> None:
    async with running() as world:
        await put(world, "brief", retention={"acked_ms": 1_000})
        jobs = {queue: await world.submit(queue=queue) for queue in ("brief", "default")}
        for queue in jobs:
            leased = await world.lease({"queues": [queue]})
            await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", {"lease_token": leased["lease_token"]})
        world.hands.ahead_us += 2_000_000
        await world.submit()  # any batch looks for what is over
        await world.submit()
        assert (await world.call("client", "GET", f"/jobs/{jobs['brief']}")).status == 404
        assert (await world.show(jobs["default"]))["state"] == "ACKED"


async def test_lease_length_and_backoff_of_a_queue(world: World) -> None:
    await put(world, "slow", lease_ms=3_600_000, backoff={"base_ms": 60_000, "factor": 1, "cap_ms": 60_000})
    job_id = await world.submit(queue="slow")
    leased = await world.lease({"queues": ["slow"]})
    kept = world.core.job(world.engine.now_us(), _core.ALL, job_id)
    assert (kept.lease_until_us or 0) - kept.leased_us == 3_600_000_000
    body = {"lease_token": leased["lease_token"], "result_error": "boom"}
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    kept = world.core.job(world.engine.now_us(), _core.ALL, job_id)
    assert kept.run_at_us - kept.ended_us == 30_000_000  # half of the bound


# --- purge and delete -------------------------------------------------------------------------------------------------


async def test_a_purge_deletes_only_waiting_jobs(world: World) -> None:
    running_id = await world.submit(queue="q", priority=9)
    acked_id = await world.submit(queue="q", priority=8)
    other_id = await world.submit(queue="other")
    leased = [await world.lease({"queues": ["q"]}) for _ in range(2)]
    await world.call("worker", "POST", f"/jobs/{acked_id}/ack", {"lease_token": leased[1]["lease_token"]})
    for n in range(5):
        await world.submit(queue="q", delay_ms=60_000 * (n % 2))
    assert (await world.call("admin", "DELETE", "/queues/q")).json["code"] == "queue_has_jobs"
    reply = await world.call("admin", "POST", "/queues/q/purge")
    assert (reply.status, reply.json) == (200, {"matched": 5, "changed": 5, "complete": True})
    states = [(await world.show(job))["state"] for job in (running_id, acked_id, other_id)]
    assert states == ["RUNNING", "ACKED", "READY"]
    assert (await world.call("admin", "POST", "/queues/q/purge")).json["changed"] == 0
    assert (await world.call("admin", "POST", "/queues/absent/purge")).status == 404
    await world.call("worker", "POST", f"/jobs/{running_id}/ack", {"lease_token": leased[0]["lease_token"]})
    assert (await world.call("admin", "DELETE", "/queues/q")).status == 204
    assert (await world.call("worker", "GET", "/queues/q")).status == 200  # it still has finished jobs


async def test_other_work_goes_on_during_a_purge(world: World) -> None:
    for _ in range(5):
        body = {"jobs": [{"payload": n} for n in range(1000)]}
        assert (await world.call("client", "POST", "/jobs/batch", body)).status == 201
    durable = world.log.tail.durable_seq
    purge = asyncio.ensure_future(world.call("admin", "POST", "/queues/default/purge"))
    wire = await world.connect()
    between = 0
    while not purge.done():
        await wire.send(request_bytes("POST", "/jobs", (world.bearer("client"),), b'{"payload":1,"queue":"other"}'))
        assert (await wire.reply()).status == 201
        between += 1
    assert (await purge).json == {"matched": 5000, "changed": 5000, "complete": True}
    assert between > 3
    assert world.log.tail.durable_seq - durable >= 5  # slices


# --- a restart --------------------------------------------------------------------------------------------------------


async def test_settings_survive_a_restart() -> None:
    async with running() as world:
        await put(world, "mail", **ALL)
        await world.call("admin", "POST", "/queues/default/pause?create=true")
        await put(world, "gone")
        await world.call("admin", "DELETE", "/queues/gone")
        log = world.log.crash()
    async with running(log=log) as world:
        assert (await world.call("worker", "GET", "/queues/mail")).json["settings"] == ALL
        assert [queue["name"] for queue in (await world.call("worker", "GET", "/queues")).json["queues"]] == [
            "default",
            "mail",
        ]
        await world.submit()
        assert (await world.call("worker", "POST", "/jobs/lease", {"max": 1})).json == {"jobs": []}


async def test_a_change_that_is_not_durable_is_not_answered(world: World) -> None:
    world.log.hold()
    wire = await world.connect()
    await wire.send(request_bytes("PUT", "/queues/mail", (world.bearer("admin"),), b'{"paused":true}'))
    await world.until_at_work()
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.server.server_state.tasks, "answered before it was durable"
    world.log.release()
    assert (await wire.reply()).status == 200


def test_the_defaults_have_no_limits() -> None:
    assert all(value in (None, False) for value in (getattr(DEFAULT, name) for name in DEFAULT.__struct_fields__))
