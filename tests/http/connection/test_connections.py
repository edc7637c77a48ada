"""Connections: slow clients, pipelining, clients that disconnect, a server that stops. Over raw sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastq.http.connection import limits
from fastq.http.connection.limits import PIPELINED_MAX
from fastq.http.connection.protocol import Protocol
from tests.http.connection.test_protocol import HEALTH, MALFORMED, post_jobs, refused, with_header
from tests.http.wire import request_bytes
from tests.http.world import World

# --- bodies that do not come whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["Content-Length: 30", "Transfer-Encoding: chunked"])
async def test_an_incomplete_body_changes_nothing(world: World, framing: str) -> None:
    """Though what has come would be a whole JSON text."""
    wire = await world.connect()
    text = b'{"payload":"p"}'
    body = text if "Length" in framing else b"%x\r\n" % len(text) + text + b"\r\n"
    await wire.send(post_jobs(world, framing, body=body))
    await world.until_at_work()
    wire.half_close()
    await wire.rest()
    await world.until_at_rest()
    assert world.core.counts()["jobs"] == 0


# --- time -------------------------------------------------------------------------------------------------------------


async def test_a_connection_without_a_request_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_S_MAX", 0.02)
    wire = await world.connect()
    assert await wire.closed()


CHUNKED_HEALTH = with_header(b"Transfer-Encoding: chunked") + b"0\r\n\r\n"


BEGUN = [b"G", b"GET /health HTTP/1.1\r\nHost: x\r\n", b"\r\n"]
SLOW_HEADS = [(before, begun) for before in (b"", HEALTH, CHUNKED_HEALTH) for begun in BEGUN]
SLOW_HEADS.remove((CHUNKED_HEALTH, b"\r\n"))  # parsed in one piece with the end of the body: the idle time ends it


@pytest.mark.parametrize(("before", "begun"), SLOW_HEADS)
async def test_slow_head(world: World, monkeypatch: pytest.MonkeyPatch, before: bytes, begun: bytes) -> None:
    monkeypatch.setattr(limits, "HEAD_S_MAX", 0.05)
    wire = await world.connect()
    await wire.send(before + begun)
    if before:
        assert (await wire.reply()).status == 200
    await refused(wire, 408, "the request's head must arrive within 0 s")


async def test_a_slow_head_does_not_extend_its_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_S_MAX", 0.1)
    wire = await world.connect()
    await wire.send(b"GET /health HTTP/1.1\r\n")
    dripping = asyncio.create_task(wire.pour(b"X: y\r\n", times=2_000, pause_s=0.01))
    assert (await wire.reply()).status == 408
    dripping.cancel()


async def test_slow_body(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S_MAX", 0.05)
    wire = await world.connect()
    await wire.send(post_jobs(world, "Content-Length: 20", body=b'{"payload":'))
    await refused(wire, 408, "the request's body must arrive within 0 s")
    assert world.core.counts()["jobs"] == 0


async def test_a_body_that_arrives_after_the_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S_MAX", 0.05)
    wire = await world.connect()
    await wire.send(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
    assert (await wire.reply()).status == 401
    assert await wire.closed()


@pytest.mark.parametrize("cut", [30, -5], ids=["in its head", "in its body"])
async def test_the_idle_timer_does_not_run_while_a_request_arrives(world: World, cut: int) -> None:
    """Neither while its head comes, nor while its body does though it is answered already."""
    world.server.config.timeout_keep_alive = 0.05  # type: ignore[assignment]
    wire = await world.connect()
    data = b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n" + b"0123456789"
    await wire.send(HEALTH + data[:cut])
    assert (await wire.reply()).status == 200
    if cut < 0:
        assert (await wire.reply()).status == 401
    await asyncio.sleep(0.15)
    await wire.send(data[cut:] + HEALTH)
    if cut > 0:
        assert (await wire.reply()).status == 401
    assert (await wire.reply()).status == 200
    assert await wire.closed()


async def test_the_deadline_waits_while_the_server_does_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head half in, and the rest not read because answers are due before."""
    monkeypatch.setattr(limits, "HEAD_S_MAX", 0.02)
    world.log.hold()
    wire = await world.connect()
    await wire.send(post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}') + HEALTH + HEALTH[:10])
    await world.until_at_work()
    await wire.send(HEALTH[10:])
    await asyncio.sleep(0.1)
    world.log.release()
    assert [(await wire.reply()).status for _ in range(3)] == [201, 200, 200]


async def test_an_idle_connection_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for a head runs from its first byte, not from the last answer."""
    monkeypatch.setattr(limits, "HEAD_S_MAX", 0.02)
    wire = await world.connect()
    await wire.send(HEALTH)
    assert (await wire.reply()).status == 200
    await asyncio.sleep(0.1)
    await wire.send(HEALTH)
    assert (await wire.reply()).status == 200


async def test_a_client_that_does_not_read_is_disconnected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNREAD_S_MAX", 0.05)
    job_id = await world.submit()
    await world.lease()
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"result": "x" * 1_000_000})
    wire = await world.connect()
    name, value = world.bearer("client")
    await wire.send(request_bytes("GET", f"/jobs/{job_id}", ((name, value),)) * 50)
    await world.until_at_work()
    async with asyncio.timeout(10):
        while len(world.server.server_state.connections) > 1:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
    await world.until_at_rest()


class Stuck:
    """A transport whose client never takes the rest, so that a close never ends."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._transport.pause_reading()  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["timeout_keep_alive_handler", "end", "close"])
async def test_a_close_that_waits_for_a_reader_ends(world: World, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """However few bytes are unread."""
    await world.hang_up()
    wire = await world.connect()
    await wire.send(HEALTH)
    await wire.reply()
    (connection,) = world.server.server_state.connections
    connection.transport = Stuck(connection.transport)
    monkeypatch.setattr(limits, "UNREAD_S_MAX", 0.02)
    getattr(connection, how)()
    async with asyncio.timeout(10):
        while world.server.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)


async def test_few_unread_bytes_are_counted(world: World) -> None:
    """Ten thousand connections that read nothing would else hold what a write buffer takes, each."""
    await world.hang_up()
    await world.connect()
    (connection,) = world.server.server_state.connections
    assert connection.transport.get_write_buffer_limits()[1] == limits.UNREAD_BYTES_FREE == 4096


READ_BYTES = 256 << 10  # what the loop reads at once


# --- order ------------------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    """Far more than are read ahead, of several kinds, some refused."""
    wire = await world.connect()
    many = 5 * PIPELINED_MAX
    kinds = [
        (post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}'), 201),
        (HEALTH, 200),
        (b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        (post_jobs(world, "Content-Length: 2", body=b"{}"), 400),
    ]
    sent = b"".join(
        kinds[number % 4][0].replace(b"\r\n", b"\r\nX-Request-Id: n%d\r\n" % number, 1) for number in range(many)
    )

    async def send() -> None:
        await wire.send(sent)

    sending = asyncio.create_task(send())
    for number in range(many):
        reply = await wire.reply()
        assert (reply.status, reply.headers["x-request-id"]) == (kinds[number % 4][1], f"n{number}")
    await sending
    assert world.core.counts()["jobs"] == many // 4


@pytest.mark.slow
@pytest.mark.parametrize(("bodies", "status"), [(False, 200), (True, 400)])
async def test_pipelined_requests_above_the_limit_wait(world: World, bodies: bool, status: int) -> None:
    """While one answer is held back, no more than PIPELINED_MAX requests behind it are taken in.

    A request that asks for its body has reading resumed; not so while there is something read that waits.
    """
    world.log.hold()
    wire = await world.connect()
    many = 5_000
    one = post_jobs(world, "X: " + "x" * 300, "Content-Length: 2", body=b"{}") if bodies else HEALTH
    flood = post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}') + one * many
    sending = asyncio.create_task(wire.send(flood))
    await world.until_at_work()
    (connection,) = world.server.server_state.connections
    assert isinstance(connection, Protocol)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(connection.pipeline) == PIPELINED_MAX
    world.log.release()
    assert (await wire.reply()).status == 201
    for _ in range(many):
        assert (await wire.reply()).status == status
        assert connection.flow.read_paused or not connection._unparsed
        assert len(connection._unparsed) <= READ_BYTES
    await sending


@pytest.mark.parametrize(
    "bad", [b"nonsense\r\n\r\n", b"POST /jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"]
)
async def test_a_refusal_waits_for_the_answers_before_it(world: World, bad: bytes) -> None:
    world.log.hold()
    wire = await world.connect()
    await wire.send(post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}') + HEALTH + bad + HEALTH)
    await world.until_at_work()
    for _ in range(50):
        await asyncio.sleep(0)
    world.log.release()
    assert (await wire.reply()).status == 201
    assert (await wire.reply()).body == b"OK"
    await refused(wire, 400, MALFORMED)


async def test_shutdown_answers_running_requests(world: World) -> None:
    world.log.hold()
    wire = await world.connect()
    idle = await world.connect()
    await idle.send(HEALTH)
    assert (await idle.reply()).status == 200
    await wire.send(post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}'))
    await world.until_at_work()
    for connection in list(world.server.server_state.connections):
        connection.shutdown()
    assert await idle.closed()
    world.log.release()
    reply = await wire.reply()
    assert (reply.status, reply.headers["connection"]) == (201, "close")
    assert await wire.closed()


async def test_a_client_that_disconnects_leaves_no_work(world: World) -> None:
    world.log.hold()
    for _ in range(20):
        wire = await world.connect()
        await wire.send(post_jobs(world, "Content-Length: 15", body=b'{"payload":"p"}') * 3 + b"GET /he")
        await world.until_at_work()
        wire.abort()
    world.log.release()
    assert (await world.call(None, "GET", "/health")).status == 200
    await world.until_at_rest()
    assert world.core.counts()["jobs"] >= 1
