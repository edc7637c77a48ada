"""Change one job: cancel, redrive, edit, delete."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import PRIORITY_MAX, PRIORITY_MIN, Edit
from fastq.errors import InvalidRequest
from fastq.http.decoding import decode, read_body
from fastq.http.errors import Failure
from fastq.http.fields import (
    BODY_BYTES_MAX,
    SMALL_BODY_BYTES_MAX,
    Delay,
    QueueName,
    State,
    Time,
    ahead_us,
    payload_of,
    queue_name,
)
from fastq.http.reply import JSON, encode
from fastq.http.routes import ABSENT, BEHIND_OR_FULL, CHANGES, Answer, Route

RUNS = Answer(409, "the job is running", Failure)


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """With `force` a running job ends at once, and its worker loses the lease."""

    force: bool = False


class EditBody(msgspec.Struct, forbid_unknown_fields=True):
    """The fields to change, at least one. `delay_ms` excludes `run_at`."""

    payload: Annotated[
        msgspec.Raw, Meta(description="As in a submit.", extra_json_schema={"not": {"enum": [None, ""]}})
    ] = msgspec.field(default_factory=msgspec.Raw)
    priority: Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)] | None = None
    delay_ms: Delay | None = None
    run_at: Time | None = None
    queue: QueueName | None = None


class JobChanged(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    state: State


class JobDeleted(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    deleted: Literal[True]


CHANGED = Answer(200, "the change is on stable storage", JobChanged)

_CANCEL = msgspec.json.Decoder(CancelBody)
_EDIT = msgspec.json.Decoder(EditBody)


def cancel_force(body: bytes) -> bool:
    """Decode POST /jobs/{job_id}/cancel. An empty body has no `force`. Raises InvalidRequest."""
    return decode(body, _CANCEL).force if body else False


def edit_command(body: bytes, now_us: int) -> Edit:
    """Decode PATCH /jobs/{job_id}. `run_at` is at most 10 years after `now_us`. Raises InvalidRequest."""
    fields = decode(body, _EDIT)
    payload = bytes(fields.payload) or None
    if payload is not None:
        payload = payload_of(fields.payload)
    run_at_us = None
    if fields.run_at is not None:
        if fields.delay_ms is not None:
            raise InvalidRequest("run_at must be left out when delay_ms is given")
        run_at_us = ahead_us(fields.run_at, "run_at", now_us)
    queue = None if fields.queue is None else queue_name(fields.queue, "queue")
    edit = Edit(payload, fields.priority, fields.delay_ms, run_at_us, queue)
    if edit == Edit():
        raise InvalidRequest("one of payload, priority, delay_ms, run_at and queue is required")
    return edit


def job_changed(job_id: str, state: str) -> bytes:
    return encode({"job_id": job_id, "state": state})


def job_deleted(job_id: str) -> bytes:
    return encode({"job_id": job_id, "deleted": True})


class Changes:
    """The responders. A client key changes its owner's jobs, an admin key all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def cancel(self, req: Request, resp: Response, job_id: str) -> None:
        force = cancel_force(await read_body(req, SMALL_BODY_BYTES_MAX))
        state = self._engine.cancel(req.context.principal, job_id, force)
        resp.content_type = JSON
        resp.data = job_changed(job_id, state)

    async def redrive(self, req: Request, resp: Response, job_id: str) -> None:
        state = self._engine.redrive(req.context.principal, job_id)
        resp.content_type = JSON
        resp.data = job_changed(job_id, state)

    async def edit(self, req: Request, resp: Response, job_id: str) -> None:
        edit = edit_command(await read_body(req, BODY_BYTES_MAX), self._engine.now_us())
        state = await self._engine.edit(req.context.principal, job_id, edit)
        resp.content_type = JSON
        resp.data = job_changed(job_id, state)

    async def delete(self, req: Request, resp: Response, job_id: str) -> None:
        self._engine.delete(req.context.principal, job_id)
        resp.content_type = JSON
        resp.data = job_deleted(job_id)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/{job_id}/cancel",
                "jobs:submit",
                self.cancel,
                "Cancel a job",
                (
                    Answer(
                        200,
                        "CANCELLED; or RUNNING, and the worker sees cancel_requested at its next heartbeat",
                        JobChanged,
                    ),
                    ABSENT,
                    Answer(409, "the job is finished", Failure),
                    *CHANGES,
                ),
                CancelBody,
                body_optional=True,
            ),
            Route(
                "POST",
                "/jobs/{job_id}/redrive",
                "jobs:submit",
                self.redrive,
                "Redrive a dead letter: make it ready with 0 attempts",
                (
                    CHANGED,
                    ABSENT,
                    Answer(409, "the job is not DEAD, or another unfinished job has its unique key", Failure),
                    *CHANGES,
                ),
            ),
            Route(
                "PATCH",
                "/jobs/{job_id}",
                "jobs:submit",
                self.edit,
                "Edit a waiting job or a dead letter",
                (
                    CHANGED,
                    ABSENT,
                    Answer(
                        409, "the job is running or finished, or another unfinished job has its unique key", Failure
                    ),
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                EditBody,
            ),
            Route(
                "DELETE",
                "/jobs/{job_id}",
                "jobs:submit",
                self.delete,
                "Delete a job that is not running",
                (Answer(200, "the job is deleted", JobDeleted), ABSENT, RUNS, *CHANGES),
            ),
        ]
