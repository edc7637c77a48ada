"""Progress: a worker reports how far an attempt is."""

from __future__ import annotations

from typing import Annotated

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import NOTE_BYTES_MAX
from fastq.http.decoding import decode, read_body
from fastq.http.fields import SMALL_BODY_BYTES_MAX, Token, at_most
from fastq.http.reply import JSON, encode
from fastq.http.routes import ABSENT, CHANGES, LOST, Answer, Route


class ProgressBody(msgspec.Struct, forbid_unknown_fields=True):
    """The progress of an attempt."""

    lease_token: Token
    percent: Annotated[int, Meta(ge=0, le=100)]
    note: Annotated[
        str,
        Meta(description=f"At most {NOTE_BYTES_MAX} bytes of UTF-8.", extra_json_schema={"maxLength": NOTE_BYTES_MAX}),
    ] = ""


class ProgressNoted(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    cancel_requested: bool


_PROGRESS = msgspec.json.Decoder(ProgressBody)


def progress_fields(body: bytes) -> ProgressBody:
    """Decode POST /jobs/{job_id}/progress. Raises InvalidRequest."""
    fields = decode(body, _PROGRESS)
    at_most("note", len(fields.note.encode()), NOTE_BYTES_MAX)
    return fields


def progress_noted(job_id: str, cancel_requested: bool) -> bytes:
    return encode({"job_id": job_id, "cancel_requested": cancel_requested})


class ProgressReports:
    """The responder of POST /jobs/{job_id}/progress."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def progress(self, req: Request, resp: Response, job_id: str) -> None:
        fields = progress_fields(await read_body(req, SMALL_BODY_BYTES_MAX))
        who = req.context.principal
        cancel = self._engine.report(who, job_id, fields.lease_token, fields.percent, fields.note)
        resp.content_type = JSON
        resp.data = progress_noted(job_id, cancel)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/{job_id}/progress",
                "jobs:ack",
                self.progress,
                "Report an attempt's progress",
                (Answer(200, "the progress is on stable storage", ProgressNoted), ABSENT, LOST, *CHANGES),
                ProgressBody,
            ),
        ]
