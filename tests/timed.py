"""A server's schedules without the server: over a log in memory, in a loop whose time the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from fastq._core import ALL, Filter
from fastq.clock import Clock
from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, Lease, Principal
from fastq.log.memory import MemoryLog
from fastq.server.assembly import Node
from fastq.services.schedule import Schedule
from tests.engines import WORKER, Asking

ANN = Principal("client_1", "ann", "client", frozenset({"jobs:submit", "jobs:read", "schedules:manage"}))
BOB = Principal("client_2", "bob", "client", frozenset({"schedules:manage"}))
ADMIN = Principal("admin_1", "root", "admin", frozenset())
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000


def at(text: str, zone: str = "UTC") -> int:
    """Unix microseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000


START_US = at("2026-01-05T00:00:30")


class HandLoop(asyncio.SelectorEventLoop):
    """A loop whose time is `us`; what it owes then runs as soon as the test waits for anything."""

    def __init__(self) -> None:
        super().__init__()
        self.us = START_US
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return (self.us - START_US) / 1e6

    def next_timer_us(self) -> int | None:
        due = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        return START_US + int(min(due) * 1e6) + 1 if due else None


async def rest() -> None:
    """Let everything happen that is due."""
    for _ in range(30):
        await asyncio.sleep(0)


class World:
    """A server's schedules without the server."""

    def __init__(self, loop: HandLoop, log: MemoryLog, wall_ahead_us: int = 0) -> None:
        self.loop, self.log = loop, log
        self.node = Node(log, EngineOptions(lease_check_ms=HOUR_US // 1000), lambda: 0.5)
        self.engine, self.ask = self.node.engine, Asking(self.node.engine)
        self._wall_ahead_us = wall_ahead_us
        self.crashed = False
        self._running = AsyncExitStack()

    async def start(self) -> None:
        loop, node = self.loop, self.node
        node.open()
        clock = Clock(loop.us, lambda: loop.us, lambda: loop.us + self._wall_ahead_us)
        await self._running.enter_async_context(node.running(clock, fail))
        await self._running.enter_async_context(node.serving("timed"))
        node.statistics.stop()  # its samples, one a second, would be most of what happens in a day
        self.audit, self.queues, self.schedules = node.audit, node.queues, node.schedules
        await rest()

    async def stop(self) -> None:
        if self.crashed:
            self.engine.commits.failed = RuntimeError("nothing of it is ever durable again")
        await self._running.aclose()

    async def until(self, us: int) -> None:
        """Nothing in between is seen: the process was stopped, or nothing was due."""
        assert us >= self.loop.us
        self.loop.us = us
        await rest()

    async def step_until(self, us: int) -> int:
        """From timer to timer; how many there were."""
        steps = 0
        while (next_us := self.loop.next_timer_us()) is not None and next_us <= us:
            steps += 1
            await self.until(max(next_us, self.loop.us))
        await self.until(us)
        return steps

    async def put(self, name: str = "s", who: Principal = ANN, **fields: Any) -> None:
        self.schedules.put(who, name, schedule(who=who, **fields))
        await self.engine.durable()

    def jobs(self) -> list[Any]:
        """The earliest first."""
        return self.engine.views(ALL, Filter(), 0, 10_000, 10_000)[0][::-1]

    def fired(self) -> list[str]:
        """When each job was submitted."""
        return [shown(job.created_us) for job in self.jobs()]

    def crash(self) -> MemoryLog:
        """What the next process finds."""
        self.crashed = True
        return self.log.crash()

    async def finish_all(self) -> None:
        for leased in await self.ask.lease(WORKER, Lease(had_body=True, limit=1000)):
            await self.ask.ack(WORKER, Ack(leased.job_id, leased.token))


def fail(error: BaseException) -> None:
    raise AssertionError("the log failed") from error


def shown(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%d %H:%M")


def schedule(
    cron: str = "0 * * * *", who: Principal = ANN, job: bytes = b'{"payload":"tick"}', **fields: Any
) -> Schedule:
    fields = {"timezone": "UTC", "put_us": 0, **fields}
    return Schedule(cron, job=msgspec.Raw(job), owner_id=who.owner_id, key_id=who.key_id, **fields)


@asynccontextmanager
async def running(log: MemoryLog | None = None, **options: Any) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HandLoop)
    world = World(loop, log or MemoryLog(), **options)
    await world.start()
    try:
        yield world
    finally:
        await world.stop()


def in_hand(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run it in a loop of its own whose time begins at START_US."""

    def run() -> None:
        async def whole() -> None:
            await test()

        with asyncio.Runner(loop_factory=HandLoop) as runner:
            runner.run(whole())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
