"""Workers: the jobs that each holds, when it was last seen, and the queues that it asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastq.engine import Engine
from fastq.engine.commands import Principal

if TYPE_CHECKING:
    from fastq._core import JobView

LEASES_SHOWN = 10_000
LEASES_EXAMINED = 100_000
SLICE_LEASES = 200
SLICE_WORKERS = 100
IDLE_SHOWN = 1_000
IDLE_US = 3_600_000_000  # how long a worker without a lease is shown


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker. Workers that send no id are shown as one with an empty id.

    Args:
        leases: the jobs that it holds, the one that it leased first is the first.
        seen_us: its last lease or heartbeat, Unix microseconds. Heartbeats before the server's start are not known.
        queues: the first of those that it last asked for a job.
        host, version: what it says about itself; these three are empty for keys that do not see every job.
    """

    worker_id: str
    leases: list[JobView]
    seen_us: int
    queues: tuple[str, ...]
    host: str = ""
    version: str = ""

    @property
    def held_since_us(self) -> int:
        """When it leased the job that it holds longest; 0 without a job."""
        return self.leases[0].leased_us if self.leases else 0


class Survey:
    """Finds the workers that hold jobs of `who`, and the idle ones if `who` sees every job."""

    def __init__(self, engine: Engine, who: Principal) -> None:
        self._engine, self._who = engine, who
        self.is_complete = True
        """False if there are more leases or idle workers than are shown."""

    async def slices(self) -> AsyncIterator[list[Worker]]:
        """Yield the workers by id, in slices of about a millisecond. The slices that find the leases are empty."""
        engine, sees_all = self._engine, self._who.sees.is_all
        held: dict[str, dict[str, JobView]] = {}
        async for jobs in self._held():
            for job in jobs:
                held.setdefault(job.worker_id, {})[job.job_id] = job
            yield []
        seen_us = engine.last_seen.since(0)
        yield []
        if sees_all:
            idle = engine.last_seen.since(engine.now_us() - IDLE_US).keys() - held.keys()
            self.is_complete = self.is_complete and len(idle) <= IDLE_SHOWN
            held |= {worker_id: {} for worker_id in sorted(idle)[:IDLE_SHOWN]}
            yield []
        worker_ids = sorted(held)
        yield []
        found: list[Worker] = []
        leases_found = 0
        for worker_id in worker_ids:
            leases = sorted(held[worker_id].values(), key=lambda job: (job.leased_us, job.job_id))
            last_us = max([seen_us.get(worker_id, 0), *(job.leased_us for job in leases[-1:])])
            said = (engine.last_seen.queues_of(worker_id), *engine.last_seen.about(worker_id)) if sees_all else ((),)
            found.append(Worker(worker_id, leases, last_us, *said))
            leases_found += len(leases)
            if leases_found >= SLICE_LEASES or len(found) >= SLICE_WORKERS:
                yield found
                found, leases_found = [], 0
        yield found

    async def _held(self) -> AsyncIterator[list[JobView]]:
        """Yield running jobs, LEASES_SHOWN at most."""
        engine, found = self._engine, 0
        count = min(engine.counts()["RUNNING"], LEASES_EXAMINED)
        for first in range(0, count, SLICE_LEASES):
            jobs = engine.running(self._who, first, first + SLICE_LEASES)
            found += len(jobs)
            is_over = first + SLICE_LEASES >= engine.counts()["RUNNING"]
            self.is_complete = is_over and found <= LEASES_SHOWN
            yield jobs[: max(0, len(jobs) - max(0, found - LEASES_SHOWN))]
            if found > LEASES_SHOWN:
                return
