"""Failed attempts, grouped by queue and error: GET /failures."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq._core import FailureGroup
from fastq.engine import Engine
from fastq.http.fields import QueueName, Time, queue_name, time_us
from fastq.http.queries import read_query
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import Answer, Route
from fastq.services.statistics import Statistics

LIMIT, LIMIT_MAX = 100, 1_000


class FailureGroupShown(msgspec.Struct, forbid_unknown_fields=True):
    """Attempts of one owner that failed in one queue with the same error."""

    queue: str
    owner_id: str
    error_code: str
    error: Annotated[str, Meta(description="The error's first line, at most 200 bytes; without one what happened.")]
    count: int
    first_at: Time
    last_at: Time
    job_id: Annotated[str, Meta(description="Of the last one.")]


class FailuresShown(msgspec.Struct, forbid_unknown_fields=True):
    """Groups of failed attempts, the one that was seen last first. Counts are since `since`."""

    groups: list[FailureGroupShown]
    since: Time


class FailuresQuery(msgspec.Struct, forbid_unknown_fields=True):
    queue: QueueName | None = None
    since: Annotated[Time, Meta(description="Only groups that were seen since then.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = LIMIT


def group_shown(group: FailureGroup) -> dict[str, Any]:
    return {
        "queue": group.queue,
        "owner_id": group.owner_id,
        "error_code": group.error_code,
        "error": group.error,
        "count": group.count,
        "first_at": time_of(group.first_us),
        "last_at": time_of(group.last_us),
        "job_id": group.job_id,
    }


class Failures:
    """The responder of GET /failures."""

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        self._engine, self._statistics = engine, statistics

    async def failures(self, req: Request, resp: Response) -> None:
        query = read_query(req, FailuresQuery)
        queue = None if query.queue is None else queue_name(query.queue, "queue")
        since_us = 0 if query.since is None else time_us(query.since, "since")
        groups = self._engine.failures(req.context.principal.sees, queue, since_us, query.limit)
        resp.content_type = JSON
        resp.data = encode(
            {
                "groups": [group_shown(group) for group in groups],
                "since": time_of(self._statistics.failures_since_us),
            }
        )

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/failures",
                "jobs:read",
                self.failures,
                "Group failed attempts by queue and error",
                (Answer(200, "the groups that the caller sees", FailuresShown),),
                query=FailuresQuery,
            )
        ]
