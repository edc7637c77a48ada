"""The memory limit of all connections: incomplete requests, pipelined requests, unread answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import re
import socket
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from fastq.http.connection.limits import PIPELINED_BYTES, PIPELINED_MAX
from fastq.http.connection.memory import HELD_BYTES_MAX, MemoryLimit
from fastq.http.connection.protocol import Protocol
from tests.http.connection.test_protocol import HEALTH, post_jobs
from tests.http.wire import PATIENCE_S, Wire, request_bytes
from tests.http.world import World
from tests.served import Served

# --- the limit --------------------------------------------------------------------------------------------------------


class Holder:
    def __init__(self, releases: bool = True) -> None:
        self.releases = releases
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.releases


def test_the_oldest_holder_frees_its_memory() -> None:
    memory, holders = MemoryLimit(100), [Holder() for _ in range(4)]
    for holder in holders:
        memory.hold(holder, 30)
    assert ([holder.asked for holder in holders], memory.held_bytes) == ([1, 0, 0, 0], 90)
    memory.hold(holders[3], 70)
    assert ([holder.asked for holder in holders], memory.held_bytes) == ([1, 1, 0, 0], 100)


def test_a_holder_that_cannot_free_memory_is_skipped() -> None:
    memory, under_way, waiting = MemoryLimit(100), Holder(releases=False), Holder()
    memory.hold(under_way, 90)
    memory.hold(waiting, 30)
    assert (under_way.asked, waiting.asked, memory.held_bytes) == (1, 1, 90)


def test_a_holder_that_was_empty_is_the_newest() -> None:
    memory, first, second = MemoryLimit(100), Holder(), Holder()
    memory.hold(first, 50)
    memory.hold(second, 50)
    memory.hold(first, 0)
    memory.hold(first, 51)
    assert (first.asked, second.asked, memory.held_bytes) == (0, 1, 51)


def test_holding_less_frees_nothing() -> None:
    memory, holder = MemoryLimit(100), Holder(releases=False)
    memory.hold(holder, 150)
    memory.hold(holder, 120)
    assert (holder.asked, memory.held_bytes) == (1, 120)


# --- requests ---------------------------------------------------------------------------------------------------------


def unfinished(world: World, size: int, missing: int = 1) -> bytes:
    return post_jobs(world, f"Content-Length: {size + missing}", body=b" " * size)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


def holds(memory: MemoryLimit, held_bytes: int) -> bool:
    return memory.held_bytes == held_bytes


async def overloaded(wire: Wire) -> None:
    reply = await wire.reply()
    assert (reply.status, reply.json["code"]) == (503, "overloaded"), reply.body
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["connection"] == "close"
    assert await wire.closed()


async def test_the_oldest_incomplete_body_is_dropped(world: World) -> None:
    memory = world.app.requests
    memory.bytes_max = 100_000
    wires = [await world.connect() for _ in range(5)]
    for number, wire in enumerate(wires[:4]):
        await wire.send(unfinished(world, 30_000, missing=30_000))
        await until(functools.partial(holds, memory, min(90_000, 30_000 * (number + 1))))
    await overloaded(wires[0])
    await world.submit()
    await wires[1].send(b" " * 20_000)
    await overloaded(wires[1])
    await wires[2].send(b" " * 30_000)
    assert (await wires[2].reply()).status == 400, "it is served, and what it held is free"
    await until(lambda: memory.held_bytes == 30_000)
    wires[3].abort()
    await until(lambda: memory.held_bytes == 0)
    assert world.core.counts()["jobs"] == 1


async def test_a_running_request_is_never_dropped(world: World) -> None:
    """Its body has come whole; the log has it already."""
    memory = world.app.requests
    memory.bytes_max = 100_000
    world.log.hold()
    under_way, late = await world.connect(), await world.connect()
    payload = b'{"payload":"' + b"x" * 90_000 + b'"}'
    await under_way.send(post_jobs(world, f"Content-Length: {len(payload)}", body=payload))
    await until(lambda: memory.held_bytes == len(payload))
    await late.send(unfinished(world, 30_000))
    await overloaded(late)
    small = await world.connect()
    await small.send(post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}'))
    await until(lambda: world.core.counts()["jobs"] == 2)
    world.log.release()
    assert [(await wire.reply()).status for wire in (under_way, small)] == [201, 201]
    assert memory.held_bytes == 0


async def test_requests_after_a_running_one_are_dropped(world: World) -> None:
    """The one under way is answered, and the refusal follows."""
    memory = world.app.requests
    memory.bytes_max = 2 * PIPELINED_MAX * PIPELINED_BYTES
    world.log.hold()
    flood = await world.connect()
    await flood.send(post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}') + HEALTH * 2 * PIPELINED_MAX)
    await until(lambda: memory.held_bytes > PIPELINED_MAX * PIPELINED_BYTES)
    other = await world.connect()
    await other.send(unfinished(world, memory.bytes_max - 100_000))
    await until(lambda: memory.held_bytes == memory.bytes_max - 100_000)
    world.log.release()
    assert (await flood.reply()).status == 201
    await overloaded(flood)
    await other.send(b" ")
    assert (await other.reply()).status == 400


@pytest.mark.parametrize("framing", ["Content-Length: 99", "Transfer-Encoding: chunked"])
async def test_all_memory_is_released(world: World, framing: str) -> None:
    """After answers early and late, refusals, aborts, floods."""
    memory = world.app.requests
    for data in (
        post_jobs(world, framing, body=b"5\r\nhello\r\n"),
        post_jobs(world, framing, body=b"nonsense\r\n"),
        f"POST /jobs HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\nhello\r\n".encode(),
        HEALTH * 200 + post_jobs(world, framing, body=b"5\r\n"),
        post_jobs(world, framing, body=b"5\r\nhello\r\n0\r\n\r\n" + b" " * 79) + HEALTH,
    ):
        wire = await world.connect()
        await wire.send(data)
        await until(lambda: bool(world.server.server_state.connections))
        for _ in range(20):
            await asyncio.sleep(0)
        wire.abort()
        await until(lambda: not world.server.server_state.connections)
        assert (memory.held_bytes, world.app.answers.held_bytes) == (0, 0)


# --- closed connections -----------------------------------------------------------------------------------------------

SENT: dict[str, Callable[[World], bytes]] = {
    "nothing": lambda _: b"",
    "a read": lambda _: HEALTH,
    "a submit": lambda world: post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}'),
    "half a head": lambda _: HEALTH[:10],
    "half a body": lambda world: post_jobs(world, "Content-Length: 15", body=b'{"pay'),
    "a refused request": lambda _: b"nonsense\r\n\r\n",
    "unread answers": lambda world: request_bytes("GET", "/openapi.json", (world.bearer("client"),)) * 200,
    "a long poll": lambda world: request_bytes(
        "POST", "/jobs/lease", (world.bearer("worker"),), b'{"wait_ms":60000,"queues":["empty"]}'
    ),
}


@pytest.mark.parametrize("end", ["abort", "half_close"])
@pytest.mark.parametrize("sent", SENT)
async def test_a_closed_connection_is_freed_at_once(world: World, sent: str, end: str) -> None:
    """The garbage collector may not come for hours: an idle server makes nothing that it counts."""
    await world.hang_up()
    await until(lambda: not world.server.server_state.connections)
    gc.collect()
    gc.disable()
    try:
        wire = await world.connect()
        await wire.send(SENT[sent](world))
        await until(lambda: bool(world.server.server_state.connections))
        for _ in range(200):
            await asyncio.sleep(0)
        gone = [weakref.ref(one) for one in world.server.server_state.connections]
        getattr(wire, end)()
        if end == "half_close":
            await wire.rest()
        await until(lambda: not world.server.server_state.connections)
        wire.abort()
        await until(lambda: not any(one() for one in gone))
    finally:
        gc.enable()


# --- answers ----------------------------------------------------------------------------------------------------------


async def large_job(world: World) -> bytes:
    """A request whose answer has a megabyte."""
    job_id = await world.submit()
    await world.lease()
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"result": "x" * 1_000_000})
    return request_bytes("GET", f"/jobs/{job_id}", (world.bearer("client"),))


async def test_the_oldest_unread_answers_close_their_connection(world: World) -> None:
    ask = await large_job(world)
    memory = world.app.answers
    memory.bytes_max = 1_000_000
    idle = [await world.connect() for _ in range(16)]
    for wire in idle:
        await wire.send(ask * 20)
    state = world.server.server_state
    await until(lambda: len(state.connections) < len(idle))
    assert memory.held_bytes <= memory.bytes_max
    assert (await world.call("client", "GET", "/keys")).status == 200
    with contextlib.suppress(ConnectionError):
        assert len(await idle[0].rest()) < 20_000_000


async def test_the_next_request_does_not_start_while_answers_are_unread(world: World) -> None:
    ask = await large_job(world)
    await world.hang_up()
    await until(lambda: not world.server.server_state.connections)
    wire = await world.connect()
    await wire.send(ask * 20)
    (connection,) = [one for one in world.server.server_state.connections if isinstance(one, Protocol)]
    await until(lambda: connection.flow.write_paused and not world.server.server_state.tasks)
    assert connection.pipeline
    for _ in range(20):
        assert len((await wire.reply()).body) > 1_000_000
    await wire.send(HEALTH)
    assert (await wire.reply()).body == b"OK"


# --- the whole process ------------------------------------------------------------------------------------------------


def resident_bytes(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) << 10


def test_endless_bodies_stay_within_the_memory_limit(tmp_path: Path) -> None:
    """400 connections, each with all but the last byte of 1.1 MB: 440 MB were they all kept."""
    body_bytes = 1_100_000
    with Served(tmp_path / "data") as server, contextlib.ExitStack() as stack:
        before_bytes = resident_bytes(server.process.pid)
        key = server.keys["client"]
        head = f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {body_bytes}\r\n\r\n"
        refused = 0
        for _ in range(400):
            sender = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
            try:
                sender.sendall(head.encode() + b" " * (body_bytes - 1))
            except ConnectionError:
                refused += 1
        server.submit(key)
        grown_bytes = resident_bytes(server.process.pid) - before_bytes
    print(f"grown by {grown_bytes >> 20} MiB")
    assert not refused, "who sends does not feel it: its answer waits for it"
    assert grown_bytes < 3 * HELD_BYTES_MAX
