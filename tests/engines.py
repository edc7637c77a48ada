"""An engine on a log in memory, whose time and durability the test decides."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, Self, TypeVar

from fastq.clock import Clock
from fastq.engine import Engine, EngineOptions, assemble
from fastq.engine.commands import Lease, Principal, Submit
from fastq.engine.results import LeasedJob
from fastq.errors import ApiError, Overloaded
from fastq.log.memory import MemoryLog

START_US = 1_700_000_000_000_000
PATIENCE_S = 60.0  # a test that waits so long has failed; a loaded machine takes ten
CLIENT = Principal("client_1", "ann", "client", frozenset({"jobs:submit", "jobs:read"}))
OTHER = Principal("client_2", "bob", "client", frozenset({"jobs:submit", "jobs:read"}))
WORKER = Principal("worker_1", "ops", "worker", frozenset({"jobs:lease", "jobs:ack", "jobs:read"}))

T = TypeVar("T")


class Hand:
    """A clock that the test moves; the loop's own timers go on in real time."""

    def __init__(self) -> None:
        self.us = START_US

    def clock(self) -> Clock:
        return Clock(self.us, lambda: self.us, lambda: self.us)


class Asking:
    """The engine as a connection asks it: each answer comes when all that it may show is durable; a refusal too."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        asked = getattr(self._engine, name)

        async def ask(*arguments: Any, **options: Any) -> Any:
            try:
                answer = asked(*arguments, **options)
                if inspect.isawaitable(answer):
                    answer = await answer
            except ApiError:
                await self._engine.durable()
                raise
            await self._engine.durable()
            return answer

        return ask


class Running:
    def __init__(self, log: Any, hand: Hand, options: EngineOptions, jitter: float) -> None:
        self.log, self.hand = log, hand
        self.failures: list[BaseException] = []
        self.engine, self.core = assemble(log, options, lambda: jitter)
        self.ask = Asking(self.engine)

    async def __aenter__(self) -> Self:
        self.engine.open()
        await self.engine.start(self.hand.clock(), self.failures.append)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if isinstance(self.log, MemoryLog):
            self.log.release()
        if not self.failures:
            await self.engine.stop()

    async def submit(self, who: Principal, command: Submit) -> str:
        return (await self.submit_many(who, [command]))[0]

    async def submit_many(self, who: Principal, commands: Sequence[Submit]) -> list[str]:
        """Submit as POST /jobs/batch does: if the next segment of the log is not ready, wait for it once."""
        try:
            stored, _ = await self.ask.submit_many(who, commands)
        except Overloaded:
            await self.engine.caught_up()
            stored, _ = await self.ask.submit_many(who, commands)
        return [job_id for job_id, _ in stored]

    async def lease_one(self, command: Lease) -> LeasedJob:
        (leased,) = await self.ask.lease(WORKER, command)
        return leased


def running(
    log: Any = None, hand: Hand | None = None, options: EngineOptions | None = None, jitter: float = 0.5
) -> Running:
    return Running(log or MemoryLog(), hand or Hand(), options or EngineOptions(lease_check_ms=10), jitter)


class FullDisk(MemoryLog):
    """A log with three segments and no room for more. The test says when that is known."""

    def _make_ready(self) -> None:
        if self._segment == 0:
            super()._make_ready()


async def fill(r: Running) -> NoReturn:
    """Submit until the log is full."""
    while True:
        await r.submit(CLIENT, Submit(b'"' + b"x" * 100 + b'"'))


async def is_pending(task: asyncio.Future[T]) -> bool:
    """Whether the task still waits after the loop has had every chance to run it."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that the engine's own timer brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 -- the timer is the loop's: nothing tells when it has fired
            await asyncio.sleep(0.005)
