"""Lives of an engine over a log of tiny segments: jobs, retention of a second, and a cleaner that always works."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any, Never

from fastq.engine import Engine, EngineOptions, assemble
from fastq.engine.commands import Ack, Lease, Submit
from fastq.engine.commits import Commits
from fastq.engine.results import LeasedJob
from fastq.errors import ApiError, JobNotFound
from fastq.log.files.log import LocalLog
from tests.engines import CLIENT, START_US, WORKER, Asking, Hand
from tests.log.files.life import TracedLog, note
from tests.log.files.operators import Operators

SEGMENT_BYTES = 32 << 10
RETENTION_US = 1_000_000
STEPS = 70  # of a life
STEP_US = 60_000  # the most that one step moves the clock
SIZES = [0, 0, 30, 300, 300, 1000, 3000, 6000]  # of payloads, bytes
QUEUES = ("a", "b")
OPTIONS = EngineOptions(
    lease_check_ms=10, backoff_base_ms=10, retention_acked_ms=RETENTION_US // 1000, log_slack_bytes=SEGMENT_BYTES
)


def jobs_log(directory: Path, kind: type[LocalLog] = LocalLog, *, zero_cleaned: bool = False) -> LocalLog:
    """A log for these lives."""
    return kind(directory, segment_bytes=SEGMENT_BYTES, align=512, cache_bytes=8 << 10, zero_cleaned=zero_cleaned)


def tell(what: str, **fields: Any) -> None:
    """Note a client's request or answer in the trace, as arguments of a method of the ledger."""
    note(b"T" + json.dumps([what, fields]).encode())


class Clients:
    """The clients of a life. Each step notes a request before it is sent, and the answer after it came."""

    def __init__(self, engine: Engine, hand: Hand, rng: random.Random) -> None:
        self._engine, self._hand, self._rng = Asking(engine), hand, rng
        self._name = f"{rng.getrandbits(40):x}"
        self._sent = 0
        self._held: list[LeasedJob] = []
        self._ended: list[str] = []
        self._operators = Operators(self._engine, hand, rng)

    async def step(self) -> None:
        rng = self._rng
        self._hand.us += rng.randrange(STEP_US)
        tell("now", us=self._hand.us)
        actions = [self._submit, self._lease, self._ack, self._look, self._write, self._operators.step]
        does = rng.choices(actions, [5, 6, 5, 1, 1, 9])[0]
        try:
            await does()
        except ApiError:
            await asyncio.sleep(0.001)  # refused: a segment is being made, or the cleaner is behind

    async def _submit(self) -> None:
        payloads = [self._payload() for _ in range(self._rng.choice([1, 1, 1, 4]))]
        jobs = [
            Submit(json.dumps(payload).encode(), max_retries=self._rng.choice([0, 3]), queue=self._rng.choice(QUEUES))
            for payload in payloads
        ]
        stored = [await self._engine.submit(CLIENT, jobs[0])] if len(jobs) == 1 else await self._submit_many(jobs)
        for (job_id, _), payload in zip(stored, payloads, strict=True):
            tell("submitted", job_id=job_id, payload=payload)

    async def _submit_many(self, jobs: list[Submit]) -> list[tuple[str, int]]:
        stored, _ = await self._engine.submit_many(CLIENT, jobs)
        return stored

    def _payload(self) -> str:
        self._sent += 1
        payload = f"{self._name}-{self._sent}:" + "x" * self._rng.choice(SIZES)
        tell("sending", payload=payload)
        return payload

    async def _lease(self) -> None:
        lease_ms = self._rng.choice([500, 60_000])
        command = Lease(had_body=True, queues=QUEUES, lease_ms=lease_ms, limit=self._rng.choice([1, 1, 3]))
        for leased in await self._engine.lease(WORKER, command):
            tell("leased", job_id=leased.job_id, payload=json.loads(leased.payload), attempt=leased.attempt)
            if self._rng.random() < 0.9:
                self._held.append(leased)

    async def _ack(self) -> None:
        if not self._held:
            return
        leased = self._held.pop(self._rng.randrange(len(self._held)))
        this: dict[str, Any] = {"job_id": leased.job_id, "attempt": leased.attempt}
        if fails := self._rng.random() < 0.2:
            command = Ack(leased.job_id, leased.token, error="boom")
        else:
            command = Ack(leased.job_id, leased.token, result=f'"done {leased.attempt}"'.encode())
            tell("acking", **this, now_us=self._hand.us)
        try:
            await self._engine.ack(WORKER, command)
        except ApiError:
            tell("refused", **this)
            return
        if fails:
            tell("failed", **this)
        else:
            tell("acked", **this, result=f"done {leased.attempt}")
            self._ended.append(leased.job_id)

    async def _look(self) -> None:
        if not self._ended:
            return
        job_id = self._rng.choice(self._ended)
        try:
            await self._engine.job(CLIENT, job_id)
        except JobNotFound:
            tell("gone", job_id=job_id)
            self._ended = [other for other in self._ended if other != job_id]

    async def _write(self) -> None:
        await self._engine.put_document(9, self._rng.choice("abc"), self._rng.randbytes(self._rng.choice(SIZES)))


async def live_with_jobs(directory: Path, rng: random.Random, close: bool, mutant: str = "") -> None:
    """Open, do some steps, and close; or stop dead, most often with a batch in flight or at a segment's end."""
    log = jobs_log(directory, TracedLog, zero_cleaned=rng.random() < 0.5)
    engine, core = assemble(log, OPTIONS, rng.random)
    if mutant:
        MUTANTS[mutant](engine)
    engine.open()
    hand = Hand()
    hand.us = max(START_US, core.last_us)
    await engine.start(hand.clock(), _ended)
    clients = Clients(engine, hand, rng)
    steps = rng.randrange(STEPS)
    while steps > 0:
        together = rng.choice([1, 1, 1, 4])
        await asyncio.gather(*(clients.step() for _ in range(together)))
        steps -= together
    if not close:
        last = [asyncio.ensure_future(clients.step()) for _ in range(3)]
        await asyncio.wait(last, timeout=rng.random() * 0.002)
        os._exit(0)
    await engine.stop()


def _ended(error: BaseException) -> None:
    raise error


# --- mutants: each breaks one rule of the cleaner ---------------------------------------------------------------------


class _NeverWaits:
    """Commits that report frames durable too early."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    async def durable(self) -> None:
        self._commits.kick_soon()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._commits, name)


class SeesNothing:
    """A core that finds no live record in an old segment."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def live_records(self, *_: Any) -> list[Never]:
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


def _drops_early(engine: Engine) -> None:
    vars(engine.cleaner)["_commits"] = _NeverWaits(engine.cleaner._commits)


def _moves_nothing(engine: Engine) -> None:
    vars(engine.cleaner)["_core"] = SeesNothing(engine.cleaner._core)


MUTANTS = {"drops early": _drops_early, "moves nothing": _moves_nothing}
