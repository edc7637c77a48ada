"""Long answers: each turn of the loop makes one slice of one of them, and a client that is gone costs no more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import fastq.http.long_answers
import fastq.http.resources.workers
import fastq.services.workers
from fastq.engine.commands import Principal
from fastq.http.long_answers import page_of
from fastq.services.queues import QueueSettings
from fastq.services.schedule import Schedule
from tests.http.wire import request_bytes
from tests.http.world import World

JOBS = 300
ADMIN = Principal("admin_1", "admin", "admin", frozenset())
LONG = [
    "/jobs?limit=1000",
    "/jobs?limit=1000&q=work",
    "/queues",
    "/admin/keys",
    "/schedules",
    "/admin/audit?limit=1000",
    "/workers",
]


class Slices:
    """Counts the slices that each turn of the loop encodes, and their items."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.turn = 0
        self.of_turn: Counter[int] = Counter()
        self.sizes: list[int] = []
        self._encode = fastq.http.long_answers.encode
        patched.setattr(fastq.http.long_answers, "encode", self.encode)
        self._next()

    def _next(self) -> None:
        self.turn += 1
        self.handle = asyncio.get_running_loop().call_soon(self._next)

    def encode(self, items: Any) -> bytes:
        if isinstance(items, list):
            self.of_turn[self.turn] += 1
            self.sizes.append(len(items))
        return self._encode(items)


@pytest.fixture
async def slices(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slices]:
    counted = Slices(monkeypatch)
    yield counted
    counted.handle.cancel()


async def fill(world: World) -> None:
    """A few hundred of everything that has a list."""
    for at in range(0, JOBS, 100):
        jobs = [{"payload": "work", "queue": f"q{n}"} for n in range(at, at + 100)]
        assert (await world.call("client", "POST", "/jobs/batch", {"jobs": jobs})).status == 201
    for n in range(JOBS):
        await world.node.keys.create(f"n{n}", "admin", "client", n)
        job = msgspec.Raw(b'{"payload":1}')
        world.node.schedules.put(ADMIN, f"s{n}", Schedule("0 0 1 1 *", "UTC", job, "admin", "k", 0))
        world.node.queues.put(ADMIN, f"q{n}", QueueSettings(max_depth=n + 2))
    for n in range(0, JOBS, 10):
        await world.lease({"queues": [f"q{n + i}" for i in range(10)], "max": 10, "worker_id": f"w{n % 30}"})


async def test_a_turn_of_the_loop_makes_one_slice_of_one_answer(world: World, slices: Slices) -> None:
    await fill(world)
    slices.of_turn.clear()
    slices.sizes.clear()
    wires = [await world.connect() for _ in range(2 * len(LONG))]
    for wire, path in zip(wires, LONG * 2, strict=True):
        await wire.send(request_bytes("GET", path, (world.bearer("admin"),)))
    lengths = []
    for wire, path in zip(wires, LONG * 2, strict=True):
        reply = await wire.reply()
        assert reply.status == 200, (path, reply.body)
        lengths.append(len(reply.body))
    assert lengths[: len(LONG)] == lengths[len(LONG) :]
    assert min(lengths) > 1_000
    assert max(slices.of_turn.values()) == 1
    assert max(slices.sizes) <= 50
    assert sum(slices.of_turn.values()) > 2 * len(LONG) * 5


async def test_another_clients_submit_waits_for_no_page(world: World, slices: Slices) -> None:
    """It has its answer long before the pages that were asked for first."""
    await fill(world)
    wires = [await world.connect() for _ in range(30)]
    for wire in wires:
        await wire.send(request_bytes("GET", "/jobs?limit=1000", (world.bearer("client"),)))
    while not slices.of_turn:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    before = slices.turn
    await world.submit()
    assert slices.turn - before < 100
    assert world.engine.turns.waiting > 10
    for wire in wires:
        assert len((await wire.reply()).json["jobs"]) >= JOBS


@pytest.mark.parametrize("path", LONG)
async def test_another_keys_list_takes_turns_with_many_pages_that_were_asked_for_first(
    world: World, slices: Slices, path: str
) -> None:
    await fill(world)
    wires = [await world.connect() for _ in range(60)]
    for wire in wires:
        await wire.send(request_bytes("GET", "/jobs?limit=1000", (world.bearer("client"),)))
    while world.engine.turns.waiting < len(wires) - 1:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    slices.sizes.clear()
    assert (await world.call("admin", "GET", path)).status == 200
    assert len(slices.sizes) < 40  # first come, first served it is more than 360
    assert world.engine.turns.waiting > 40
    for wire in wires:
        assert len((await wire.reply()).json["jobs"]) >= JOBS


async def test_no_slice_is_made_for_a_client_that_is_gone(
    world: World, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world)
    wires = [await world.connect() for _ in range(20)]
    for wire in wires:
        await wire.send(request_bytes("GET", "/jobs?limit=1000", (world.bearer("client"),)))
    while world.engine.turns.waiting < len(wires) - 1:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    found: list[None] = []
    pages = world.engine.pages

    def counted(*asked: Any) -> Any:
        found.append(None)
        return pages(*asked)

    monkeypatch.setattr(world.engine, "pages", counted)
    for wire in wires:
        wire.abort()
    slices.sizes.clear()
    await world.until_at_rest()
    assert len(found) <= 1 and sum(slices.sizes) < JOBS


async def test_keys_are_an_array_whose_next_page_is_in_a_header(world: World) -> None:
    for n in range(130):
        await world.node.keys.create(f"n{n}", "own", "client", n)
    path, found = "/admin/keys?limit=60", []
    while path:
        reply = await world.call("admin", "GET", path)
        assert reply.status == 200 and len(reply.json) <= 60
        found += [key["name"] for key in reply.json]
        link = reply.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link.partition("<")[2].partition(">")[0]
    assert found[:130] == [f"n{n}" for n in range(130)]
    assert len(found) == len(set(found)) == len((await world.call("admin", "GET", "/admin/keys")).json)
    refused = await world.call("admin", "GET", "/keys?cursor=x")
    assert (refused.status, refused.json["error"]) == (400, "cursor must be one that this server returned with a page")


async def test_one_worker_with_all_leases(world: World, slices: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fastq.services.workers, fastq.http.resources.workers):
        monkeypatch.setattr(module, "SLICE_LEASES", 20)
    for _ in range(90):
        await world.submit()
    await world.lease({"max": 90, "worker_id": "w"})
    (worker,) = (await world.call("admin", "GET", "/workers")).json["workers"]
    leases = [lease["leased_at"] for lease in worker["leases"]]
    assert len(leases) == 90 and leases == sorted(leases)


def test_a_page() -> None:
    assert page_of("a", b"[1]") == page_of("a", b"[1]", cursor=0, unreadable="") == b'{"a":[1]}'
    assert page_of("a", b"[]", cursor=7) == b'{"a":[],"cursor":7}'
    assert page_of("a", b"[]", cursor="x", unreadable=2) == b'{"a":[],"cursor":"x","unreadable":2}'
