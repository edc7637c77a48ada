"""HTTP: limits and malformed requests. Over raw sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from fastq.http.connection.limits import (
    CHUNK_EXTENSION_BYTES_MAX,
    DISCARDED_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    URL_BYTES_MAX,
)
from tests.http.wire import Wire, request_bytes
from tests.http.world import World

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


async def refused(wire: Wire, status: int, message: str) -> None:
    """The next answer says so, in JSON, and is the connection's last byte."""
    reply = await wire.reply()
    assert (reply.status, reply.error) == (status, message)
    assert reply.json["code"] == "bad_http"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["connection"] == "close"
    assert reply.headers["x-request-id"]
    assert await wire.closed()


def with_header(line: bytes) -> bytes:
    return b"GET /health HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"


def post_jobs(world: World, *lines: str, body: bytes = b"") -> bytes:
    """POST /jobs by the client key with these header lines as they are."""
    name, value = world.bearer("client")
    head = "\r\n".join(["POST /jobs HTTP/1.1", "Host: x", f"{name}: {value}", *lines])
    return head.encode() + b"\r\n\r\n" + body


# --- limits -----------------------------------------------------------------------------------------------------------


def head_of(size: int) -> bytes:
    frame = with_header(b"X: ")
    return with_header(b"X: " + b"a" * (size - len(frame)))


@pytest.mark.parametrize("pieces", [1, 7, 4000])
async def test_head_size(world: World, pieces: int) -> None:
    wire = await world.connect()
    for data, fine in ((head_of(HEAD_BYTES_MAX), True), (head_of(HEAD_BYTES_MAX + 1), False)):
        step = len(data) // pieces
        for at in range(0, len(data), step):
            await wire.send(data[at : at + step])
            if pieces < 100:
                await asyncio.sleep(0)
        if fine:
            assert (await wire.reply()).status == 200
    await refused(wire, 431, f"the request's head must be at most {HEAD_BYTES_MAX} bytes")


@pytest.mark.parametrize("line", [b"X: " + b"a" * 4_000_000, b"X" * 4_000_000, b"A: b\r\n" * 20_000])
async def test_huge_head(world: World, line: bytes) -> None:
    wire = await world.connect()
    await wire.send(with_header(line))
    assert (await wire.reply()).status == 431
    assert await wire.closed()


async def test_an_endless_head_is_not_collected(world: World) -> None:
    wire = await world.connect()
    await wire.send(b"GET /health HTTP/1.1\r\nX: ")
    await wire.send(b"a" * HEAD_BYTES_MAX)
    await refused(wire, 431, f"the request's head must be at most {HEAD_BYTES_MAX} bytes")


async def test_header_count(world: World) -> None:
    wire = await world.connect()
    lines = [b"H%d: v" % number for number in range(HEADERS_MAX - 1)]
    await wire.send(with_header(b"\r\n".join(lines)))
    assert (await wire.reply()).status == 200
    await wire.send(with_header(b"\r\n".join([*lines, b"One: more"])))
    await refused(wire, 431, f"there must be at most {HEADERS_MAX} headers")


async def test_url_size(world: World) -> None:
    wire = await world.connect()
    path = "/health?" + "x" * (URL_BYTES_MAX - len("/health?"))
    await wire.send(request_bytes("GET", path))
    assert (await wire.reply()).status == 200
    await wire.send(request_bytes("GET", path + "x"))
    await refused(wire, 414, f"the URL must be at most {URL_BYTES_MAX} bytes")


async def test_an_endless_url(world: World) -> None:
    wire = await world.connect()
    await wire.send(b"GET /" + b"x" * URL_BYTES_MAX)
    await refused(wire, 414, f"the URL must be at most {URL_BYTES_MAX} bytes")


HOST = "there must be exactly one valid Host header"
CODING = "Transfer-Encoding must be chunked, alone, and without Content-Length"
MALFORMED = "the request is not valid HTTP"
VERSION = "the HTTP version must be 1.1 or 1.0"

# (request, status, message)
BAD_REQUESTS = [
    (b"GET /health HTTP/1.1\r\n\r\n", 400, HOST),
    (with_header(b"Host: x"), 400, HOST),
    (with_header(b"host: y"), 400, HOST),
    (b"GET /health HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400, HOST),
    (b"GET /health HTTP/1.1\r\nHost: x, y\r\n\r\n", 400, HOST),
    (b"GET /health HTTP/1.1\r\nHost: x y\r\n\r\n", 400, HOST),
    (b"GET /health HTTP/1.1\r\nHost: x/\r\n\r\n", 400, HOST),
    (b"GET /health HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", 400, HOST),
    (b"hello\r\n\r\n", 400, MALFORMED),
    (b"\x16\x03\x01\x02\x00\x01\x00", 400, MALFORMED),  # TLS
    (b"GET\r\n\r\n", 400, MALFORMED),
    (b"GET /health\r\n\r\n", 505, VERSION),
    (b"get /health HTTP/1.1\r\nHost: x\r\n\r\n", 400, MALFORMED),
    (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", 400, MALFORMED),
    (b"GET /health HTTP/3.7\r\nHost: x\r\n\r\n", 400, MALFORMED),
    (b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 505, VERSION),
    (b"GET /health HTTP/0.9\r\nHost: x\r\n\r\n", 505, VERSION),
    (b"GET /health HTTP/1.1\nHost: x\n\n", 400, MALFORMED),  # bare line feeds
    (b"GET /health HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400, MALFORMED),  # a bare carriage return
    (with_header(b"X : y"), 400, MALFORMED),  # a space before the colon
    (with_header(b"X\x00: y"), 400, MALFORMED),
    (with_header(b"X: y\x00"), 400, MALFORMED),
    (with_header(b"X: y\x01"), 400, MALFORMED),
    (with_header(b"X"), 400, MALFORMED),
    (with_header(b": y"), 400, MALFORMED),
    (b"GET /health HTTP/1.1\r\n Host: x\r\n\r\n", 400, MALFORMED),
    (b"GET /caf\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", 400, MALFORMED),
    (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, MALFORMED),
    (with_header(b"Content-Length: -1"), 400, MALFORMED),
    (with_header(b"Content-Length: +1"), 400, MALFORMED),
    (with_header(b"Content-Length: 1x"), 400, MALFORMED),
    (with_header(b"Content-Length: 0x10"), 400, MALFORMED),
    (with_header(b"Content-Length: 1, 1"), 400, MALFORMED),
    (with_header(b"Content-Length: 1\r\nContent-Length: 1"), 400, MALFORMED),
    (with_header(b"Content-Length: 1\r\nContent-Length: 2"), 400, MALFORMED),
    (with_header(b"Content-Length: 99999999999999999999999"), 400, MALFORMED),
    (with_header(b"Transfer-Encoding: chunked\r\nContent-Length: 5"), 400, MALFORMED),
    (with_header(b"Content-Length: 5\r\nTransfer-Encoding: chunked"), 400, MALFORMED),
    (with_header(b"Transfer-Encoding: gzip, chunked"), 400, CODING),
    (with_header(b"Transfer-Encoding: chunked, gzip"), 400, MALFORMED),
    (with_header(b"Transfer-Encoding: identity"), 400, CODING),
    (with_header(b"Transfer-Encoding: xchunked"), 400, CODING),
    (with_header(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400, MALFORMED),
    (b"POST /jobs HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, CODING),
    (with_header(b"Idempotency-Key: a\r\nidempotency-key: b"), 400, "the header Idempotency-Key must be given once"),
    (with_header(b"Idempotency-Key: a\r\nIdempotency-Key: a"), 400, "the header Idempotency-Key must be given once"),
    (
        with_header(b"Authorization: Bearer a\r\nAUTHORIZATION: Bearer b"),
        400,
        "the header Authorization must be given once",
    ),
    (b"\r\n" * HEAD_BYTES_MAX, 431, f"the request's head must be at most {HEAD_BYTES_MAX} bytes"),
]


@pytest.mark.parametrize(("data", "status", "message"), BAD_REQUESTS, ids=lambda value: repr(value)[:50])
async def test_bad_request(world: World, data: bytes, status: int, message: str) -> None:
    wire = await world.connect()
    await wire.send(HEALTH + data + HEALTH)
    assert (await wire.reply()).body == b"OK", "what came before is answered"
    await refused(wire, status, message)


# --- requests that are unusual and fine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhOST: [::1]:8080\r\n\r\n",
        b"GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health?a=b#c HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        with_header(b"Transfer-Encoding: Chunked") + b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
async def test_unusual_request(world: World, data: bytes) -> None:
    wire = await world.connect()
    await wire.send(data + HEALTH)
    assert (await wire.reply()).body == (await wire.reply()).body == b"OK"


async def test_http_1_0_is_answered_and_closed(world: World) -> None:
    wire = await world.connect()
    await wire.send(b"GET /health HTTP/1.0\r\n\r\n")
    reply = await wire.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await wire.closed()


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
@pytest.mark.parametrize("framing", ["Content-Length: 15", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("cut", [0, 30, -20, -3])
async def test_an_upgrade_is_ignored(world: World, upgrade: str, framing: str, cut: int) -> None:
    """None is spoken here. The request is served, and so is the next one."""
    body = b'{"payload":"p"}'
    if "chunked" in framing:
        body = b"f\r\n" + body + b"\r\n0\r\n\r\n"
    data = post_jobs(world, "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", framing, body=body)
    wire = await world.connect()
    await wire.send(HEALTH + data[:cut])
    assert (await wire.reply()).status == 200
    await wire.send(data[cut:] + with_header(f"Connection: Upgrade\r\nUpgrade: {upgrade}".encode()) + HEALTH)
    replies = [await wire.reply() for _ in range(3)]
    assert [reply.status for reply in replies] == [201, 200, 200]
    assert not any("upgrade" in reply.headers for reply in replies)
    assert world.core.counts()["jobs"] == 1


async def test_an_upgrade_does_not_keep_a_connection_open(world: World) -> None:
    wire = await world.connect()
    await wire.send(with_header(b"Connection: upgrade, close\r\nUpgrade: h2c") + HEALTH)
    assert (await wire.reply()).headers["connection"] == "close"
    assert await wire.closed()


async def test_the_headers_of_an_upgrade_are_counted_once(world: World) -> None:
    wire = await world.connect()
    lines = [b"H%d: v" % number for number in range(HEADERS_MAX - 3)]
    await wire.send(with_header(b"\r\n".join([b"Connection: upgrade", b"Upgrade: h2c", *lines])))
    assert (await wire.reply()).status == 200
    await wire.send(with_header(b"\r\n".join([b"Connection: upgrade", b"Upgrade: h2c", *lines, b"One: more"])))
    await refused(wire, 431, f"there must be at most {HEADERS_MAX} headers")


async def test_every_split_of_a_request(world: World) -> None:
    """A request and the next one, cut once, anywhere."""
    wire = await world.connect()
    body = b'{"payload":"\r\n\r\n"}'.replace(b"\r\n\r\n", b"\\r\\n\\r\\n")
    data = post_jobs(world, f"Content-Length: {len(body)}", body=body) + HEALTH
    for at in range(1, len(data)):
        await wire.send(data[:at])
        await asyncio.sleep(0)
        await wire.send(data[at:])
        assert (await wire.reply()).status == 201
        assert (await wire.reply()).body == b"OK"


# --- chunked bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1], [255, 256, 257], [100_000, 1], [7] * 500])
async def test_chunked_body(world: World, sizes: list[int]) -> None:
    payload = "x" * (sum(sizes) - len('{"payload":""}')) if sum(sizes) > 20 else "x"
    body = json.dumps({"payload": payload}, separators=(",", ":")).encode()
    chunks, at = [], 0
    for size in [*sizes, len(body)]:
        if part := body[at : at + size]:
            chunks.append(b"%x\r\n" % len(part) + part + b"\r\n")
        at += size
    wire = await world.connect()
    await wire.send(post_jobs(world, "Transfer-Encoding: chunked", body=b"".join(chunks) + b"0\r\n\r\n") + HEALTH)
    assert (await wire.reply()).status == 201
    assert (await wire.reply()).body == b"OK"
    assert (await world.lease())["payload"] == payload


@pytest.mark.parametrize("ahead", [b"", b"5\r\nhello\r\n", b"300\r\n" + b"x" * 0x300 + b"\r\n"])
async def test_chunk_extension(world: World, ahead: bytes) -> None:
    """What is long is refused whether it ends or not; what is short is taken wherever it lies."""
    limit = CHUNK_EXTENSION_BYTES_MAX
    for size in (limit, 3 * limit, 4_000_000):
        wire = await world.connect()
        extension = b";" + b"e" * (size - 1)
        body = ahead + b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"
        await wire.send(post_jobs(world, "Transfer-Encoding: chunked", body=body))
        if size <= limit:
            assert (await wire.reply()).error.startswith("invalid JSON")
        else:
            await refused(wire, 400, f"a chunk extension or trailer must be at most {limit} bytes")


async def test_chunk_extension_after_a_head_whose_end_is_split(world: World) -> None:
    body = b"5;" + b"e" * (3 * CHUNK_EXTENSION_BYTES_MAX) + b"\r\nhello\r\n0\r\n\r\n"
    data = post_jobs(world, "Transfer-Encoding: chunked", body=body)
    head_end = data.index(b"\r\n\r\n")
    for at in (1, 2, 3):
        wire = await world.connect()
        await wire.send(data[: head_end + at])
        await world.until_parsed(head_end + at)
        await wire.send(data[head_end + at :])
        await refused(wire, 400, f"a chunk extension or trailer must be at most {CHUNK_EXTENSION_BYTES_MAX} bytes")


async def test_trailers_are_ignored(world: World) -> None:
    wire = await world.connect()
    body = b'f\r\n{"payload":"p"}\r\n0\r\nContent-Encoding: gzip\r\n\r\n'
    await wire.send(post_jobs(world, "Transfer-Encoding: chunked", body=body))
    assert (await wire.reply()).status == 201


async def test_trailers_are_limited(world: World) -> None:
    wire = await world.connect()
    trailers = b"".join(b"T%d: v\r\n" % number for number in range(HEADERS_MAX))
    await wire.send(post_jobs(world, "Transfer-Encoding: chunked", body=b"0\r\n" + trailers))
    await refused(wire, 431, f"there must be at most {HEADERS_MAX} headers")


@pytest.mark.parametrize(
    "body", [b"x\r\n", b"-1\r\n", b"5\r\nhelloX", b"5 \r\nhello\r\n", b"fffffffffffffffff\r\n", b"5\nhello"]
)
async def test_bad_chunks(world: World, body: bytes) -> None:
    wire = await world.connect()
    await wire.send(post_jobs(world, "Transfer-Encoding: chunked", body=body))
    assert (await wire.reply()).error == MALFORMED
    await world.until_at_rest()
    assert world.server.server_state.connections, "the application is not left waiting until the connection goes"
    assert await wire.closed()
    assert world.core.counts()["jobs"] == 0


async def test_a_chunked_body_above_the_limit_is_refused(world: World) -> None:
    wire = await world.connect()
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    await wire.send(post_jobs(world, "Transfer-Encoding: chunked", body=chunk * 20))
    assert (await wire.reply()).status == 413
    await wire.send(b"0\r\n\r\n" + HEALTH)
    assert (await wire.reply()).body == b"OK", "the rest of the body is passed over"


async def test_an_endless_body_closes_the_connection(world: World) -> None:
    wire = await world.connect()
    await wire.send(post_jobs(world, f"Content-Length: {10**12}", body=b"{"))
    assert (await wire.reply()).status == 413
    assert await wire.pour(b" " * (1 << 20), times=10 * DISCARDED_BYTES_MAX >> 20)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("who", ["client", None])
async def test_an_early_answer_reaches_a_client_that_still_sends(world: World, version: str, who: str | None) -> None:
    """Refused before its body has come, on a connection that ends with the answer: it is not reset under it."""
    wire = await world.connect()
    lines = [f"POST /jobs HTTP/{version}", "Host: x", "Connection: close", "Content-Length: 6000000"]
    if who is not None:
        lines.append(": ".join(world.bearer(who)))
    await wire.send("\r\n".join(lines).encode() + b"\r\n\r\n" + b" " * 100_000)
    await world.until_at_rest()
    assert not await wire.pour(b" " * 100_000, times=40)
    reply = await wire.reply()
    assert (reply.status, reply.headers["connection"]) == (413 if who else 401, "close")
    assert await wire.closed()
