"""Measure what counts cost: queues, keys, schedules, connections and unread answers that a server has.

`./dev bench counts [--only queues,keys] [--quick]`. Two servers run: one has many of a thing, the other has none.
Submits alternate between them in the same run. The ratio of their times is what the many cost a submit. Memory is the
resident memory that the server gains with them, and what it still has of that when they are gone. All of it takes some
minutes.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from bench.load import Client, Server

BATCH = 10_000
CLIENTS = 32  # that make keys and schedules at the same time
ROUNDS, SUBMITS = 20, 25  # of each server
SETTLE_S = 5.0  # after they came and after they went, for the disk and for what the server does then
TAG = "many"

SUBMIT = msgspec.json.encode({"payload": "x" * 100})


@dataclass(frozen=True)
class Cost:
    """Times are those of one submit, in seconds. `gained` and `kept` are bytes."""

    bare_s: float
    laden_s: float
    slowest_s: float  # of the server that has them
    gained_bytes: int
    kept_bytes: int

    @property
    def ratio(self) -> float:
        return self.laden_s / self.bare_s


class Caller(Client):
    """A client that sends any method."""

    async def send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Returns the answer's status and content."""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin1").lower()
        length = answer.partition("content-length:")[2].partition("\r\n")[0]
        return int(answer.split(" ", 2)[1]), await self._reader.readexactly(int(length or 0))

    async def must(self, method: str, path: str, status: int, body: bytes = b"") -> None:
        """Send a request that is answered with this status."""
        answered, content = await self.send(method, path, body)
        assert answered == status, content


Load = Callable[[Server, int], Any]
"""Gives a server so many of a thing; on exit they are gone."""


async def post(client: Client, path: str, body: bytes, expected: int) -> bytes:
    """Send a request again until it is answered as expected. A server may say that it has too much to do."""
    while True:
        status, content = await client.post(path, body)
        if status == expected:
            return content
        if status not in (429, 503):
            raise SystemExit(f"{path} was answered {status}: {content.decode()}")
        await asyncio.sleep(0.05)


async def shared(server: Server, kind: str, count: int, one: Callable[[Caller, int], Awaitable[None]]) -> None:
    """Do `one` for each number below `count`, by several clients."""
    numbers = iter(range(count))

    async def work() -> None:
        async with Caller(server.port, server.keys[kind]) as client:
            for number in numbers:
                await one(client, number)

    await asyncio.gather(*(work() for _ in range(CLIENTS)))


# --- what a server may have many of -----------------------------------------------------------------------------------


@asynccontextmanager
async def queues(server: Server, count: int) -> AsyncIterator[None]:
    """Each has one finished job."""
    async with Client(server.port, server.keys["client"]) as client:
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            jobs = [{"payload": 1, "queue": f"queue-{number}", "tags": [TAG]} for number in numbers]
            await post(client, "/jobs/batch", msgspec.json.encode({"jobs": jobs}), 201)
        every = msgspec.json.encode({"filter": {"tag": TAG}})
        await post(client, "/jobs/cancel", every, 200)
        yield
        await post(client, "/jobs/delete", every, 200)


@asynccontextmanager
async def keys(server: Server, count: int) -> AsyncIterator[None]:
    """Keys of one owner. They are revoked at the end; the server keeps the last thousand."""
    ids: list[str] = []

    async def make(client: Caller, number: int) -> None:
        body = msgspec.json.encode({"name": f"key-{number}", "owner_id": "many", "type": "client"})
        ids.append(msgspec.json.decode(await post(client, "/admin/keys", body, 201))["key_id"])

    async def revoke(client: Caller, number: int) -> None:
        await client.must("DELETE", f"/keys/{ids[number]}", 200)

    await shared(server, "admin", count, make)
    yield
    await shared(server, "admin", count, revoke)


@asynccontextmanager
async def schedules(server: Server, count: int) -> AsyncIterator[None]:
    """None fires before next year."""
    body = msgspec.json.encode({"cron": "0 0 1 1 *", "timezone": "UTC", "job": {"payload": "x" * 100}})

    async def put(client: Caller, number: int) -> None:
        await client.must("PUT", f"/schedules/schedule-{number}", 200, body)

    async def delete(client: Caller, number: int) -> None:
        await client.must("DELETE", f"/schedules/schedule-{number}", 204)

    await shared(server, "admin", count, put)
    yield
    await shared(server, "admin", count, delete)


@asynccontextmanager
async def connections(server: Server, count: int) -> AsyncIterator[None]:
    """Each has had an answer and is idle."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            client = await stack.enter_async_context(Client(server.port, server.keys["client"]))
            await post(client, "/jobs", SUBMIT, 201)
        yield


@asynccontextmanager
async def unread(server: Server, count: int) -> AsyncIterator[None]:
    """Each connection asks for pages of 1,000 jobs and reads nothing."""
    async with Client(server.port, server.keys["client"]) as client:
        for _ in range(2):
            jobs = [{"payload": "x" * 100}] * 1_000
            await post(client, "/jobs/batch", msgspec.json.encode({"jobs": jobs}), 201)
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        head = f"Host: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.keys['client']}\r\n\r\n"
        writer.write(f"GET /jobs?limit=1000 HTTP/1.1\r\n{head}".encode() * 4)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writers.append((reader, writer))
    yield
    for _, writer in writers:
        writer.transport.abort()


KINDS: dict[str, tuple[Load, int]] = {
    "queues": (queues, 200_000),
    "keys": (keys, 100_000),
    "schedules": (schedules, 10_000),
    "connections": (connections, 10_000),
    "unread": (unread, 10_000),
}


# --- measuring --------------------------------------------------------------------------------------------------------


async def submits(bare: Server, laden: Server) -> tuple[list[float], list[float]]:
    """The times of submits to each server, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    async with (
        Client(bare.port, bare.keys["client"]) as first,
        Client(laden.port, laden.keys["client"]) as second,
    ):
        for _ in range(ROUNDS):
            for client, took in zip((first, second), times, strict=True):
                for _ in range(SUBMITS):
                    began = time.perf_counter()
                    await post(client, "/jobs", SUBMIT, 201)
                    took.append(time.perf_counter() - began)
    return times


async def cost_of(load: Load, count: int, directory: Path) -> Cost:
    with Server(directory / "bare") as bare, Server(directory / "laden") as laden:
        await submits(bare, laden)  # both are warm
        before = laden.rss_bytes()
        async with load(laden, count):
            await asyncio.sleep(SETTLE_S)
            times = await submits(bare, laden)
            gained = laden.rss_bytes() - before
        await asyncio.sleep(SETTLE_S)
        await submits(bare, laden)  # a commit gives its parts their turn
        kept = laden.rss_bytes() - before
    return Cost(statistics.median(times[0]), statistics.median(times[1]), max(times[1]), gained, kept)


def line(kind: str, count: int, cost: Cost) -> str:
    return (
        f"{count:>8,} {kind:<12} a submit takes {cost.ratio:5.2f} times as long ({cost.bare_s * 1e3:.2f} -> "
        f"{cost.laden_s * 1e3:.2f} ms, slowest {cost.slowest_s * 1e3:.0f} ms); memory +{cost.gained_bytes >> 20} MiB, "
        f"{cost.gained_bytes // count:,} B each; {max(0, cost.kept_bytes) >> 20} MiB of it stay"
    )


@click.command(help=__doc__)
@click.option("--only", default=",".join(KINDS), help="Which, with commas between them.")
@click.option("--quick", is_flag=True, help="A hundredth of each, to see that it works.")
def main(only: str, quick: bool) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for kind in only.split(","):
        load, count = KINDS[kind]
        count = count // 100 if quick else count
        with tempfile.TemporaryDirectory(prefix="fastq-counts-") as directory:
            click.echo(line(kind, count, asyncio.run(cost_of(load, count, Path(directory)))))


if __name__ == "__main__":
    main()
