"""What waiting jobs cost: lease and ack, and a cycle of submit, lease and ack, fresh and over a backlog, in one run.

    python -m bench.backlog --jobs 300000 [--connections 64 --seconds 10 --rounds 3]

Each round measures a fresh server and one with the backlog, one after the other, so the ratio is of the same machine.
Lease and ack ends when half of the jobs are leased, or after so many seconds: a fast machine takes less time.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import click

from bench.load import Client, Server

BATCH = 1000
PAYLOAD = {"order": "0123456789", "amount": 17, "note": "x" * 100}

Step = Callable[[Client, Client], Awaitable[None]]


async def submit(client: Client, _worker: Client) -> None:
    status, _ = await client.call("/jobs", {"payload": PAYLOAD})
    assert status == 201, status


async def lease_and_ack(_client: Client, worker: Client) -> None:
    status, answer = await worker.call("/jobs/lease", {"max": 1})
    assert status == 200 and answer["jobs"], "no job is ready"
    (job,) = answer["jobs"]
    status, _ = await worker.call(f"/jobs/{job['job_id']}/ack", {"lease_token": job["lease_token"]})
    assert status == 200, status


async def cycle(client: Client, worker: Client) -> None:
    await submit(client, worker)
    await lease_and_ack(client, worker)


async def fill(server: Server, jobs: int) -> None:
    async with Client(server.port, server.keys["client"]) as client:
        for _ in range(0, jobs, BATCH):
            status, _ = await client.call("/jobs/batch", {"jobs": [{"payload": PAYLOAD}] * BATCH})
            assert status == 201, status


async def rate(server: Server, step: Step, connections: int, seconds: float, steps_max: float) -> tuple[float, float]:
    """Steps a second, and the server's microseconds of CPU a step. It ends after `seconds` or `steps_max`."""
    begun = 0
    async with AsyncExitStack() as stack:
        pairs = [
            (
                await stack.enter_async_context(Client(server.port, server.keys["client"])),
                await stack.enter_async_context(Client(server.port, server.keys["worker"])),
            )
            for _ in range(connections)
        ]
        began_s, cpu_s = time.monotonic(), server.cpu_s()

        async def work(client: Client, worker: Client) -> None:
            nonlocal begun
            while begun < steps_max and time.monotonic() < began_s + seconds:
                begun += 1
                await step(client, worker)

        await asyncio.gather(*(work(*pair) for pair in pairs))
        took_s = time.monotonic() - began_s
        return begun / took_s, (server.cpu_s() - cpu_s) / max(1, begun) * 1e6


def measured(name: str, backlog: int, connections: int, seconds: float) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="fastq-backlog-") as place, Server(Path(place) / "data") as server:
        asyncio.run(fill(server, backlog))
        if name == "cycle":
            return asyncio.run(rate(server, cycle, connections, seconds, math.inf))
        return asyncio.run(rate(server, lease_and_ack, connections, seconds, backlog // 2))


@click.command()
@click.option("--jobs", default=300_000, show_default=True, help="The backlog.")
@click.option("--few", default=20_000, show_default=True, help="Jobs in memory, for lease and ack without a backlog.")
@click.option("--connections", default=64, show_default=True)
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(jobs: int, few: int, connections: int, seconds: float, rounds: int) -> None:
    """Print rates, the server's CPU a step, and the ratio to a fresh server."""
    for name, fresh_jobs in (("lease+ack", few), ("cycle", 0)):
        ratios: list[float] = []
        for _ in range(rounds):
            fresh, fresh_us = measured(name, fresh_jobs, connections, seconds)
            over, over_us = measured(name, jobs, connections, seconds)
            ratios.append(over / fresh)
            print(
                f"{name}: fresh {fresh:,.0f}/s, {fresh_us:.0f} us CPU; "
                f"over {jobs:,} jobs {over:,.0f}/s, {over_us:.0f} us CPU; ratio {over / fresh:.2f}"
            )
        print(f"{name}: median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
