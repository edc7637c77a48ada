"""Submit a job again: a new job with the payload and the options of another one."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq._core import CREATED
from fastq.engine import Engine
from fastq.engine.commands import MAX_RETRIES_MAX, PRIORITY_MAX, PRIORITY_MIN, Resubmit
from fastq.errors import CleanerBehind, InvalidRequest, Overloaded
from fastq.http.authentication import confirmed
from fastq.http.decoding import decode, null_as_empty, read_body
from fastq.http.fields import (
    SMALL_BODY_BYTES_MAX,
    Delay,
    QueueName,
    Time,
    ahead_us,
    idempotency_key_of,
    queue_name,
    traceparent_of,
)
from fastq.http.reply import JSON
from fastq.http.resources.submit import JobCreated, job_created
from fastq.http.routes import ABSENT, BEHIND_OR_FULL, CHANGES, KEY_USED, Answer, Route


class ResubmitBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What the new job has otherwise than the old one. It is due now, unless `delay_ms` or `run_at` says when."""

    queue: QueueName | None = None
    priority: Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)] | None = None
    delay_ms: Delay | None = None
    run_at: Time | None = None
    max_retries: Annotated[int, Meta(ge=0, le=MAX_RETRIES_MAX)] | None = None


_RESUBMIT = msgspec.json.Decoder(ResubmitBody)


def resubmit_command(
    job_id: str, body: bytes, now_us: int, idempotency_key: str = "", traceparent: str = ""
) -> Resubmit:
    """Decode POST /jobs/{job_id}/resubmit; the body may be empty. Raises InvalidRequest."""
    fields = decode(null_as_empty(body), _RESUBMIT) if body else ResubmitBody()
    if fields.run_at is not None and fields.delay_ms is not None:
        raise InvalidRequest("run_at must be left out when delay_ms is given")
    digest = sha256(job_id.encode() + msgspec.json.encode(fields)).digest()
    return Resubmit(
        job_id,
        queue=None if fields.queue is None else queue_name(fields.queue, "queue"),
        priority=fields.priority,
        delay_ms=fields.delay_ms,
        run_at_us=None if fields.run_at is None else ahead_us(fields.run_at, "run_at", now_us),
        max_retries=fields.max_retries,
        traceparent=traceparent,
        idempotency_key=idempotency_key,
        body_digest=int.from_bytes(digest[:8], "little") if idempotency_key else 0,
    )


class Resubmits:
    """The responder of POST /jobs/{job_id}/resubmit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def resubmit(self, req: Request, resp: Response, job_id: str) -> None:
        body = await read_body(req, SMALL_BODY_BYTES_MAX)
        traceparent = traceparent_of(req.get_header("traceparent"))
        command = resubmit_command(job_id, body, self._engine.now_us(), idempotency_key_of(req), traceparent)
        submit, owner_id = await self._engine.copy_of(req.context.principal, command)
        who = await confirmed(req)
        try:
            stored = self._engine.submit(who, submit, owner_id)
        except (CleanerBehind, Overloaded):
            await self._engine.caught_up()
            stored = self._engine.submit(await confirmed(req), submit, owner_id)
        resp.status = 201 if stored[1] == CREATED else 200
        resp.content_type = JSON
        resp.data = job_created(stored)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/{job_id}/resubmit",
                "jobs:submit",
                self.resubmit,
                "Submit a job again, in any state: a new job with its payload and options",
                (
                    Answer(201, "the new job is on stable storage", JobCreated),
                    Answer(200, "the idempotency key is known: the job of the first request", JobCreated),
                    ABSENT,
                    KEY_USED,
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                ResubmitBody,
                headers=("Idempotency-Key", "traceparent"),
                body_optional=True,
            ),
        ]
