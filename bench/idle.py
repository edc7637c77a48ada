"""Measure the processor time of an idle server: `python -m bench.idle`.

Workers wait for jobs of one queue (wait_ms 60,000, renewed), while a million jobs wait in another.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

import click
import msgspec

from bench.load import Client, Server

BATCH = 10_000
WAIT_MS = 60_000
SETTLE_S = 2.0  # after the last worker has begun to wait


async def fill(server: Server, jobs: int) -> None:
    """Submit jobs to a queue without workers."""
    body = msgspec.json.encode({"jobs": [{"payload": "x" * 100, "queue": "full"}] * BATCH})
    async with Client(server.port, server.keys["client"]) as client:
        for _ in range(0, jobs, BATCH):
            while (status := (await client.post("/jobs/batch", body))[0]) != 201:
                if status not in (429, 503):
                    raise SystemExit(f"a submit was answered {status}")
                await asyncio.sleep(0.05)


async def wait_for_jobs(server: Server, began: asyncio.Semaphore) -> None:
    """Ask for jobs that never come, again and again."""
    asks = msgspec.json.encode({"queues": ["empty"], "max": 1, "wait_ms": WAIT_MS})
    async with Client(server.port, server.keys["worker"]) as client:
        began.release()
        while True:
            status, content = await client.post("/jobs/lease", asks)
            assert status == 200, content


async def measure(server: Server, jobs: int, workers: int, seconds: float) -> float:
    """The server's CPU seconds a second."""
    await fill(server, jobs)
    began = asyncio.Semaphore(0)
    waiting = [asyncio.create_task(wait_for_jobs(server, began)) for _ in range(workers)]
    for _ in waiting:
        await began.acquire()
    await asyncio.sleep(SETTLE_S)
    used_s, at_s = server.cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    share = (server.cpu_s() - used_s) / (time.monotonic() - at_s)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return share


@click.command()
@click.option("--jobs", default=1_000_000, help="waiting jobs, a multiple of 10,000")
@click.option("--workers", default=100)
@click.option("--seconds", default=30.0)
def main(jobs: int, workers: int, seconds: float) -> None:
    """Measure and print one line."""
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch, Server(Path(scratch, "data")) as server:
        share = asyncio.run(measure(server, jobs, workers, seconds))
        print(
            f"{workers} workers wait, {jobs:,} jobs wait: {share:.2%} of a core over {seconds:.0f} s, "
            f"{server.rss_bytes() / 1e6:.0f} MB (load average before {load_before:.1f})"
        )


if __name__ == "__main__":
    main()
