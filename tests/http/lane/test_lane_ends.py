"""The lane with clients that do not read or disconnect, and a server that stops."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from fastq._core import ALL
from fastq.http.connection import limits
from fastq.http.lane._lane import Lane
from fastq.log.memory import MemoryLog
from fastq.services.keys import Grants
from tests.http.wire import PATIENCE_S, Wire, request_bytes
from tests.http.world import World, running

LARGE = "x" * 60_000
SMALL_BUFFER_BYTES = 4096  # of the sockets, so that few answers fill them
HEALTH = request_bytes("GET", "/health")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as one:
        await one.call("worker", "POST", "/jobs/lease", {})  # keys and heads are known from here on
        await one.call("worker", "POST", "/jobs/lease", {})
        await one.submit()
        await one.lease({})
        yield one


def lease_of(world: World) -> bytes:
    return request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), b"{}")


def submit_of(world: World) -> bytes:
    return request_bytes("POST", "/jobs", (world.bearer("client"),), b'{"payload":1}')


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


def taken(world: World) -> int:
    """How many requests went the short way."""
    return sum(one._answers.taken for one in world.server.server_state.connections)


def in_state(world: World, state: str) -> int:
    count: int = world.core.counts()[state]
    return count


async def newest(world: World, before: set[object]) -> Lane:
    """The server's end of a connection that was made since."""
    connections = world.server.server_state.connections
    await until(lambda: len(connections) > len(before))
    (lane,) = set(connections) - before
    assert isinstance(lane, Lane)
    return lane


async def slow_reader(world: World) -> tuple[Wire, Lane]:
    """A client whose answers soon fill what lies between it and the server."""
    before = set(world.server.server_state.connections)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", world.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=SMALL_BUFFER_BYTES)
    lane = await newest(world, before)
    with socket.socket(fileno=os.dup(lane.transport.get_extra_info("socket").fileno())) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    wire = Wire(reader, writer)
    world._wires.append(wire)
    return wire, lane


async def with_unread_leases(world: World, then: bytes) -> tuple[Wire, Lane]:
    """A connection that does not read 6 leases; the answer of a 7th, sent with `then`, waits for it to do so."""
    for _ in range(7):
        await world.submit(LARGE)
    wire, lane = await slow_reader(world)
    running_before = in_state(world, "RUNNING")
    world.log.hold()
    await wire.send(lease_of(world) * 6)
    await until(lambda: in_state(world, "RUNNING") == running_before + 6)
    await asyncio.sleep(0)
    await wire.send(lease_of(world) + then)
    await until(lambda: in_state(world, "RUNNING") == running_before + 7)
    world.log.release()
    await until(lambda: lane.flow.write_paused and world.log.tail.durable_seq == world.log.tail.appended_seq)
    assert lane._answers.waiting == 1
    return wire, lane


async def test_no_answer_after_unread_ones_is_lost(world: World) -> None:
    cold = [HEALTH, request_bytes("GET", "/jobs?limit=1", (world.bearer("client"),)), HEALTH]
    wire, _ = await with_unread_leases(world, b"".join(cold))
    for _ in range(7):
        assert (await wire.reply()).json["payload"] == LARGE
    bodies = [(await wire.reply()).body for _ in cold]
    assert (bodies[0], bodies[2]) == (b"OK", b"OK")
    assert bodies[1].startswith(b'{"jobs":')


async def test_no_short_way_request_starts_while_answers_are_unread(world: World) -> None:
    wire, lane = await with_unread_leases(world, b"")
    jobs = world.core.counts()["jobs"]
    await wire.send(submit_of(world) * 3)
    await until(lambda: lane._unparsed or world.core.counts()["jobs"] > jobs)
    assert world.core.counts()["jobs"] == jobs
    assert [(await wire.reply()).status for _ in range(10)] == [200] * 7 + [201] * 3


async def test_unread_answers_are_counted(world: World) -> None:
    _, lane = await with_unread_leases(world, b"")
    await until(lambda: world.app.answers.held_bytes)
    in_transport = lane.transport.get_write_buffer_size()
    assert world.app.answers.held_bytes >= in_transport + len(LARGE)


# --- who is gone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "closing"])
async def test_a_lease_is_taken_back_if_the_client_is_gone_when_it_is_durable(world: World, end: str) -> None:
    """The server learns it from the send itself, before the loop says so."""
    job_id = await world.submit()
    before = set(world.server.server_state.connections)
    client = socket.create_connection(("127.0.0.1", world.port))
    lane = await newest(world, before)
    world.log.hold()
    client.sendall(lease_of(world))
    await until(lambda: world.core.job(world.engine.now_us(), ALL, job_id).state == "RUNNING")
    await until(lambda: not world.log.idle)
    if end == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    else:
        lane.transport.close()  # as the loop does when it reads the end of a stream
    world.log.release()
    await until(lambda: world.core.job(world.engine.now_us(), ALL, job_id).state == "READY")
    client.close()
    assert (await world.lease({}))["attempt"] == 1


async def test_the_first_request_ends_the_timer_of_a_silent_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_S_MAX", 0.1)
    wire = await world.connect()
    await wire.send(submit_of(world))
    assert (await wire.reply()).status == 201
    await asyncio.sleep(0.3)
    await wire.send(HEALTH)
    assert (await wire.reply()).status == 200


# --- payloads that must be read from the disk -------------------------------------------------------------------------


@pytest.fixture
async def cold() -> AsyncIterator[World]:
    """A server that has nothing in memory of what is durable."""
    async with running(log=MemoryLog(cache_bytes=0)) as one:
        for _ in range(2):
            await one.call("worker", "POST", "/jobs/lease", {})
            await one.submit(queue="another")
        yield one


async def test_a_payload_in_the_page_cache_takes_the_short_way(cold: World) -> None:
    job_ids = [await cold.submit({"n": n}, tags=["a"]) for n in range(3)]
    before = taken(cold)
    lease = await cold.lease({})
    assert taken(cold) == before + 1
    assert (lease["job_id"], lease["payload"], lease["tags"]) == (job_ids[0], {"n": 0}, ["a"])


@pytest.mark.parametrize("body", [{}, {"max": 5}])
async def test_a_payload_on_the_disk_is_read_once(cold: World, body: dict[str, int]) -> None:
    job_id = await cold.submit({"n": 1}, group="g")
    cold.log.reads_wait = True
    wire = await cold.connect()
    await wire.send(
        request_bytes("POST", "/jobs/lease", (cold.bearer("worker"),), orjson.dumps(body)) + submit_of(cold)
    )
    answer = (await wire.reply()).json
    lease = answer["jobs"][0] if body else answer
    assert (lease["job_id"], lease["payload"], lease["attempt"]) == (job_id, {"n": 1}, 1)
    assert (await wire.reply()).status == 201
    assert in_state(cold, "RUNNING") == 1
    shown = await cold.show(job_id)
    assert shown["attempts"] == 1


async def test_a_lease_is_taken_back_if_its_connection_closes_before_its_payload_is_read(cold: World) -> None:
    job_id = await cold.submit()
    cold.log.reads_wait = True
    before = set(cold.server.server_state.connections)
    wire = await cold.connect()
    lane = await newest(cold, before)
    cold.log.hold()
    await wire.send(submit_of(cold) + lease_of(cold))  # the lease's answer waits for that of the submit
    await until(lambda: lane.pipeline)
    assert in_state(cold, "RUNNING") == 1
    wire.abort()
    await until(lambda: lane not in cold.server.server_state.connections)
    cold.log.release()
    await until(lambda: cold.core.job(cold.engine.now_us(), ALL, job_id).state == "READY")
    cold.log.reads_wait = False
    assert (await cold.lease({}))["attempt"] == 1


async def test_a_lease_is_taken_back_if_its_key_expires_before_its_payload_is_read(cold: World) -> None:
    await cold.make_key("brief", "worker", grants=Grants(expires_us=cold.engine.now_us() + 10_000_000))
    job_id = await cold.submit()
    before = set(cold.server.server_state.connections)
    wire = await cold.connect()
    lane = await newest(cold, before)
    for _ in range(2):
        await wire.send(request_bytes("POST", "/jobs/lease", (cold.bearer("brief"),), b'{"queues":["none"]}'))
        assert (await wire.reply()).status == 404
    cold.log.reads_wait = True
    cold.log.hold()
    await wire.send(submit_of(cold) + request_bytes("POST", "/jobs/lease", (cold.bearer("brief"),), b"{}"))
    await until(lambda: lane.pipeline)
    assert in_state(cold, "RUNNING") == 1
    cold.hands.ahead_us += 11_000_000
    cold.log.release()
    assert (await wire.reply()).status == 201
    assert (await wire.reply()).status == 401
    await until(lambda: cold.core.job(cold.engine.now_us(), ALL, job_id).state == "READY")


# --- a stop -----------------------------------------------------------------------------------------------------------


def shut_down(world: World) -> None:
    for connection in list(world.server.server_state.connections):
        connection.shutdown()


async def test_a_stop_answers_a_request_that_waits_for_the_short_way(world: World) -> None:
    before = set(world.server.server_state.connections)
    wire = await world.connect()
    lane = await newest(world, before)
    world.log.hold()
    await wire.send(lease_of(world) + submit_of(world) + HEALTH)
    await until(lambda: lane.pipeline)
    shut_down(world)
    world.log.release()
    assert [(await wire.reply()).status for _ in range(3)] == [404, 201, 200]
    assert await wire.closed()


async def test_a_stop_answers_changes_that_were_made(world: World) -> None:
    jobs = world.core.counts()["jobs"]
    before = set(world.server.server_state.connections)
    wire = await world.connect()
    lane = await newest(world, before)
    world.log.hold()
    await wire.send(submit_of(world) * 500)
    await until(lambda: lane._unparsed)
    shut_down(world)
    world.log.release()
    answered = (await wire.rest()).count(b"HTTP/1.1 201 ")
    assert answered == world.core.counts()["jobs"] - jobs > 0


# --- what is refused behind what was answered -------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"1;" + b"x" * 900 + b"\r\na\r\n"])
async def test_a_bad_chunk_after_an_answer_of_the_short_way_is_refused(world: World, chunk: bytes) -> None:
    name, value = world.bearer("client")
    head = f"POST /jobs HTTP/1.1\r\nHost: test\r\n{name}: {value}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    await world.submit(1)
    wire = await world.connect()
    await wire.send(submit_of(world) + head + chunk)
    assert (await wire.reply()).status == 201
    assert (await wire.reply()).status == 400
    assert await wire.closed()


async def test_many_pipelined_requests_all_take_the_short_way(world: World) -> None:
    """More of them than may wait for their answers at once."""
    wire = await world.connect()
    await wire.send(submit_of(world))
    await wire.reply()
    before = taken(world)
    await wire.send(submit_of(world) * 500)
    assert [(await wire.reply()).status for _ in range(500)] == [201] * 500
    assert taken(world) == before + 500
    assert world.app.requests.held_bytes == 0
