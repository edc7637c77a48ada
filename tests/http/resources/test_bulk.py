"""Bulk changes: filters, counts, owners, and other work between the slices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastq._core import ALL, Filter
from fastq.engine import EngineOptions, assemble
from fastq.engine.commands import JobOptions, Principal, Submit
from fastq.errors import DiskFull
from fastq.services.bulk import Bulk, Order
from fastq.services.bulk import Filter as JobFilter
from tests.http.wire import request_bytes
from tests.http.world import World, running

STATES = "ACKED, CANCELLED, DEAD, EXPIRED, READY, RETRY, RUNNING or SCHEDULED"
CLIENT = Principal("client_1", "client-owner", "client", frozenset())


async def submit(world: World, payload: bytes = b'"work"', queue: str = "default", **options: Any) -> str:
    job_id, _ = await world.ask.submit(CLIENT, Submit(payload, queue=queue, options=JobOptions(**options)))
    return job_id


async def run(world: World, action: str, chosen: dict[str, Any], who: str = "client", **fields: Any) -> dict[str, Any]:
    reply = await world.call(who, "POST", f"/jobs/{action}", {"filter": chosen, **fields})
    assert reply.status == 200, reply.body
    done: dict[str, Any] = reply.json
    assert ("cursor" in done) == (not done["complete"])
    return {name: value for name, value in done.items() if name != "cursor"}


async def fail(world: World, **fields: Any) -> str:
    """A dead letter."""
    job_id = await world.submit(max_retries=0, queue="dead", **fields)
    leased = await world.lease({"queues": ["dead"]})
    assert leased["job_id"] == job_id
    body = {"lease_token": leased["lease_token"], "result_error": "boom"}
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    return job_id


async def test_cancel(world: World) -> None:
    first, delayed = await world.submit(), await world.submit(delay_ms=60_000)
    acked, held = await world.submit(priority=9), await world.submit(priority=8)
    leased = [await world.lease({}) for _ in range(2)]
    await world.call("worker", "POST", f"/jobs/{acked}/ack", {"lease_token": leased[0]["lease_token"]})
    chosen = {"queue": "default"}
    assert await run(world, "cancel", chosen, dry_run=True) == {"matched": 3, "changed": 0, "complete": True}
    assert (await world.show(first))["state"] == "READY"
    assert await run(world, "cancel", chosen) == {"matched": 3, "changed": 3, "complete": True}
    states = [(await world.show(job_id))["state"] for job_id in (first, delayed, acked, held)]
    assert states == ["CANCELLED", "CANCELLED", "ACKED", "RUNNING"]
    assert world.core.job(world.engine.now_us(), ALL, held).cancel_requested
    assert await run(world, "cancel", chosen) == {"matched": 0, "changed": 0, "complete": True}


async def test_redrive_and_delete(world: World) -> None:
    dead = [await fail(world) for _ in range(3)]
    other = await world.submit()
    assert (await run(world, "redrive", {"state": "DEAD", "ids": dead[:2]}))["changed"] == 2
    assert [(await world.show(job_id))["state"] for job_id in dead] == ["READY", "READY", "DEAD"]
    held = await world.lease({"queues": ["dead"]})
    assert (await run(world, "delete", {"queue": "dead"})) == {"matched": 2, "changed": 2, "complete": True}
    assert (await world.show(held["job_id"]))["state"] == "RUNNING"
    assert (await world.show(other))["state"] == "READY"
    assert (await world.call("client", "GET", f"/jobs/{dead[2]}")).status == 404


async def test_a_bulk_redrive_skips_a_job_whose_unique_key_is_taken(world: World) -> None:
    first = await submit(world, unique_key="k")
    leased = await world.lease({})
    body = {"lease_token": leased["lease_token"], "result_error": "boom"}
    for _ in range(2):  # three attempts
        await world.call("worker", "POST", f"/jobs/{first}/ack", body)
        world.hands.ahead_us += 3_600_000_000
        leased = await world.lease({})
        body["lease_token"] = leased["lease_token"]
    await world.call("worker", "POST", f"/jobs/{first}/ack", body)
    assert (await world.show(first))["state"] == "DEAD"
    await submit(world, unique_key="k")
    assert await run(world, "redrive", {"state": "DEAD"}) == {"matched": 1, "changed": 0, "complete": True}


@pytest.mark.parametrize(
    ("chosen", "fits"),
    [
        ({"queue": "a"}, [0, 1]),
        ({"group": "g"}, [1, 2]),
        ({"queue": "a", "group": "g"}, [1]),
        ({"tag": "red"}, [2, 3]),
        ({"q": "needle"}, [0, 3]),
        ({"q": "needle", "tag": "red"}, [3]),
        ({"state": "READY", "queue": "b"}, [2, 3]),
        ({"state": "SCHEDULED"}, []),
        ({"since": "2020-01-01T00:00:00Z"}, [0, 1, 2, 3]),
        ({"since": "2999-01-01T00:00:00Z"}, []),
    ],
)
async def test_filters_match(world: World, chosen: dict[str, Any], fits: list[int]) -> None:
    jobs = [
        await submit(world, b'{"find":"needle"}', "a"),
        await submit(world, b'"hay"', "a", group="g"),
        await submit(world, b'"hay"', "b", group="g", tags=("red", "blue")),
        await submit(world, b'"a needle here"', "b", tags=("red",)),
    ]
    assert (await run(world, "cancel", chosen))["changed"] == len(fits)
    cancelled = [n for n, job_id in enumerate(jobs) if (await world.show(job_id))["state"] == "CANCELLED"]
    assert cancelled == fits
    twice = jobs + jobs + ["absent"]
    assert (await run(world, "delete", {"ids": twice, "state": "CANCELLED"}))["changed"] == len(fits)


async def test_own_jobs_only(world: World) -> None:
    mine, theirs = await world.submit(), await world.submit(who="stranger")
    for chosen in ({"queue": "default"}, {"ids": [mine, theirs]}):
        assert (await run(world, "cancel", chosen, dry_run=True))["matched"] == 1
        assert (await run(world, "cancel", chosen, who="admin", dry_run=True))["matched"] == 2
    assert (await run(world, "delete", {"ids": [theirs, mine]}))["changed"] == 1
    assert (await world.show(theirs, "stranger"))["state"] == "READY"
    assert (await world.call("worker", "POST", "/jobs/delete", {"filter": {"queue": "q"}})).status == 403


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "filter is required"),
        ({"filter": {}}, "filter must have at least one member"),
        ({"filter": {"state": "GONE"}}, f"filter.state must be {STATES}, not GONE"),
        ({"filter": {"queue": "a b"}}, "filter.queue must be 1 to 64 characters"),
        ({"filter": {"group": ""}}, "filter.group must be 1 to 64 characters"),
        ({"filter": {"q": "ä" * 101}}, "filter.q must be at most 200 bytes"),
        ({"filter": {"tag": "x" * 65}}, "filter.tag must be of length <= 64"),
        ({"filter": {"since": "yesterday"}}, "filter.since must be an RFC 3339 time"),
        ({"filter": {"ids": ["x"] * 10_001}}, "filter.ids must be of length <= 10000"),
        ({"filter": {"colour": "red"}}, "unknown field: filter.colour"),
        ({"filter": {"queue": "q"}, "force": True}, "unknown field: force"),
    ],
)
async def test_bad_filters_are_named(world: World, body: Any, message: str) -> None:
    for action in ("cancel", "redrive", "delete"):
        reply = await world.call("client", "POST", f"/jobs/{action}", body)
        assert reply.status == 400
        assert reply.error.startswith(message), reply.error


async def test_other_work_goes_on_between_slices_and_jobs_with_a_new_state_stay(world: World) -> None:
    """3,000 jobs in slices; what comes meanwhile is not looked at, what was leased meanwhile is not deleted."""
    for _ in range(3):
        await world.call("client", "POST", "/jobs/batch", {"jobs": [{"payload": n} for n in range(1000)]})
    deleting = asyncio.ensure_future(run(world, "delete", {"queue": "default"}))
    wire = await world.connect()
    leased, later = 0, 0
    while not deleting.done():
        await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), b'{"max":10}'))
        leased += len((await wire.reply()).json["jobs"])
        await wire.send(request_bytes("POST", "/jobs", (world.bearer("client"),), b'{"payload":1,"delay_ms":99999}'))
        later += (await wire.reply()).status == 201
    done = await deleting
    assert leased > 0 and later > 0
    assert done["complete"] is True
    assert done["changed"] == 3000 - min(leased, 3000 - done["changed"])
    assert world.core.counts()["jobs"] == 3000 - done["changed"] + later
    assert world.core.counts()["RUNNING"] == leased
    world.core.check()


async def test_a_stop_and_a_full_disk_make_a_result_incomplete(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await world.call("client", "POST", "/jobs/batch", {"jobs": [{"payload": n} for n in range(1000)]})
    log_caught_up = world.engine.log_caught_up

    async def drain() -> None:
        await log_caught_up()
        world.engine.admission.draining = True

    monkeypatch.setattr(world.engine, "log_caught_up", drain)
    assert await run(world, "cancel", {"queue": "default"}) == {"matched": 1000, "changed": 1000, "complete": False}
    monkeypatch.undo()
    world.engine.admission.draining = False
    need_room, calls = world.engine.commits.need_room, []

    def once(record_bytes: int, spare_segments: int) -> None:
        calls.append(record_bytes)
        if len(calls) > 1:
            raise DiskFull()
        need_room(record_bytes, spare_segments)

    monkeypatch.setattr(world.engine.commits, "need_room", once)
    assert await run(world, "cancel", {"queue": "default"}) == {"matched": 100, "changed": 100, "complete": False}
    reply = await world.call("client", "POST", "/jobs/cancel", {"filter": {"queue": "default"}})
    assert (reply.status, reply.json["code"]) == (507, "disk_full")


async def test_a_bulk_change_survives_a_crash() -> None:
    async with running() as world:
        dead = await fail(world)
        cancelled, deleted = await world.submit(), await world.submit(queue="x")
        await run(world, "redrive", {"state": "DEAD"})
        await run(world, "cancel", {"queue": "default"})
        await run(world, "delete", {"queue": "x"})
        state = world.core.state_hash()
        log = world.log.crash()
    engine, after = assemble(log, EngineOptions(), lambda: 0.5)
    engine.open()
    now_us = after.last_us
    assert [after.job(now_us, ALL, job_id).state for job_id in (dead, cancelled)] == ["READY", "CANCELLED"]
    assert deleted not in [job.job_id for job in after.page(now_us, ALL, Filter(), 0, 10, 100)[0]]
    assert after.state_hash() == state


async def dead_jobs(world: World, count: int, **options: Any) -> list[str]:
    """Dead letters, in the order of their submits; they died in the reverse order."""
    made = [await world.ask.submit(CLIENT, Submit(b"1", 1, options=JobOptions(**options))) for _ in range(count)]
    leased: list[dict[str, Any]] = []
    while len(leased) < count:
        leased += (await world.call("worker", "POST", "/jobs/lease", {"max": 1000})).json["jobs"]
    acks = [{"job_id": job["job_id"], "lease_token": job["lease_token"], "outcome": "discard"} for job in leased[::-1]]
    reply = await world.call("worker", "POST", "/jobs/ack", {"acks": acks})
    assert all("ok" in result for result in reply.json["results"])
    return [job_id for job_id, _ in made]


async def client() -> Principal:
    return CLIENT


async def leased_ids(world: World, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        jobs = (await world.call("worker", "POST", "/jobs/lease", {"max": 1000})).json["jobs"]
        assert jobs
        found += [job["job_id"] for job in jobs]
    return found


@pytest.mark.parametrize("by", ["filter", "ids"])
async def test_jobs_of_all_slices_are_redriven_in_the_order_of_their_submits(world: World, by: str) -> None:
    dead = await dead_jobs(world, 2500)
    chosen: dict[str, Any] = {"state": "DEAD"} if by == "filter" else {"ids": [*dead[1::2], *dead[::2]][::-1]}
    assert await run(world, "redrive", chosen) == {"matched": 2500, "changed": 2500, "complete": True}
    assert await leased_ids(world, 2500) == dead


async def test_a_worker_gets_redriven_jobs_in_order_while_the_redrive_goes_on(world: World) -> None:
    dead = await dead_jobs(world, 2500)
    order = Order("redrive", JobFilter(states=frozenset({"DEAD"})))
    redrive = asyncio.ensure_future(Bulk(world.engine, world.node.audit).run(client, order))
    found: list[str] = []
    while len(found) < 2500:
        leased = (await world.call("worker", "POST", "/jobs/lease", {"max": 300})).json["jobs"]
        found += [job["job_id"] for job in leased]
    assert (await redrive).changed == 2500
    assert found == dead


@pytest.mark.parametrize("action", ["cancel", "delete"])
async def test_jobs_are_changed_from_the_oldest_to_the_newest(world: World, action: str) -> None:
    """A server that stops between two slices has changed the oldest."""
    made = [(await world.ask.submit(CLIENT, Submit(b"1")))[0] for _ in range(2500)]
    order = Order(action, JobFilter(queue="default"))
    change = asyncio.ensure_future(Bulk(world.engine, world.node.audit).run(client, order))
    while world.core.counts()["READY"] == 2500:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    world.engine.admission.draining = True
    assert not (await change).complete
    left = world.core.counts()["READY"]
    states = [world.core.job(world.engine.now_us(), ALL, job_id).state for job_id in made[-left:]]
    assert 0 < left < 2500 and set(states) == {"READY"}


async def test_of_dead_jobs_with_one_unique_key_the_oldest_is_revived(world: World) -> None:
    dead = []
    for _ in range(3):
        dead += await dead_jobs(world, 1, unique_key="one")
    assert await run(world, "redrive", {"ids": dead[::-1]}) == {"matched": 3, "changed": 1, "complete": True}
    assert [(await world.show(job_id))["state"] for job_id in dead] == ["READY", "DEAD", "DEAD"]


async def test_since_leaves_out_older_jobs_in_the_order_of_their_submits(world: World) -> None:
    dead = await dead_jobs(world, 3)
    since = (await world.show(dead[1]))["created_at"]
    assert (await run(world, "redrive", {"state": "DEAD", "since": since}))["changed"] == 2
    assert await leased_ids(world, 2) == dead[1:]
