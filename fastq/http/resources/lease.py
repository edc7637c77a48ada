"""Lease jobs."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
import orjson
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import (
    DEFAULT_QUEUE,
    LEASES_MAX,
    QUEUES_MAX,
    REQUEST_ID_BYTES_MAX,
    WAIT_MS_MAX,
    WEIGHT_MAX,
    WORKER_ID_BYTES_MAX,
    Lease,
)
from fastq.engine.results import LeasedJob
from fastq.http.authentication import confirmed
from fastq.http.decoding import decode, read_body
from fastq.http.errors import Failure, NoJobsAvailable
from fastq.http.fields import SMALL_BODY_BYTES_MAX, LeaseMs, QueueName, Time, WorkerId, at_most, queue_name
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import CHANGES, Answer, Route
from fastq.http.scope import CONNECTION, GRANTED


class LeaseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Options of a lease. A job that is leased without a body may be acked without its token."""

    lease_ms: LeaseMs | None = None
    queues: (
        Annotated[
            list[QueueName],
            Meta(
                min_length=1,
                max_length=QUEUES_MAX,
                description="In strict order: the first queue with a ready job. The default is the queue `default`.",
            ),
        ]
        | Annotated[
            dict[str, Annotated[int, Meta(ge=1, le=WEIGHT_MAX)]],
            Meta(
                min_length=1,
                max_length=QUEUES_MAX,
                description="By weight: the share of each queue while all of them have ready jobs.",
                extra_json_schema={"propertyNames": {"pattern": "^[A-Za-z0-9._-]{1,64}$"}},
            ),
        ]
        | None
    ) = None
    max: Annotated[int, Meta(ge=1, le=LEASES_MAX, description="With `max` the answer has `jobs`.")] | None = None
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX, description="How long to wait for a ready job.")] | None = None
    request_id: Annotated[
        str,
        Meta(
            description=f"A repeated id gets the same leases for a minute. At most {REQUEST_ID_BYTES_MAX} bytes.",
            extra_json_schema={"maxLength": REQUEST_ID_BYTES_MAX},
        ),
    ] = ""
    worker_id: WorkerId = ""


class JobLeased(msgspec.Struct, forbid_unknown_fields=True):
    """A lease. `group`, `tags` and `traceparent` are left out if the job has none.

    To a request without a body, `payload` is always a string: a payload that is not a string is its JSON text.
    """

    job_id: str
    payload: msgspec.Raw
    lease_until: Time
    attempt: int
    lease_token: str
    queue: str
    priority: int
    max_retries: int
    created_at: Time
    group: str | msgspec.UnsetType = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    traceparent: str | msgspec.UnsetType = msgspec.UNSET


class JobsLeased(msgspec.Struct, forbid_unknown_fields=True):
    """The answer to a request with `max`: at most that many leases, none if no job is ready."""

    jobs: list[JobLeased]


_LEASE = msgspec.json.Decoder(LeaseBody)


def lease_command(body: bytes) -> tuple[Lease, bool]:
    """Decode POST /jobs/lease. An empty body is the original API's request.

    Returns:
        The command, and whether the request has `max`, so that the answer has `jobs`.
    Raises:
        InvalidRequest.
    """
    if not body:
        return Lease(), False
    fields = decode(body, _LEASE)
    at_most("worker_id", len(fields.worker_id.encode()), WORKER_ID_BYTES_MAX)
    at_most("request_id", len(fields.request_id.encode()), REQUEST_ID_BYTES_MAX)
    queues = tuple(dict.fromkeys(queue_name(name, "queues") for name in fields.queues or (DEFAULT_QUEUE,)))
    weights = tuple(fields.queues.values()) if isinstance(fields.queues, dict) else ()
    command = Lease(
        fields.lease_ms, fields.worker_id, had_body=True, queues=queues, limit=fields.max or 1,
        wait_ms=fields.wait_ms or 0, request_id=fields.request_id, weights=weights,
    )  # fmt: skip
    return command, fields.max is not None


def job_leased(job: LeasedJob, payload_as_string: bool) -> bytes:
    return encode(_leased(job, payload_as_string))


def jobs_leased(jobs: list[LeasedJob]) -> bytes:
    return encode({"jobs": [_leased(job, False) for job in jobs]})


def _leased(job: LeasedJob, payload_as_string: bool) -> dict[str, Any]:
    payload: Any = orjson.Fragment(job.payload)
    if payload_as_string and not job.payload.startswith(b'"'):
        payload = job.payload.decode()
    answer = {
        "job_id": job.job_id,
        "payload": payload,
        "lease_until": time_of(job.lease_until_us),
        "attempt": job.attempt,
        "lease_token": job.token,
        "queue": job.queue,
        "priority": job.priority,
        "max_retries": job.max_retries,
        "created_at": time_of(job.created_us),
    }
    if job.group:
        answer["group"] = job.group
    if job.tags:
        answer["tags"] = job.tags
    if job.traceparent:
        answer["traceparent"] = job.traceparent
    return answer


class Leases:
    """The responder of POST /jobs/lease."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def lease(self, req: Request, resp: Response) -> None:
        body = await read_body(req, SMALL_BODY_BYTES_MAX)
        command, many = lease_command(body)
        connection = req.scope.get(CONNECTION)
        granted = req.scope.get(GRANTED)
        log_id = req.context.request_id
        leased = await self._engine.deliver(granted.take(), connection, log_id) if granted is not None else []
        if not leased and (granted is None or (connection is not None and not connection.is_closed)):
            leased = await self._engine.lease(await confirmed(req), command, connection, log_id)
        if not leased and not many:
            raise NoJobsAvailable
        resp.context.undo = partial(self._engine.take_back, leased)
        resp.content_type = JSON
        if many:
            resp.data = jobs_leased(leased)
        else:
            resp.data = job_leased(leased[0], payload_as_string=not command.had_body)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/lease",
                "jobs:lease",
                self.lease,
                "Lease the next job",
                (
                    Answer(200, "the lease; with `max` the leases", (JobLeased, JobsLeased)),
                    Answer(404, "no job is ready", Failure),
                    *CHANGES,
                ),
                LeaseBody,
                body_optional=True,
                example={"queues": {"mail": 3, "film": 1}, "max": 10, "wait_ms": 20000, "worker_id": "w1"},
            ),
        ]
