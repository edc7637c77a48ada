"""A run: actors at work, the server killed in the midst of it and started with other settings, and an account."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastq.chaos.plan import SERVE
from fastq.chaos.plan import Plan as ChaosPlan
from fastq.chaos.target import OwnServer
from fastq.client.errors import ServerUnreachable
from tests.kills.actions import step
from tests.kills.actor import Actor
from tests.kills.brief import Vanisher
from tests.kills.line import Faults, Line, Stuck
from tests.kills.operator import Operator

SETTINGS: dict[str, list[str]] = {
    "IDEMPOTENCY_WINDOW": ["1h", "24h", "720h"],
    "IDEMPOTENCY_KEYS_MAX": ["1000000", "8000000", "9000000"],
    "WAL_SEGMENT_BYTES": ["4MiB", "4MiB", "6MiB", "16MiB", "64MiB"],
    "WAL_ALIGN": ["512", "4096", "4096", "32768"],
    "WAL_SLACK_BYTES": ["1MiB", "1MiB", "256MiB"],
    "WAL_ZERO_CLEANED": ["true", "false"],
    "PAYLOAD_CACHE_BYTES": ["0", "64KiB", "16MiB"],
    "LEASE_DURATION": ["1s", "30s", "10m"],
    "LEASE_CHECK_INTERVAL": ["10ms", "100ms", "1s"],
    "RETENTION_ACKED": ["24h", "48h"],
    "RETENTION_DEAD": ["24h", "720h"],
    "BACKOFF_BASE": ["1ms", "1s"],
    "BACKOFF_FACTOR": ["1", "3.5"],
    "DEFAULT_MAX_RETRIES": ["0", "3", "9"],
    "POISON_EXPIRIES": ["0", "0", "60"],
    "OWNER_MAX_DEPTH": ["0", "1000000"],
    "OWNER_ISOLATION": ["true", "false"],
}
MAX_FINISHED_JOBS = ["1000000"] * 12 + ["100"]  # few of them: then finished jobs may go
STARTING = 0.2  # share of kills that are followed by one while the server starts
STARTING_S = (0.05, 0.4)
STOPS = 0.1  # share of ends that are a SIGTERM
ALIVE_ANSWERS = (5, 400)  # of a server, until it is killed
STALL_S = 60.0
ACCOUNT_EVERY = 10  # kills


@dataclass
class Plan:
    kills: int = 20
    actors: int = 6
    seed: int = 1
    serve: Sequence[str] = SERVE


@dataclass
class Run:
    plan: Plan
    directory: Path
    told: Callable[[Run], None] = lambda _run: None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        plan = self.plan
        self.rng = random.Random(plan.seed)
        self.server = OwnServer(ChaosPlan(serve=plan.serve), self.directory)
        self.line = Line(self.server.url, self.server.key)
        names = [f"k{number}" for number in range(plan.actors)]
        self.actors: list[Actor | Vanisher | Operator] = [Actor(self.line, name, self._draws(name)) for name in names]
        self.actors += [Vanisher(self.line, "v", self._draws("v")), Operator(self.line, "op", self._draws("op"))]
        self._resting = asyncio.Event()
        self._begun_s = time.monotonic()

    def _draws(self, name: str) -> random.Random:
        return random.Random(f"{self.plan.seed} {name}")

    @property
    def faults(self) -> Faults:
        return self.line.faults

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun_s

    # --- the server ---------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """With other settings than before. Raises ServerUnreachable."""
        settings = {name: self.rng.choice(values) for name, values in SETTINGS.items()}
        settings["MAX_FINISHED_JOBS"] = self.rng.choice(MAX_FINISHED_JOBS)
        if settings["MAX_FINISHED_JOBS"] == "100":
            for actor in self.actors:
                actor.forgets = True
        self.server.settings = settings
        await self.server.start()
        if self.rng.random() < STARTING:
            await asyncio.sleep(self.rng.uniform(*STARTING_S))
            await self._end_dead()
            self.counts["kills while starting"] += 1
            await self.server.start()
        await self.server.started()
        self.line.up.set()

    async def _end(self) -> None:
        """kill -9, or now and then a SIGTERM. Raises ServerUnreachable if it had ended by itself."""
        if self.rng.random() < STOPS:
            self.counts["stops"] += 1
            self.line.up.clear()
            if wrong := await self.server.end():
                self.faults.add("stop", wrong)
            await self.server.kill()
        else:
            self.counts["kills"] += 1
            await self._end_dead()
        self.line.up.clear()

    async def _end_dead(self) -> None:
        if self.server.exit_code is not None:
            raise ServerUnreachable(
                f"it had ended by itself: {self.server.exit_code}: {self.server.said()}", sent=False
            )
        await self.server.kill()

    async def _alive(self) -> None:
        """Let it answer for a while. Raises ServerUnreachable."""
        until, last_s = self.line.counts["answered"] + self.rng.randint(*ALIVE_ANSWERS), time.monotonic()
        seen = -1
        while (answered := self.line.counts["answered"]) < until:
            if answered != seen:
                seen, last_s = answered, time.monotonic()
            if time.monotonic() - last_s > STALL_S or self.server.exit_code is not None:
                raise ServerUnreachable(f"it answers no more: {self.server.exit_code}: {self.server.said()}", sent=True)
            await asyncio.sleep(0.002)

    # --- the actors ---------------------------------------------------------------------------------------------------

    async def _work(self, actor: Actor | Vanisher | Operator) -> None:
        while not self._resting.is_set():
            await (step(actor) if isinstance(actor, Actor) else actor.step())
            self.counts["steps"] += 1

    async def _with_actors(self, kills: int) -> None:
        """Kill so many times while they work; at the end all of them rest and the server runs."""
        self._resting.clear()
        async with asyncio.TaskGroup() as group:
            for actor in self.actors:
                group.create_task(self._work(actor))
            group.create_task(self._kill(kills))

    async def _kill(self, kills: int) -> None:
        for _ in range(kills):
            await self._alive()
            await self._end()
            await self._start()
            self.told(self)
            if self.faults.counts:
                break
        self._resting.set()

    # --- all of it ----------------------------------------------------------------------------------------------------

    async def whole(self) -> Run:
        """The whole of it. What is wrong with the server is in `faults`."""
        try:
            await self._start()
            left = self.plan.kills
            while left > 0 and not self.faults.counts:
                await self._with_actors(min(left, ACCOUNT_EVERY))
                left -= ACCOUNT_EVERY
                await self._account()
            await self._end()
            await self._start()  # once more: what an opening moved is read at the next
            await self._account()
            if wrong := await self.server.end():
                self.faults.add("stop", wrong)
        except* (ServerUnreachable, Stuck) as group:
            self.faults.add("not there", "; ".join(str(error) for error in group.exceptions))
        finally:
            await self.server.kill()
            await self.line.close()
        return self

    async def _account(self) -> None:
        await asyncio.gather(*(actor.account() for actor in self.actors))
        self.counts["accounts"] += 1

    def text(self) -> str:
        jobs = sum(len(actor.submits) for actor in self.actors if isinstance(actor, Actor))
        done = ", ".join(f"{name} {count:,}" for name, count in sorted((self.counts | self.line.counts).items()))
        lines = [f"seed {self.plan.seed}, {self.seconds:,.1f} s, {jobs} submits kept: {done}"]
        lines += [f"{kind}: {count:,}" for kind, count in self.faults.counts.items()]
        return "\n".join([*lines, *self.faults.examples, "FAILED" if self.faults.counts else "nothing lost"])
