"""Tables in memory: after thousands of requests, many of them broken off, each is as small as before."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

from fastq._core import ALL, Filter
from tests.http.wire import PATIENCE_S, request_bytes
from tests.http.world import World

EACH = 150  # requests of a kind
BOUNDED = {  # tables with a maximum of their own
    "._audit._entries",  # 10,000 entries
    ".last_seen._seen_us",  # 10,000 workers
    ".last_seen._queues",  # of the same workers
    "._leases._asked_us",  # 10,000 queues
    "._log._frames",  # the log of the tests
    ".answers_counted",  # by route and status class
}


def tables(found: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, int]]:
    """All dicts, lists, sets and deques that an object of fastq reaches through others of fastq, and their sizes."""
    seen = set() if seen is None else seen
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, dict | list | set | deque):
        yield path, len(found)
        return
    if not type(found).__module__.startswith("fastq."):
        return
    names = [*getattr(found, "__dict__", ()), *(n for c in type(found).__mro__ for n in getattr(c, "__slots__", ()))]
    for name in names:
        yield from tables(getattr(found, name, None), f"{path}.{name}", seen)


def sizes(world: World) -> dict[str, int]:
    node = world.node
    found: dict[str, int] = {}
    seen: set[int] = set()
    for name in ("engine", "audit", "queues", "schedules", "keys", "app"):
        found |= {f"{name}{path}": size for path, size in tables(getattr(node, name), "", seen)}
    return {path: size for path, size in found.items() if not any(path.endswith(name) for name in BOUNDED)}


def test_the_walk_finds_the_tables_that_it_must(world: World) -> None:
    found = sizes(world)
    for name in ("engine._reads.end_waiters._ends", "engine._leases.waiters._list._by_queue", "app.auth._known"):
        assert name in found, sorted(found)


async def broken_off(world: World, who: str, method: str, path: str, body: bytes, wait: bool) -> None:
    """Send requests on connections that close: at once, or when the server works on them."""
    wires = [await world.connect() for _ in range(10)]
    for wire in wires:
        await wire.send(request_bytes(method, path, (world.bearer(who),), body))
    if wait:
        await world.until_at_work()
    for wire in wires:
        wire.abort()


async def until_small(world: World, before: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What is larger than before, when the server is at rest."""
    await world.until_at_rest()
    larger: dict[str, tuple[int, int]] = {}
    for _ in range(1_000):
        await world.engine.durable()
        larger = {path: (before.get(path, 0), n) for path, n in sizes(world).items() if n > before.get(path, 0)}
        if not larger:
            break
        await asyncio.sleep(0)
    return larger


async def test_every_table_is_as_small_as_before(world: World) -> None:
    for who in ("client", "worker", "admin"):
        await world.call(who, "GET", "/keys")
    await world.hang_up()
    before = sizes(world)
    for n in range(EACH // 10):
        ids = [await world.submit(queue=f"q{n}-{i}", group=f"g{i}", unique_key=f"u{i}") for i in range(10)]
        waits = b'{"wait_ms":60000,"queues":["none-%d"],"request_id":"r%d","worker_id":"w"}' % (n, n)
        await broken_off(world, "worker", "POST", "/jobs/lease", waits, wait=True)
        await broken_off(world, "client", "GET", f"/jobs/{ids[0]}?wait_ms=60000", b"", wait=True)
        await broken_off(world, "client", "GET", f"/jobs/{ids[1]}?wait_ms=60000", b"", wait=False)
        await broken_off(world, "client", "GET", "/jobs?limit=1000", b"", wait=n % 2 == 0)
        await broken_off(world, "client", "POST", "/jobs", b'{"payload":1,"queue":"b%d"}' % n, wait=False)
        reader = await world.connect()
        await reader.send(request_bytes("GET", f"/jobs/{ids[2]}?wait_ms=60000", (world.bearer("client"),)))
        async with asyncio.timeout(PATIENCE_S):
            while ids[2] not in world.engine._reads.end_waiters._ends:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0)
        world.core.delete(world.engine.now_us(), ALL, [ids[2]])  # while a reader waits for its end
        await world.submit()
        assert (await reader.reply()).status in (200, 404)
        reader.abort()
        leased = await world.call("worker", "POST", "/jobs/lease", {"queues": [f"q{n}-3"], "request_id": f"l{n}"})
        await world.call("worker", "POST", f"/jobs/{ids[3]}/ack", {"lease_token": leased.json["lease_token"]})
        await world.call("client", "GET", "/jobs/nothing")
    await world.hang_up()
    await world.until_at_rest()
    while world.core.counts()["jobs"]:
        page, _ = world.core.page(world.engine.now_us(), ALL, Filter(), 0, 500, 10_000)
        world.core.delete(world.engine.now_us(), ALL, [job.job_id for job in page if job.state != "RUNNING"])
        for job in page:
            if job.state == "RUNNING":  # its connection was closed before its answer
                world.core.cancel(world.engine.now_us(), ALL, job.job_id, force=True, key_id="k")
    await world.submit()
    page, _ = world.core.page(world.engine.now_us(), ALL, Filter(), 0, 500, 10_000)
    world.core.delete(world.engine.now_us(), ALL, [job.job_id for job in page])
    await world.engine.durable()
    assert await until_small(world, before) == {}
    world.core.check()
    assert world.core.queues(ALL) == [] and world.core.take_ended() == []
    assert world.engine.turns.waiting == 0 and world.app.requests.held_bytes == world.app.answers.held_bytes == 0
