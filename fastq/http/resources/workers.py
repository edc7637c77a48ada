"""Workers: the leases that each holds, and when it was last seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.http.fields import Time
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import Answer, Route

if TYPE_CHECKING:
    from fastq._core import JobView

LEASES_SHOWN = 10_000
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


def shown(worker_id: str, seen_us: int, held: list[JobView], queues: tuple[str, ...]) -> dict[str, Any]:
    leases = [
        {
            "job_id": job.job_id,
            "queue": job.queue,
            "leased_at": time_of(job.leased_us),
            "lease_until": time_of(job.lease_until_us or 0),
            "cancel_requested": job.cancel_requested,
        }
        for job in sorted(held, key=lambda job: (job.leased_us, job.job_id))
    ]
    seen_us = max([seen_us, *(job.leased_us for job in held)])
    answer = {"worker_id": worker_id, "last_seen_at": time_of(seen_us), "leases": leases}
    return answer | ({"queues": list(queues)} if queues else {})


def _no_queues(_worker_id: str) -> tuple[str, ...]:
    return ()


class WorkerRoutes:
    """The responder of GET /workers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_all(self, req: Request, resp: Response) -> None:
        who = req.context.principal
        jobs, complete = self._engine.running(who, LEASES_SHOWN)
        held: dict[str, list[JobView]] = {}
        for job in jobs:
            held.setdefault(job.worker_id, []).append(job)
        seen_us = self._engine.last_seen.since(0)
        if who.sees.is_all:  # a bounded caller sees only workers that hold its jobs
            idle = self._engine.last_seen.since(self._engine.now_us() - IDLE_US).keys() - held.keys()
            complete = complete and len(idle) <= IDLE_SHOWN
            held |= {worker_id: [] for worker_id in sorted(idle)[:IDLE_SHOWN]}
        queues_of = self._engine.last_seen.queues_of if who.sees.is_all else _no_queues
        found = [shown(name, seen_us.get(name, 0), leases, queues_of(name)) for name, leases in sorted(held.items())]
        resp.content_type = JSON
        resp.data = encode({"workers": found, "complete": complete})

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
