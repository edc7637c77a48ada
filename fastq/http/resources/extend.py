"""Extend leases: one, or all of a worker with its heartbeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import LEASES_EXTENDED_MAX, WORKER_ID_BYTES_MAX
from fastq.errors import ApiError
from fastq.http.decoding import decode, read_body
from fastq.http.fields import (
    SMALL_BODY_BYTES_MAX,
    Host,
    LeaseMs,
    Time,
    Token,
    Version,
    WorkerId,
    about_worker,
    printable,
)
from fastq.http.reply import JSON, encode, time_of
from fastq.http.resources.ack import refusal_of
from fastq.http.routes import ABSENT, CHANGES, LOST, Answer, Route

HEARTBEAT_BYTES_MAX = 4 << 20


class ExtendBody(msgspec.Struct, forbid_unknown_fields=True):
    """Move a lease's deadline to `lease_ms` from now, never to an earlier time. The default is the granted time."""

    lease_token: Token
    lease_ms: LeaseMs | None = None


class LeaseHeldBody(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    lease_token: Token


class HeartbeatBody(msgspec.Struct, forbid_unknown_fields=True):
    """A worker and the leases that it holds. Each lease is extended or reported as lost."""

    worker_id: WorkerId
    leases: Annotated[list[LeaseHeldBody], Meta(max_length=LEASES_EXTENDED_MAX)] = []
    lease_ms: LeaseMs | None = None
    host: Host | None = None
    version: Version | None = None


class LeaseExtended(msgspec.Struct, forbid_unknown_fields=True):
    """`cancel_requested`: a client asked to cancel the job."""

    job_id: str
    lease_until: Time
    cancel_requested: bool


class LeaseAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """Either the new deadline, or the error that an extend gets."""

    job_id: str
    lease_until: Time | msgspec.UnsetType = msgspec.UNSET
    cancel_requested: bool | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    state: str | msgspec.UnsetType = msgspec.UNSET


class LeasesAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """The answers in the order of the request."""

    leases: list[LeaseAnswered]


_EXTEND = msgspec.json.Decoder(ExtendBody)
_HEARTBEAT = msgspec.json.Decoder(HeartbeatBody)


def extend_fields(body: bytes) -> ExtendBody:
    """Decode POST /jobs/{job_id}/extend. Raises InvalidRequest."""
    return decode(body, _EXTEND)


def heartbeat_fields(body: bytes) -> HeartbeatBody:
    """Decode POST /workers/heartbeat. Raises InvalidRequest."""
    fields = decode(body, _HEARTBEAT)
    printable(fields.worker_id, "worker_id", WORKER_ID_BYTES_MAX)
    return fields


def lease_extended(job_id: str, extended: tuple[int, bool]) -> bytes:
    return encode(_extended(job_id, extended))


def _extended(job_id: str, extended: tuple[int, bool]) -> dict[str, Any]:
    return {"job_id": job_id, "lease_until": time_of(extended[0]), "cancel_requested": extended[1]}


def leases_answered(job_ids: Sequence[str], answered: Sequence[tuple[int, bool] | ApiError]) -> bytes:
    return encode(
        {
            "leases": [
                refusal_of(job_id, one) if isinstance(one, ApiError) else _extended(job_id, one)
                for job_id, one in zip(job_ids, answered, strict=True)
            ]
        }
    )


class Extensions:
    """The responders of POST /jobs/{job_id}/extend and POST /workers/heartbeat."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def extend(self, req: Request, resp: Response, job_id: str) -> None:
        fields = extend_fields(await read_body(req, SMALL_BODY_BYTES_MAX))
        leases = [(job_id, fields.lease_token)]
        (extended,) = self._engine.extend(req.context.principal, leases, fields.lease_ms or 0)
        if isinstance(extended, ApiError):
            raise extended
        resp.content_type = JSON
        resp.data = lease_extended(job_id, extended)

    async def heartbeat(self, req: Request, resp: Response) -> None:
        fields = heartbeat_fields(await read_body(req, HEARTBEAT_BYTES_MAX))
        about = about_worker(fields.host, fields.version)
        self._engine.last_seen.note(fields.worker_id, self._engine.now_us())
        self._engine.last_seen.tell(fields.worker_id, *about)
        leases = [(lease.job_id, lease.lease_token) for lease in fields.leases]
        answered = self._engine.extend(req.context.principal, leases, fields.lease_ms or 0)
        resp.content_type = JSON
        resp.data = leases_answered([job_id for job_id, _ in leases], answered)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/{job_id}/extend",
                "jobs:ack",
                self.extend,
                "Extend a lease",
                (Answer(200, "the lease's deadline", LeaseExtended), ABSENT, LOST, *CHANGES),
                ExtendBody,
            ),
            Route(
                "POST",
                "/workers/heartbeat",
                "jobs:ack",
                self.heartbeat,
                "Extend a worker's leases",
                (Answer(200, "for each lease its deadline or an error", LeasesAnswered), *CHANGES),
                HeartbeatBody,
            ),
        ]
