"""Read jobs, over a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest

from fastq.engine import reads
from fastq.http.resources.jobs import cursor_of
from fastq.services.keys import Grants
from tests.http.resources.requests import get
from tests.http.wire import Reply, request_bytes
from tests.http.world import World, running


async def ids(world: World, query: str, who: str = "client") -> list[str]:
    return [job["job_id"] for job in (await get(world, f"/jobs?{query}", who))["jobs"]]


async def test_the_payload_is_shown_on_request(world: World) -> None:
    job_id = await world.submit({"n": [1, 2]})
    assert "payload" not in await world.show(job_id)
    assert (await get(world, f"/jobs/{job_id}?include=payload"))["payload"] == {"n": [1, 2]}


async def waiting_for(world: World, job_id: str, wait_ms: int = 30_000) -> asyncio.Task[Reply]:
    wire = await world.connect()
    await wire.send(request_bytes("GET", f"/jobs/{job_id}?wait_ms={wait_ms}", (world.bearer("client"),)))
    await world.until_at_work()
    return asyncio.create_task(wire.reply())


async def test_waiting_for_a_result(world: World) -> None:
    job_id = await world.submit()
    first, second = await waiting_for(world, job_id), await waiting_for(world, job_id)
    leased = await world.lease({})
    body = {"lease_token": leased["lease_token"], "result": {"sum": 3}}
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    for task in (first, second):
        shown = (await task).json
        assert (shown["state"], shown["result"]) == ("ACKED", {"sum": 3})
    assert (await get(world, f"/jobs/{job_id}?wait_ms=60000"))["state"] == "ACKED", "at once: it is finished"


async def test_a_wait_ends_with_its_time_a_delete_or_a_cancel(world: World) -> None:
    job_id = await world.submit()
    assert (await get(world, f"/jobs/{job_id}?wait_ms=20"))["state"] == "READY"
    task = await waiting_for(world, job_id)
    await world.call("client", "DELETE", f"/jobs/{job_id}")
    assert (await task).status == 404
    job_id = await world.submit()
    task = await waiting_for(world, job_id)
    await world.call("client", "POST", f"/jobs/{job_id}/cancel")
    assert (await task).json["state"] == "CANCELLED"
    assert world.engine._reads.end_waiters.count == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("wait_ms=60001", "wait_ms must be <= 60000"),
        ("wait_ms=x", "wait_ms must be an integer"),
        ("include=result", "include must be payload, not result"),
        ("colour=red", "unknown parameter: colour"),
    ],
)
async def test_bad_parameters_of_one(world: World, query: str, message: str) -> None:
    reply = await world.call("client", "GET", f"/jobs/{await world.submit()}?{query}")
    assert reply.status == 400
    assert reply.error.startswith(message)


async def test_why(world: World) -> None:
    first, second = await world.submit(queue="q"), await world.submit(queue="q", group="g")
    third = await world.submit(queue="q")

    async def why(job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await get(world, f"/jobs/{job_id}/why")
        return found

    assert (await why(first))["reason"] == "no_worker"
    assert "last_asked_at" not in await why(first)
    await world.call("admin", "PUT", "/queues/q", {"paused": True})
    assert (await why(first))["reason"] == "paused"
    assert (await world.call("worker", "POST", "/jobs/lease", {"queues": ["q"]})).status == 404
    await world.call("admin", "PUT", "/queues/q", {"group_concurrency": 1})
    assert (await why(first))["reason"] == "next"
    third_why = await why(third)
    assert (third_why["reason"], third_why["position"]) == ("behind", 1)
    assert third_why["last_asked_at"].endswith("Z")
    leased = await world.lease({"queues": ["q"]})
    assert leased["job_id"] == first
    assert (await why(first))["reason"] == "running"
    assert (await why(third))["reason"] == "group_concurrency"
    assert (await why(second))["reason"] == "next"
    await world.call("admin", "PUT", "/queues/q", {"concurrency": 1})
    assert (await why(third))["reason"] == "concurrency"
    await world.call("admin", "PUT", "/queues/q", {"rate_limit": {"n": 1, "per_ms": 3_600_000}})
    limited = await why(third)
    assert limited["reason"] == "rate_limit" and limited["run_at"] > limited["last_asked_at"]
    later = await why(await world.submit(delay_ms=60_000))
    assert later["reason"] == "not_due" and later["run_at"].endswith("Z")
    await world.call("worker", "POST", f"/jobs/{first}/ack", {"lease_token": leased["lease_token"]})
    assert (await why(first))["reason"] == "finished"


async def test_filters(world: World) -> None:
    a = await world.submit("one", queue="q", group="g", tags=["x"])
    b = await world.submit("two", queue="q", tags=["x", "y"])
    c = await world.submit({"text": "three, not two"}, delay_ms=60_000)
    await world.submit("two", who="stranger")
    assert await ids(world, "") == [c, b, a]
    assert await ids(world, "queue=q") == [b, a]
    assert await ids(world, "queue=q&group=g") == [a]
    assert await ids(world, "tag=y") == [b]
    assert await ids(world, "state=SCHEDULED") == [c]
    assert await ids(world, "state=RUNNING") == []
    assert await ids(world, "q=two") == [c, b]
    assert await ids(world, "q=two&tag=x") == [b]
    assert await ids(world, "q=" + quote('"text":"three')) == [c]
    created = (await world.show(b))["created_at"]
    assert await ids(world, "since=" + quote(created)) == [c, b]
    assert len(await ids(world, "", "admin")) == len(await ids(world, "", "worker")) == 4
    assert len(await ids(world, "q=two", "admin")) == 3


async def all_pages(world: World, query: str) -> list[list[str]]:
    pages, cursor = [], ""
    while True:
        answer = await get(world, f"/jobs?{query}{cursor}")
        pages.append([job["job_id"] for job in answer["jobs"]])
        if "cursor" not in answer:
            return pages
        cursor = f"&cursor={answer['cursor']}"


@pytest.mark.parametrize("query", ["limit=7", "limit=7&q=work"])
async def test_pages_have_every_job_once_while_others_come_and_go(world: World, query: str) -> None:
    body = {"jobs": [{"payload": f"work {n}"} for n in range(50)]}
    kept = (await world.call("client", "POST", "/jobs/batch", body)).json["job_ids"]
    seen: list[str] = []
    cursor = ""
    while True:
        answer = await get(world, f"/jobs?{query}{cursor}")
        seen += [job["job_id"] for job in answer["jobs"]]
        if "cursor" not in answer:
            break
        cursor = f"&cursor={answer['cursor']}"
        await world.submit("work later")
        if len(seen) == 14:
            await world.call("client", "DELETE", f"/jobs/{kept[10]}")
    assert seen == [job_id for job_id in reversed(kept) if job_id != kept[10]]


async def test_a_search_examines_a_limited_number_of_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READ_BYTES_MAX", 3_000)
    monkeypatch.setattr(reads, "SLICE_BYTES", 1_000)
    wanted = []
    for n in range(20):
        job_id = await world.submit("needle " + "x" * 1000 if n % 4 == 0 else "y" * 1000)
        wanted += [job_id] if n % 4 == 0 else []
    pages = await all_pages(world, "limit=2&q=needle")
    assert len(pages) > 5
    assert [job_id for page in pages for job_id in page] == wanted[::-1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit must be >= 1"),
        ("limit=1001", "limit must be <= 1000"),
        ("state=LOST", "state must be ACKED, CANCELLED, DEAD, EXPIRED, READY, RETRY, RUNNING or SCHEDULED, not LOST"),
        ("queue=a%20b", "queue must be 1 to 64 characters"),
        ("tag=" + "t" * 65, "tag must be 1 to 64 bytes"),
        ("q=" + "x" * 201, "q must be at most 200 bytes"),
        ("since=yesterday", "since must be an RFC 3339 time"),
        ("cursor=nonsense", "cursor must be one that this server returned with a page"),
        ("cursor=" + "A" * 65, "cursor must be one that this server returned with a page"),
        ("cursor=%C3%BC", "cursor must be one that this server returned with a page"),
        ("offset=3", "unknown parameter: offset"),
    ],
)
async def test_bad_parameters_of_many(world: World, query: str, message: str) -> None:
    reply = await world.call("client", "GET", f"/jobs?{query}")
    assert reply.status == 400
    assert reply.error.startswith(message)


async def test_a_cursor_of_another_server_is_none(world: World) -> None:
    cursor = cursor_of(3, b"another")
    assert (await world.call("client", "GET", f"/jobs?cursor={cursor}")).status == 400


async def test_what_is_listed_is_durable(world: World) -> None:
    """The answer waits for the batch of the last change that it shows."""
    world.log.hold()
    wires = [await world.connect() for _ in range(2)]
    await wires[0].send(request_bytes("POST", "/jobs", (world.bearer("client"),), b'{"payload": 1}'))
    await world.until_at_work()
    await wires[1].send(request_bytes("GET", "/jobs", (world.bearer("client"),)))
    listing = asyncio.create_task(wires[1].reply())
    for _ in range(200):
        await asyncio.sleep(0)
    assert not listing.done()
    world.log.release()
    assert len((await listing).json["jobs"]) == 1


async def test_a_worker_key_bound_to_queues_sees_no_others() -> None:
    async with running() as world:
        mail, film = await world.submit(queue="mail"), await world.submit(queue="film")
        await world.make_key("bound", "worker", grants=Grants(queues=frozenset({"mail"})))
        assert await ids(world, "", "bound") == [mail]
        assert (await world.call("bound", "GET", f"/jobs/{film}")).status == 404
        refused = await world.call("bound", "POST", "/jobs/lease", {"queues": ["mail", "film"]})
        assert (refused.status, refused.json["code"]) == (403, "queue_forbidden")
        assert (await world.call("bound", "POST", "/jobs/lease", {"queues": ["mail"]})).json["job_id"] == mail


# --- the original's clients -------------------------------------------------------------------------------------------

GO = ("User-Agent", "Go-http-client/1.1")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (b'"done"', "done"),
        (b'{"a": [1, "\\u00e9"]}', '{"a": [1, "\\u00e9"]}'),
        (b"12.50", "12.50"),
        (b"true", "true"),
        ('{"a":"é"}'.encode(), '{"a":"é"}'),
    ],
)
async def test_the_originals_library_reads_every_result_as_a_string(world: World, result: bytes, text: str) -> None:
    job_id = await world.submit()
    lease = await world.lease({})
    body = b'{"lease_token":"%s","result":%s}' % (lease["lease_token"].encode(), result)
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)).status == 200
    original = await world.call("client", "GET", f"/jobs/{job_id}", headers=(GO,))
    assert original.json["result"] == text
    new: list[tuple[tuple[str, str], ...]] = [
        (), (GO, ("Accept", "application/json")), (GO, ("Accept", "*/*")), (("User-Agent", "curl/8"),),
        (("User-Agent", "my-program/1 (Go-http-client/1.1)"),), (("User-Agent", ""),),
    ]  # fmt: skip
    for headers in new:
        shown = await world.call("client", "GET", f"/jobs/{job_id}", headers=headers)
        assert shown.json["result"] == json.loads(result), headers
        assert b'"result":' + result in shown.body
