"""Measure what open consoles cost the jobs: submits with consoles open, against submits without, in turns.

`./dev bench consoles [--consoles N] [--jobs N] [--rounds N] [--seconds S]`: each console reads GET /events and fetches
the first screen's piece at each `stats`, as a browser does. The server's CPU time a job is the figure that another
program on the machine disturbs least.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from bench.load import Client, Server

BATCH, CONNECTIONS = 100, 8
BODY = msgspec.json.encode({"jobs": [{"payload": {"n": n}, "queue": f"q{n % 20}"} for n in range(BATCH)]})
BACKLOG_BATCH = 1_000
COOKIE = re.compile(rb"set-cookie: ([^;]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Round:
    """Jobs a second, and the server's CPU seconds a job."""

    jobs_per_s: float
    cpu_s: float


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head and the body of an answer with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def log_in(port: int, key: str) -> bytes:
    """The cookie of a new session."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = f"key={quote(key)}".encode()
    kind = b"Content-Type: application/x-www-form-urlencoded"
    writer.write(
        b"POST /console/login HTTP/1.1\r\nHost: bench\r\n%s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body)
    )
    head, _ = await answer(reader)
    writer.close()
    found = COOKIE.search(head)
    assert found is not None, head
    return found[1]


async def console(port: int, cookie: bytes, screens: list[float]) -> None:
    """An open first screen, until it is cancelled. `screens` gets the seconds that each piece took."""
    events, ask = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    pages, fetch = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        ask.write(b"GET /events HTTP/1.1\r\nHost: bench\r\nCookie: %s\r\n\r\n" % cookie)
        while line := await events.readline():
            if line.strip() == b"event: stats":
                began = time.perf_counter()
                fetch.write(
                    b"GET /?part=live HTTP/1.1\r\nHost: bench\r\nHX-Request: true\r\nCookie: %s\r\n\r\n" % cookie
                )
                head, _ = await answer(pages)
                assert b" 200 " in head.partition(b"\r\n")[0], head
                screens.append(time.perf_counter() - began)
    finally:
        ask.close()
        fetch.close()


@contextlib.asynccontextmanager
async def open_consoles(count: int, port: int, cookie: bytes, screens: list[float]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(console(port, cookie, screens)) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for one in ended:
            if isinstance(one, Exception):
                raise one


async def submit(server: Server, seconds: float) -> Round:
    """Submit batches on some connections for a while."""
    until, jobs, cpu_s, began = time.monotonic() + seconds, 0, server.cpu_s(), time.monotonic()

    async def one() -> None:
        nonlocal jobs
        async with Client(server.port, server.keys["client"]) as client:
            while time.monotonic() < until:
                status, _ = await client.post("/jobs/batch", BODY)
                assert status == 201, status
                jobs += BATCH

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return Round(jobs / (time.monotonic() - began), (server.cpu_s() - cpu_s) / jobs)


async def measure(server: Server, consoles: int, backlog: int, rounds: int, seconds: float) -> None:
    filling = msgspec.json.encode({"jobs": [{"payload": n, "queue": f"q{n % 20}"} for n in range(BACKLOG_BATCH)]})
    async with Client(server.port, server.keys["client"]) as client:
        for _ in range(0, backlog, BACKLOG_BATCH):
            await client.post("/jobs/batch", filling)
    cookie = await log_in(server.port, server.keys["admin"])
    screens: list[float] = []
    async with open_consoles(1, server.port, cookie, []):
        await submit(server, 1)
    alone: list[Round] = []
    watched: list[Round] = []
    for n in range(rounds):
        alone.append(await submit(server, seconds))
        async with open_consoles(consoles, server.port, cookie, screens):
            watched.append(await submit(server, seconds))
        print(f"round {n + 1}: {alone[-1].jobs_per_s:,.0f} and {watched[-1].jobs_per_s:,.0f} jobs a second", flush=True)
    rate, cpu = (
        statistics.median(getattr(one, name) for one in watched)
        / statistics.median(getattr(one, name) for one in alone)
        for name in ("jobs_per_s", "cpu_s")
    )
    per_s = len(screens) / consoles / rounds / seconds
    print(f"{backlog:,} jobs waited; {consoles} consoles open, each with {per_s:.1f} screens a second")
    print(f"jobs a second with consoles: {rate:.3f} of without; the server's CPU time a job: {cpu:.3f}")
    if screens:
        print(f"a screen took {statistics.median(screens) * 1000:.1f} ms, the longest {max(screens) * 1000:.0f} ms")


@click.command()
@click.option("--consoles", default=10, show_default=True)
@click.option("--jobs", default=1_000_000, show_default=True, help="that wait before")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="of each half of a round")
def main(consoles: int, jobs: int, rounds: int, seconds: float) -> None:
    """Measure what open consoles cost the jobs."""
    with tempfile.TemporaryDirectory() as directory, Server(Path(directory) / "data") as server:
        asyncio.run(measure(server, consoles, jobs, rounds, seconds))


if __name__ == "__main__":
    main()
