"""Many jobs become due at the same time."""

from __future__ import annotations

import asyncio

from fastq._core import ALL
from fastq.engine.commands import Lease, Submit
from fastq.engine.expiry import SLICE
from tests.engines import CLIENT, running, until

SLICES = 20


def test_jobs_due_at_once_become_ready_in_slices_between_other_work() -> None:
    async def run() -> None:
        async with running() as r:
            due_us = r.hand.us + 60_000_000
            for _ in range(SLICES):
                await r.submit_many(CLIENT, [Submit(b"1", run_at_us=due_us)] * SLICE)
            r.hand.us = due_us
            r.engine.run_due()
            counts = r.core.counts()
            assert (r.core.queue(r.hand.us, ALL, "default").ready, counts["delayed"]) == (
                SLICE,
                (SLICES - 1) * SLICE,
            )
            leased = await r.lease_one(Lease())
            assert r.core.counts()["delayed"] > 0, "the lease did not wait for all of them"

            async def all_in() -> bool:
                return r.core.counts()["delayed"] == 0

            await until(all_in)
            assert r.core.queue(r.hand.us, ALL, "default").ready == SLICES * SLICE - 1
            assert leased.job_id

    asyncio.run(run())
