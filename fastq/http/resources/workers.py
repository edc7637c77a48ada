"""Workers: the leases that each holds, and when it was last seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.http.fields import Time
from fastq.http.long_answers import array_of
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import Answer, Route
from fastq.services.workers import SLICE_LEASES, Survey, Worker

if TYPE_CHECKING:
    from fastq._core import JobView


class LeaseHeld(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    queue: str
    leased_at: Time
    lease_until: Time
    cancel_requested: bool


class WorkerShown(msgspec.Struct, forbid_unknown_fields=True):
    """A worker. Workers that send no `worker_id` are shown as one with an empty id.

    `last_seen_at`: its last lease or heartbeat. Heartbeats before the server's start are not known. `queues`: the first
    8 of those that it last asked for a job. `host`, `version`: what it says about itself with its heartbeats. These
    three are only for keys that see every job.
    """

    worker_id: str
    last_seen_at: Time
    leases: list[LeaseHeld]
    queues: list[str] | msgspec.UnsetType = msgspec.UNSET
    host: str | msgspec.UnsetType = msgspec.UNSET
    version: str | msgspec.UnsetType = msgspec.UNSET


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
        survey = Survey(self._engine, req.context.principal)

        async def slices() -> AsyncIterator[list[Any]]:
            async for workers in survey.slices():
                yield []
                for worker in workers:
                    async for piece in _shown(worker):
                        yield piece

        workers = await array_of(self._engine, req, slices())
        resp.content_type = JSON
        resp.data = b'{"workers":%s,"complete":%s}' % (workers, encode(survey.is_complete))

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


async def _shown(worker: Worker) -> AsyncIterator[list[Any]]:
    """Yield a worker in the last piece; the pieces before it are empty: one worker may hold all leases."""
    leases: list[bytes] = []
    for at in range(0, len(worker.leases), SLICE_LEASES):
        if at:
            yield []
        leases.append(encode([lease_shown(job) for job in worker.leases[at : at + SLICE_LEASES]])[1:-1])
    shown = orjson.Fragment(b"[" + b",".join(leases) + b"]")
    answer: dict[str, Any] = {
        "worker_id": worker.worker_id,
        "last_seen_at": time_of(worker.seen_us),
        "leases": shown,
    }
    said = {"queues": list(worker.queues), "host": worker.host, "version": worker.version}
    yield [answer | {name: value for name, value in said.items() if value}]
