"""Workers: what each holds and for how long, the one that holds a job longest first."""

from __future__ import annotations

from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.services.workers import Survey, Worker

PAGE_WORKERS = 50
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
        found: list[tuple[bool, int, str, Worker]] = []
        holding = held = long = 0
        before_us = self._engine.now_us() - LONG_US
        async with self._engine.turns.of(visit.who.key_id) as turn:
            async for workers in survey.slices():
                matching = [worker for worker in workers if part in worker.worker_id]
                found += [_placed(worker) for worker in matching]
                holding += sum(bool(worker.leases) for worker in matching)
                held += sum(len(worker.leases) for worker in matching)
                long += sum(0 < worker.held_since_us < before_us for worker in matching)
                await turn.pause()
            found.sort()
            await turn.pause()
        first = (int(number) - 1) * PAGE_WORKERS
        visit.show(
            "workers.html",
            workers=[worker for *_, worker in found[first : first + PAGE_WORKERS]],
            leases_shown=LEASES_OF_ONE if len(found) == 1 else LEASES_SHOWN,
            part=part,
            count=len(found),
            holding=holding,
            held=held,
            long=long,
            is_complete=survey.is_complete,
            sees_all=visit.who.sees.is_all,
            long_us=LONG_US,
            silent_us=self._engine.options.lease_ms * 1000,
            page=int(number),
            pages=(len(found) + PAGE_WORKERS - 1) // PAGE_WORKERS,
        )

    def pages(self) -> list[Page]:
        return [Page("GET", "/console/workers", "jobs:read", self.workers)]


def _placed(worker: Worker) -> tuple[bool, int, str, Worker]:
    """Sorts workers: those with jobs first, the longest held job first; then idle ones, the latest seen first."""
    order_us = worker.held_since_us if worker.leases else -worker.seen_us
    return not worker.leases, order_us, worker.worker_id, worker
