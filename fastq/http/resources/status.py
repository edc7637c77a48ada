"""Status, without a key: health, readiness, and the OpenAPI document."""

from __future__ import annotations

from typing import Literal

import msgspec
from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.errors import ApiError, DiskFull, Draining
from fastq.http.errors import Failure, answer_error
from fastq.http.reply import JSON, encode
from fastq.http.routes import OPEN, Answer, Route

HEALTHY = "OK"


class Ready(msgspec.Struct, forbid_unknown_fields=True):
    status: Literal["ready"]


def ready() -> bytes:
    return encode({"status": "ready"})


class Status:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.document = b""  # create_app makes it from the complete route table

    async def health(self, _req: Request, resp: Response) -> None:
        resp.content_type = "text/plain; charset=utf-8"
        resp.data = HEALTHY.encode()

    async def ready(self, _req: Request, resp: Response) -> None:
        resp.content_type = JSON
        obstacle = self._obstacle()
        if obstacle is None:
            resp.data = ready()
        else:
            answer_error(resp, obstacle)
            resp.status = 503

    def _obstacle(self) -> ApiError | None:
        if self._engine.draining:
            return Draining()
        if self._engine.disk_full:
            return DiskFull()
        return None

    async def openapi(self, _req: Request, resp: Response) -> None:
        resp.content_type = JSON
        resp.data = self.document

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET", "/health", OPEN, self.health, "Whether the process runs", (Answer(200, "it runs", text=HEALTHY),)
            ),
            Route(
                "GET",
                "/ready",
                OPEN,
                self.ready,
                "Whether the server accepts work",
                (
                    Answer(200, "it does", Ready),
                    Answer(503, "the server is stopping, or its disk is full", Failure),
                ),
            ),
            Route(
                "GET",
                "/openapi.json",
                OPEN,
                self.openapi,
                "The OpenAPI document",
                (Answer(200, "the document, OpenAPI 3.1", dict),),
            ),
        ]
