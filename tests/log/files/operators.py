"""Further operations of clients, workers and operators, in a queue of their own. Their answers are not recorded.

Recovery's state of these jobs is compared with the state hash after each frame, and every record is read.
"""

from __future__ import annotations

import random
from typing import Any

from fastq.engine.commands import Ack, Edit, Extend, JobOptions, Lease, Submit, Transaction
from fastq.engine.results import LeasedJob
from tests.engines import CLIENT, WORKER, Hand

QUEUE = "c"
SIZES = [10, 300, 300, 2000]  # of payloads, bytes


class Operators:
    """Each step changes some jobs. `engine`: its methods are awaited."""

    def __init__(self, engine: Any, hand: Hand, rng: random.Random) -> None:
        self._engine, self._hand, self._rng = engine, hand, rng
        self._ids: list[str] = []
        self._held: list[LeasedJob] = []

    async def step(self) -> None:
        actions = [self._submit, self._replace, self._lease, self._lease, self._ack, self._ack, self._batch]
        actions += [self._transact, self._report, self._extend]
        actions += [self._cancel, self._redrive, self._edit, self._delete]
        await self._rng.choice(actions)()

    def _new(self, **options: Any) -> Submit:
        payload = b'"' + b"p" * self._rng.choice(SIZES) + b'"'
        keyed = {"idempotency_key": f"{self._rng.getrandbits(60):x}"} if self._rng.random() < 0.3 else {}
        return Submit(payload, max_retries=2, queue=QUEUE, options=JobOptions(**options | keyed))

    def _one(self) -> str:
        return self._rng.choice(self._ids[-20:]) if self._ids else "none"

    def _ended(self) -> list[LeasedJob]:
        """A lease that has ended."""
        return [self._held.pop(self._rng.randrange(len(self._held)))] if self._held else []

    def _ack_of(self, leased: LeasedJob) -> Ack:
        outcome = self._rng.choice(["ok", "error", "error", "discard", "snooze", "release"])
        error = "boom" if outcome in ("error", "discard") else ""
        delay_ms = 20 if outcome == "snooze" else None
        return Ack(leased.job_id, leased.token, b'"r"', error, outcome=outcome, delay_ms=delay_ms)

    async def _submit(self) -> None:
        expires_ms = self._rng.choice([0, 0, 500])
        job_id, _ = await self._engine.submit(CLIENT, self._new(expires_ms=expires_ms, tags=("red",)))
        self._ids.append(job_id)

    async def _replace(self) -> None:
        jobs = [self._new(unique_key="u", replace=True) for _ in range(self._rng.choice([2, 4]))]
        stored, _ = await self._engine.submit_many(CLIENT, jobs)
        self._ids.append(stored[0][0])

    async def _lease(self) -> None:
        lease_ms = self._rng.choice([1000, 60_000])
        self._held += await self._engine.lease(WORKER, Lease(had_body=True, queues=(QUEUE,), lease_ms=lease_ms))

    async def _ack(self) -> None:
        for leased in self._ended():
            await self._engine.ack(WORKER, self._ack_of(leased))

    async def _batch(self) -> None:
        acks = [self._ack_of(leased) for _ in range(3) for leased in self._ended()]
        await self._engine.ack_many(WORKER, acks)

    async def _transact(self) -> None:
        ops: list[Any] = [self._ack_of(leased) for leased in self._ended()]
        ops += [Extend(leased.job_id, leased.token) for leased in self._held[:1]]
        if ops:
            key = f"{self._rng.getrandbits(60):x}"
            await self._engine.transact(WORKER, Transaction((*ops, self._new()), key, 7))

    async def _cancel(self) -> None:
        await self._engine.cancel(CLIENT, self._one(), self._rng.random() < 0.3)

    async def _redrive(self) -> None:
        await self._engine.redrive(CLIENT, self._one())

    async def _edit(self) -> None:
        payload = b'"' + b"e" * self._rng.choice(SIZES) + b'"' if self._rng.random() < 0.5 else None
        await self._engine.edit(CLIENT, self._one(), Edit(payload, priority=self._rng.randrange(3)))

    async def _delete(self) -> None:
        await self._engine.delete(CLIENT, self._one())

    async def _report(self) -> None:
        for leased in self._held[:1]:
            await self._engine.report(WORKER, leased.job_id, leased.token, self._rng.randrange(100), "half")

    async def _extend(self) -> None:
        for leased in self._held[:1]:
            await self._engine.extend(WORKER, [(leased.job_id, leased.token)], 60_000)
