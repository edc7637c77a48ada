"""Measure the longest step of the event loop while much work is due at once.

`./dev bench steps [--jobs N] [--only KIND,KIND]`: a node with a log in memory, no HTTP; one process for each kind.
While a step runs no request is answered. Times are the thread's CPU time, so other programs do not count.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import click
import msgspec

from fastq.clock import Clock
from fastq.engine import EngineOptions
from fastq.engine.commands import DEFAULT_QUEUE, Ack, JobOptions, Lease, Principal, Submit
from fastq.log.memory import MemoryLog
from fastq.server.assembly import Node
from fastq.services.bulk import WAITING, Bulk, Filter, Order
from fastq.services.queues import QueueSettings
from fastq.services.schedules import Schedule

START_US = 1_763_973_600_000_000
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
ADMIN = Principal("admin_1", "root", "admin", frozenset())
WORKER = Principal("worker_1", "ops", "worker", frozenset())
BATCH = 1000

OptionsOf = Callable[[int], JobOptions | None]


@dataclass
class Steps:
    """The steps of the running loop: how many, and the longest one in seconds of CPU time."""

    count: int = 0
    longest_s: float = 0.0
    all_s: float = 0.0

    def note(self, took_s: float) -> None:
        self.count += 1
        self.all_s += took_s
        self.longest_s = max(self.longest_s, took_s)


def timed(steps: Steps, run: Callable[[asyncio.Handle], None]) -> Callable[[asyncio.Handle], None]:
    """`asyncio.Handle._run`, which runs each step of the loop, with its time noted."""

    def run_timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        steps.note(time.thread_time() - began)

    return run_timed


class World:
    """A node whose time the benchmark moves."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.us, self.log = START_US, log or MemoryLog()
        self.node = Node(self.log, EngineOptions(lease_check_ms=1), lambda: 0.5)
        self.engine, self.core = self.node.engine, self.node.core

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.node.open()
        async with self._serving():
            yield

    async def serve_on(self, steps: Steps, is_over: Callable[[], bool]) -> None:
        """Start what was opened. What comes before the node serves is no step: nothing listens yet."""
        async with self._serving():
            with measured(steps):
                await self.until(is_over)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        clock = Clock(self.us, self._now_us, self._now_us)
        async with self.node.running(clock, _fail), self.node.serving("steps"):
            yield

    async def submit(self, count: int, run_at_us: int | None = None, options: OptionsOf = lambda _: None) -> None:
        for first in range(0, count, BATCH):
            numbers = range(first, min(count, first + BATCH))
            self.engine.submit_many(ADMIN, [Submit(b"1", run_at_us=run_at_us, options=options(n)) for n in numbers])
            await self.engine.durable()

    async def lease(self, count: int, *, ack: bool) -> None:
        for first in range(0, count, BATCH):
            command = Lease(had_body=True, limit=min(count - first, BATCH), lease_ms=HOUR_US // 1000)
            leased = await self.engine.lease(WORKER, command)
            if ack:
                self.engine.ack_many(WORKER, [Ack(job.job_id, job.token) for job in leased])
            await self.engine.durable()

    def _now_us(self) -> int:
        self.us += 1  # as in life, nothing happens at the time of something else
        return self.us

    def run_due(self) -> None:
        asyncio.get_running_loop().call_soon(self.engine.run_due)

    async def until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():  # noqa: ASYNC110 -- each turn of the loop is a step to measure
            await asyncio.sleep(0)


def _fail(error: BaseException) -> None:
    raise error


# --- what is due at once ----------------------------------------------------------------------------------------------
# Each makes its world, and does the measured part within `measured`.


@contextmanager
def measured(steps: Steps) -> Iterator[None]:
    """Note the steps of the loop that begin within."""
    run = asyncio.Handle._run
    asyncio.Handle._run = timed(steps, run)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def due(count: int, steps: Steps) -> None:
    """Delayed jobs that are due at one time."""
    world = World()
    async with world.running():
        await world.submit(count, run_at_us=START_US + HOUR_US)
        with measured(steps):
            world.us += HOUR_US
            world.run_due()
            await world.until(lambda: world.core.counts()["delayed"] == 0)


async def leases(count: int, steps: Steps) -> None:
    """Leases that expire at one time."""
    world = World()
    async with world.running():
        await world.submit(count)
        await world.lease(count, ack=False)
        with measured(steps):
            world.us += HOUR_US
            world.run_due()
            await world.until(lambda: world.core.counts()["RUNNING"] == 0)


async def resume(count: int, steps: Steps) -> None:
    """A start with leases."""
    world = World()
    async with world.running():
        await world.submit(count)
        await world.lease(count, ack=False)
    again = World(world.log.crash())
    again.node.open()
    began_us = again.us
    await again.serve_on(steps, lambda: again.us > began_us + 100)


async def retention(count: int, steps: Steps) -> None:
    """Finished jobs whose time is over."""
    world = World()
    async with world.running():
        await world.submit(count)
        await world.lease(count, ack=True)
        with measured(steps):
            world.us += 2 * DAY_US
            world.run_due()
            await world.until(lambda: world.core.counts()["jobs"] == 0)


async def admin() -> Principal:
    return ADMIN


async def purge(count: int, steps: Steps) -> None:
    """A purge of a queue's jobs."""
    world = World()
    async with world.running():
        await world.submit(count)
        with measured(steps):
            await asyncio.sleep(0)
            order = Order("delete", Filter(WAITING, queue=DEFAULT_QUEUE), "queue.purge", DEFAULT_QUEUE)
            result = await Bulk(world.engine, world.node.audit).run(admin, order)
        assert result.changed == count


async def keys(count: int, steps: Steps) -> None:
    """Idempotency keys whose window is over."""
    world = World()
    async with world.running():
        await world.submit(count, options=lambda n: JobOptions(idempotency_key=f"key-{n}", body_digest=n))
        assert world.core.idempotency_keys == count
        with measured(steps):
            world.us += 2 * HOUR_US
            world.run_due()
            await world.until(lambda: world.core.idempotency_keys == 0)


async def settings(count: int, steps: Steps) -> None:
    """Settings of a queue with a fifth as many groups that change its order."""
    world = World()
    async with world.running():
        await world.submit(count // 5, options=lambda n: JobOptions(group=f"group-{n}"))
        for fair, limit in ((True, None), (True, 1), (False, 1), (False, None)):
            with measured(steps):
                await asyncio.sleep(0)
                world.node.queues.put(ADMIN, DEFAULT_QUEUE, QueueSettings(fair=fair, group_concurrency=limit))
                await world.engine.durable()


async def schedules(count: int, steps: Steps) -> None:
    """A start with a hundredth as many schedules."""
    world = World()
    async with world.running():
        for number in range(count // 100):
            job = msgspec.Raw(b'{"payload":1}')
            schedule = Schedule(f"{number % 60} * * * *", "UTC", job, ADMIN.owner_id, ADMIN.key_id, START_US)
            world.node.schedules.put(ADMIN, f"schedule-{number}", schedule)
            await world.engine.durable()
    again = World(world.log.crash())
    again.us += 24 * HOUR_US
    again.node.open()
    await again.serve_on(steps, lambda: again.core.counts()["jobs"] == count // 100)


KINDS = {run.__name__: run for run in (due, leases, resume, retention, purge, keys, settings, schedules)}


@click.command(help=__doc__)
@click.option("--jobs", default=1_000_000, help="How many of each.")
@click.option("--only", default=",".join(KINDS), help="Which, with commas between them.")
def main(jobs: int, only: str) -> None:
    kinds = only.split(",")
    if len(kinds) > 1:  # a process each: what one leaves in memory costs the others nothing
        for kind in kinds:
            subprocess.run([sys.executable, "-m", "bench.steps", "--jobs", str(jobs), "--only", kind], check=True)
        return
    steps, run = Steps(), KINDS[kinds[0]]
    asyncio.run(run(jobs, steps))
    click.echo(
        f"{kinds[0]:<10} {jobs:>9,}: longest step {steps.longest_s * 1e3:7.1f} ms; {steps.count:,} steps, "
        f"{steps.all_s:.2f} s"
    )


if __name__ == "__main__":
    main()
