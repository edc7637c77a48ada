"""Bulk changes that go on in several requests, at a pace, and until the client leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastq.services import bulk
from tests.http.wire import request_bytes
from tests.http.world import World


async def submit(world: World, count: int, queue: str = "q", who: str = "client") -> list[str]:
    body = {"jobs": [{"payload": n, "queue": queue} for n in range(count)]}
    ids: list[str] = (await world.call(who, "POST", "/jobs/batch", body)).json["job_ids"]
    return ids


async def change(world: World, path: str, body: Any, who: str = "client") -> dict[str, Any]:
    reply = await world.call(who, "POST", path, body)
    assert reply.status == 200, reply.body
    done: dict[str, Any] = reply.json
    assert done["complete"] == ("cursor" not in done)
    return done


async def states(world: World, ids: list[str]) -> list[str]:
    replies = [await world.call("admin", "GET", f"/jobs/{job_id}") for job_id in ids]
    return [reply.json.get("state", "gone") for reply in replies]


BY_QUEUE: dict[str, Any] = {"queue": "q"}


@pytest.fixture
def hurried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step changes at most 10 jobs, and takes 2 ms."""
    step = bulk.Work.step

    async def slow_step(work: bulk.Work) -> None:
        await step(work)
        world.hands.ahead_us += 2_000

    monkeypatch.setattr(bulk.Work, "step", slow_step)
    monkeypatch.setattr(bulk.Bulk, "slice_jobs", property(lambda _: 10, lambda _self, _value: None), raising=False)


@pytest.mark.parametrize("by", ["filter", "ids"])
async def test_a_change_goes_on_where_it_ended(world: World, hurried: None, by: str) -> None:
    ids = await submit(world, 35)
    chosen = {"filter": BY_QUEUE if by == "filter" else {"ids": ids[::-1]}}
    counted = await change(world, "/jobs/cancel", {**chosen, "dry_run": True})
    assert (counted["matched"], counted["changed"], counted["complete"]) == (35, 0, True)
    done = await change(world, "/jobs/cancel", {**chosen, "work_ms": 1, "pace_per_s": 10_000})
    parts = [done]
    late = await submit(world, 3)
    while not done["complete"]:
        done = await change(world, "/jobs/cancel", {**chosen, "work_ms": 1, "cursor": done["cursor"]})
        parts.append(done)
    assert len(parts) == 4
    assert sum(part["changed"] for part in parts) == sum(part["matched"] for part in parts) == 35
    assert await states(world, ids) == ["CANCELLED"] * 35
    assert await states(world, late) == ["READY"] * 3, "they were submitted after the first request"
    entries = (await world.call("admin", "GET", "/admin/audit")).json["entries"]
    assert [(entry["action"], entry["details"]["changed"]) for entry in entries] == [("jobs.cancel", 35)]


async def test_a_cursor_is_of_one_change_and_filter(world: World, hurried: None) -> None:
    await submit(world, 35)
    cursor = (await change(world, "/jobs/cancel", {"filter": BY_QUEUE, "work_ms": 1}))["cursor"]
    for path, body in (
        ("/jobs/delete", {"filter": BY_QUEUE}),
        ("/jobs/cancel", {"filter": {"queue": "other"}}),
        ("/jobs/cancel", {"filter": BY_QUEUE, "dry_run": True}),
        ("/jobs/cancel", {"filter": BY_QUEUE, "cursor": "B" + cursor[1:]}),
        ("/jobs/cancel", {"filter": BY_QUEUE, "cursor": "ü"}),
        ("/jobs/cancel", {"filter": BY_QUEUE, "cursor": ""}),
    ):
        reply = await world.call("client", "POST", path, {"cursor": cursor} | body)
        assert reply.status == 400 and "cursor must be one that this server returned" in reply.error, (path, body)
    await change(world, "/jobs/cancel", {"filter": BY_QUEUE, "cursor": cursor})


async def test_a_cursor_gives_nobody_more(world: World, hurried: None) -> None:
    ids = await submit(world, 35)
    cursor = (await change(world, "/jobs/cancel", {"filter": BY_QUEUE, "work_ms": 1}))["cursor"]
    done = await change(world, "/jobs/cancel", {"filter": BY_QUEUE, "cursor": cursor}, "stranger")
    assert done == {"matched": 0, "changed": 0, "complete": True}
    assert (await states(world, ids)).count("READY") >= 15
    entries = (await world.call("admin", "GET", "/admin/audit")).json["entries"]
    assert len(entries) == 1 and entries[0]["key_id"] == world.key_ids["client"]


async def test_the_pace_holds(world: World) -> None:
    ids = await submit(world, 30)
    begun = asyncio.get_running_loop().time()
    done = await change(world, "/jobs/delete", {"filter": BY_QUEUE, "pace_per_s": 50})
    took_s = asyncio.get_running_loop().time() - begun
    assert done == {"matched": 30, "changed": 30, "complete": True}
    assert took_s >= 0.45, "50 a second"
    assert set(await states(world, ids)) == {"gone"}


async def test_a_client_that_leaves_stops_it(world: World) -> None:
    ids = await submit(world, 30)
    wire = await world.connect()
    body = b'{"filter":{"queue":"q"},"pace_per_s":10}'
    await wire.send(request_bytes("POST", "/jobs/delete", (world.bearer("client"),), body))
    while (await states(world, ids[:1])) != ["gone"]:  # noqa: ASYNC110 -- there is no event for it
        await asyncio.sleep(0)
    await wire.close()
    await world.until_at_rest()
    left = (await states(world, ids)).count("READY")
    assert 20 < left < 30


async def test_a_purge_goes_on_after_its_queue_is_empty(world: World, hurried: None) -> None:
    ids = await submit(world, 25)
    done = await change(world, "/queues/q/purge", {"work_ms": 1}, "admin")
    while not done["complete"]:
        done = await change(world, "/queues/q/purge", {"work_ms": 1, "cursor": done["cursor"]}, "admin")
    assert (await world.call("admin", "GET", "/queues/q")).status == 404
    assert set(await states(world, ids)) == {"gone"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"pace_per_s": 0}, "pace_per_s must be >= 1"),
        ({"work_ms": 0}, "work_ms must be >= 1"),
        ({"work_ms": 20_001}, "work_ms must be <= 20000"),
    ],
)
async def test_bad_paces(world: World, body: dict[str, Any], message: str) -> None:
    for path, more in (("/jobs/delete", {"filter": BY_QUEUE}), ("/queues/q/purge", {})):
        await submit(world, 1)
        reply = await world.call("admin", "POST", path, body | more)
        assert (reply.status, reply.error) == (400, message)
