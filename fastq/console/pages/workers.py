"""Workers: what each holds and for how long, the one that holds a job longest first."""

from __future__ import annotations

from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.services.workers import Survey, Worker

PAGE_WORKERS = 100
PAGE_DIGITS = 4
LEASES_SHOWN = 3  # of a worker in the list
LEASES_OF_ONE = 200  # of the only worker on the page
LONG_US = 600_000_000  # a job that is held for longer is marked


class WorkerPages:
    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine

    async def workers(self, visit: Visit) -> None:
        """A page of workers. `worker`: a part of the id."""
        part, number = visit.query("worker"), visit.query("page") or "1"
        need(number.isdecimal() and len(number) <= PAGE_DIGITS and int(number) > 0, "page must be a number from 1")
        survey = Survey(self._engine, visit.who)
        found: list[Worker] = []
        async with self._engine.turns.of(visit.who.key_id) as turn:
            async for workers in survey.slices():
                found += [worker for worker in workers if part in worker.worker_id]
                await turn.pause()
        found.sort(key=_place)
        first = (int(number) - 1) * PAGE_WORKERS
        shown = found[first : first + PAGE_WORKERS]
        now_us = self._engine.now_us()
        visit.show(
            "workers.html",
            workers=shown,
            leases_shown=LEASES_OF_ONE if len(found) == 1 else LEASES_SHOWN,
            part=part,
            count=len(found),
            holding=sum(bool(worker.leases) for worker in found),
            held=sum(len(worker.leases) for worker in found),
            long=sum(0 < worker.held_since_us < now_us - LONG_US for worker in found),
            is_complete=survey.is_complete,
            sees_all=visit.who.sees.is_all,
            long_us=LONG_US,
            silent_us=self._engine.options.lease_ms * 1000,
            page=int(number),
            pages=(len(found) + PAGE_WORKERS - 1) // PAGE_WORKERS,
        )

    def pages(self) -> list[Page]:
        return [Page("GET", "/console/workers", "jobs:read", self.workers)]


def _place(worker: Worker) -> tuple[bool, int]:
    """Workers with jobs come first, the longest held job first; then idle ones, the latest seen first."""
    return (False, worker.held_since_us) if worker.leases else (True, -worker.seen_us)
