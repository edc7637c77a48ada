"""Workers: the leases that each holds, and when it was last seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.http.fields import Time
from fastq.http.long_answers import array_of
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import Answer, Route

if TYPE_CHECKING:
    from fastq._core import JobView

LEASES_SHOWN = 10_000
LEASES_EXAMINED = 100_000
SLICE_LEASES = 200  # of a piece of the answer
IDLE_SHOWN = 1_000
IDLE_US = 3_600_000_000  # how long a worker without a lease is shown


class LeaseHeld(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    queue: str
    leased_at: Time
    lease_until: Time
    cancel_requested: bool


class WorkerShown(msgspec.Struct, forbid_unknown_fields=True):
    """A worker. Workers that send no `worker_id` are shown as one with an empty id.

    `last_seen_at`: its last lease or heartbeat. Heartbeats before the server's start are not known. `queues`: the first
    8 of those that it last asked for a job; only for keys that see every job.
    """

    worker_id: str
    last_seen_at: Time
    leases: list[LeaseHeld]
    queues: list[str] | msgspec.UnsetType = msgspec.UNSET


class WorkersShown(msgspec.Struct, forbid_unknown_fields=True):
    """The workers by `worker_id`. `complete` is false if there are more leases or idle workers."""

    workers: list[WorkerShown]
    complete: bool


def lease_shown(job: JobView) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "queue": job.queue,
        "leased_at": time_of(job.leased_us),
        "lease_until": time_of(job.lease_until_us or 0),
        "cancel_requested": job.cancel_requested,
    }


class WorkerRoutes:
    """The responder of GET /workers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_all(self, req: Request, resp: Response) -> None:
        who, complete = req.context.principal, True

        async def slices() -> AsyncIterator[list[Any]]:
            nonlocal complete
            held: dict[str, dict[str, JobView]] = {}
            async for jobs, is_all in self._held(who):
                complete = is_all
                for job in jobs:
                    held.setdefault(job.worker_id, {})[job.job_id] = job
                yield []
            seen_us = self._engine.last_seen.since(0)
            if who.sees.is_all:  # a bounded caller sees only workers that hold its jobs
                idle = self._engine.last_seen.since(self._engine.now_us() - IDLE_US).keys() - held.keys()
                complete = complete and len(idle) <= IDLE_SHOWN
                held |= {worker_id: {} for worker_id in sorted(idle)[:IDLE_SHOWN]}
            yield []
            for worker_id, of_worker in sorted(held.items()):
                queues = self._engine.last_seen.queues_of(worker_id) if who.sees.is_all else ()
                async for piece in _shown(worker_id, seen_us.get(worker_id, 0), list(of_worker.values()), queues):
                    yield piece

        workers = await array_of(self._engine, req, slices())
        resp.content_type = JSON
        resp.data = b'{"workers":%s,"complete":%s}' % (workers, encode(complete))

    async def _held(self, who: Principal) -> AsyncIterator[tuple[list[JobView], bool]]:
        """Yield running jobs, LEASES_SHOWN or a few more, and whether these are all, until now."""
        count, found = min(self._engine.counts()["RUNNING"], LEASES_EXAMINED), 0
        for first in range(0, count, SLICE_LEASES):
            jobs = self._engine.running(who, first, first + SLICE_LEASES)
            found += len(jobs)
            is_over = first + SLICE_LEASES >= self._engine.counts()["RUNNING"]
            yield jobs[: max(0, len(jobs) - max(0, found - LEASES_SHOWN))], is_over and found <= LEASES_SHOWN
            if found > LEASES_SHOWN:
                return

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/workers",
                "jobs:read",
                self.list_all,
                "List the workers and their leases",
                (Answer(200, "the leases that the caller may see, by worker", WorkersShown),),
            )
        ]


async def _shown(
    worker_id: str, seen_us: int, held: list[JobView], queues: tuple[str, ...]
) -> AsyncIterator[list[Any]]:
    """Yield a worker in the last piece; the pieces before it are empty: one worker may hold all leases."""
    held.sort(key=lambda job: (job.leased_us, job.job_id))
    leases: list[bytes] = []
    for at in range(0, len(held), SLICE_LEASES):
        if at:
            yield []
        leases.append(encode([lease_shown(job) for job in held[at : at + SLICE_LEASES]])[1:-1])
    seen_us = max([seen_us, *(job.leased_us for job in held[-1:])])
    shown = orjson.Fragment(b"[" + b",".join(leases) + b"]")
    answer: dict[str, Any] = {"worker_id": worker_id, "last_seen_at": time_of(seen_us), "leases": shown}
    yield [answer | ({"queues": list(queues)} if queues else {})]
