"""A request that is bad or never ends, at every place of a pipeline: it is answered, and the connection is closed.

What comes before it is answered as if it were alone. A request that stops arriving meets a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fastq.http.connection import limits
from fastq.http.connection.limits import CHUNK_EXTENSION_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX
from tests.http.wire import Wire, request_bytes
from tests.http.world import World

HEAD_S, BODY_S, LINGER_S = 0.4, 0.5, 0.05
POLL_MS = 100
SUBMIT = b'{"payload":1}'
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n"


def submit(world: World) -> bytes:
    return request_bytes("POST", "/jobs", (world.bearer("client"),), SUBMIT)


def poll(world: World) -> bytes:
    body = b'{"wait_ms":%d,"queues":["empty"]}' % POLL_MS
    return request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), body)


def cold(world: World) -> bytes:
    return request_bytes("GET", "/queues", (world.bearer("client"),))


def early(_world: World) -> bytes:
    """Answered before its body has arrived."""
    return request_bytes("POST", "/jobs", (), SUBMIT)


POSITIONS: dict[str, tuple[list[Callable[[World], bytes]], list[int]]] = {
    "alone": ([], []),
    "behind a submit": ([submit], [201]),
    "behind three submits": ([submit] * 3, [201] * 3),
    "behind a read": ([cold], [200]),
    "behind a submit and a read": ([submit, cold], [201, 200]),
    "behind a read and a submit": ([cold, submit], [200, 201]),
    "behind a long poll": ([poll], [404]),
    "behind a submit and a long poll": ([submit, poll], [201, 404]),
    "behind a long poll and a submit": ([poll, submit], [404, 201]),
    "behind a refused one": ([early], [401]),
}


def lines(*given: str) -> Callable[[World], bytes]:
    """The start of a request: the first line, then headers, without the blank line."""

    def start(world: World) -> bytes:
        secret = ": ".join(world.bearer("client"))
        return "\r\n".join([*given[:1], secret, *given[1:], ""]).encode("latin-1")

    return start


def whole(*given: str) -> Callable[[World], bytes]:
    return lambda world: lines(*given)(world) + b"\r\n"


def chunked(body: bytes) -> Callable[[World], bytes]:
    return lambda world: whole("POST /jobs HTTP/1.1", "Host: x", "Transfer-Encoding: chunked")(world) + body


def with_body(length: int, body: bytes) -> Callable[[World], bytes]:
    return lambda world: whole("POST /jobs HTTP/1.1", "Host: x", f"Content-Length: {length}")(world) + body


POST = "POST /jobs HTTP/1.1"
SHAPES: dict[str, tuple[Callable[[World], bytes], int]] = {
    "a bad chunk size": (chunked(b"zz\r\n"), 400),
    "a huge chunk size": (chunked(b"f" * 17 + b"\r\n"), 400),
    "a bad second chunk": (chunked(b'd\r\n{"payload":1}\r\nzz\r\n'), 400),
    "a chunk longer than its size": (chunked(b'5\r\n{"payload":1}\r\n0\r\n\r\n'), 400),
    "a long chunk extension": (chunked(b"5;" + b"e" * 3 * CHUNK_EXTENSION_BYTES_MAX + b"\r\nhello"), 400),
    "a bad trailer": (chunked(b"0\r\nX\r\n\r\n"), 400),
    "trailers without end": (chunked(b"0\r\n" + b"T: v\r\n" * (HEADERS_MAX + 1)), 431),
    "a bad header": (whole(POST, "Host: x", "X : y"), 400),
    "a header with a zero byte": (whole(POST, "Host: x", "X: \x00"), 400),
    "a header without a colon": (whole(POST, "Host: x", "X"), 400),
    "a huge header": (lines(POST, "Host: x", "X: " + "a" * HEAD_BYTES_MAX), 431),
    "too many headers": (whole(POST, "Host: x", *["X: y"] * HEADERS_MAX), 431),
    "a bad length": (whole(POST, "Host: x", "Content-Length: 1x"), 400),
    "a negative length": (whole(POST, "Host: x", "Content-Length: -1"), 400),
    "two lengths": (whole(POST, "Host: x", "Content-Length: 1", "Content-Length: 2"), 400),
    "a length and chunks": (whole(POST, "Host: x", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
    "another coding": (whole(POST, "Host: x", "Transfer-Encoding: gzip"), 400),
    "no host": (whole(POST), 400),
    "two hosts": (whole(POST, "Host: x", "Host: x"), 400),
    "two keys": (whole(POST, "Host: x", "Authorization: Bearer x"), 400),
    "two idempotency keys": (whole(POST, "Host: x", "Idempotency-Key: a", "Idempotency-Key: b"), 400),
    "a bad method": (whole("BREW /jobs HTTP/1.1", "Host: x"), 400),
    "a bad version": (whole("POST /jobs HTTP/2.0", "Host: x"), 505),
    "no version": (whole("POST /jobs", "Host: x"), 505),
    "a long path": (whole(f"GET /{'x' * limits.URL_BYTES_MAX} HTTP/1.1", "Host: x"), 414),
    "bytes that are no HTTP": (lambda _: b"\x16\x03\x01\x02\x00\x01\x00", 400),
    # what never ends
    "one byte": (lambda _: b"P", 408),
    "a method": (lambda _: b"POST ", 408),
    "half a head": (lines(POST, "Host: x"), 408),
    "a head without its last byte": (lambda world: whole(POST, "Host: x")(world)[:-1], 408),
    "a body cut": (with_body(13, SUBMIT[:-1]), 408),
    "no body": (with_body(13, b""), 408),
    "no chunk": (chunked(b""), 408),
    "half a chunk size": (chunked(b"d"), 408),
    "half a chunk": (chunked(b'd\r\n{"payl'), 408),
    "no last chunk": (chunked(b'd\r\n{"payload":1}\r\n'), 408),
    "no end of the trailers": (chunked(b'd\r\n{"payload":1}\r\n0\r\n'), 408),
    "half a trailer": (chunked(b'd\r\n{"payload":1}\r\n0\r\nT: '), 408),
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_S_MAX", HEAD_S)
    monkeypatch.setattr(limits, "BODY_S_MAX", BODY_S)
    monkeypatch.setattr(limits, "LINGER_S", LINGER_S)


async def ends(world: World, position: str, shape: str, cut: bool) -> None:
    ahead, statuses = POSITIONS[position]
    make, status = SHAPES[shape]
    before, bad = b"".join(one(world) for one in ahead), make(world)
    wire = await Wire.connect(world.port)
    at = len(bad) // 2 if cut else len(bad)
    await wire.send(before + bad[:at])
    if cut:
        await asyncio.sleep(0)
        await wire.send(bad[at:])
    what = f"{shape} {position}, {'in two packets' if cut else 'in one packet'}"
    found = [(await wire.reply()).status for _ in [*ahead, bad]]
    assert found == [*statuses, status], what
    assert await wire.closed(), what
    await wire.close()


@pytest.mark.parametrize("position", POSITIONS)
async def test_a_bad_or_unfinished_request_ends_its_connection(world: World, position: str) -> None:
    await world.submit()  # the short way knows the head from here on
    await world.submit()
    jobs = world.core.counts()["jobs"]
    for cut in (False, True):
        await asyncio.gather(*(ends(world, position, shape, cut) for shape in SHAPES))
    submits = sum(one is submit for one in POSITIONS[position][0])
    assert world.core.counts()["jobs"] == jobs + 2 * len(SHAPES) * submits, "no bad request did anything"
    assert not world.server.server_state.tasks


async def test_silence_ends_a_connection(world: World) -> None:
    wire = await world.connect()
    assert await wire.closed()


@pytest.mark.parametrize("position", [name for name, (ahead, _) in POSITIONS.items() if ahead])
async def test_a_connection_without_a_next_request_has_a_timer(world: World, position: str) -> None:
    """So do clients that keep a connection open for nothing."""
    ahead, statuses = POSITIONS[position]
    await world.submit()
    wire = await world.connect()
    await wire.send(b"".join(one(world) for one in ahead))
    assert [(await wire.reply()).status for _ in ahead] == statuses
    await world.until_at_rest()
    await asyncio.sleep(0)
    for one in world.server.server_state.connections:
        assert one.timeout_keep_alive_task is not None or one._idle is not None or one._deadline is not None
