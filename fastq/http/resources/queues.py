"""Queues: list, show, set, delete settings, pause, resume, purge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import MANAGE, Principal
from fastq.errors import InvalidRequest
from fastq.http.decoding import decode, read_body
from fastq.http.errors import Failure
from fastq.http.fields import (
    SMALL_BODY_BYTES_MAX,
    BackoffBody,
    Time,
    ahead_us,
    backoff_of,
    printable,
    queue_name,
    text_of,
    time_us,
)
from fastq.http.long_answers import array_of, page_of
from fastq.http.queries import read_query
from fastq.http.reply import JSON, encode, time_of
from fastq.http.resources.bulk import BulkDone, PaceBody, bulk_answer
from fastq.http.resources.stats import movement
from fastq.http.routes import CHANGES, DISK_FULL, TOO_MUCH, Answer, Route
from fastq.services.bulk import WAITING, Bulk, Filter, Order
from fastq.services.queue_reasons import reason_of
from fastq.services.queues import PAUSE_REASON_BYTES_MAX, Queues, QueueSettings, RateLimit, Retention, Shown

PAGE_MAX = 1_000
NO_SUCH = Answer(404, "the queue has neither jobs nor settings", Failure)


Reason = Annotated[str, text_of(PAUSE_REASON_BYTES_MAX)]


class RateLimitBody(RateLimit, frozen=True, forbid_unknown_fields=True):
    """At most `n` leases in `per_ms` milliseconds, spread evenly. The token bucket is empty when the server starts."""


class RetentionBody(Retention, frozen=True, forbid_unknown_fields=True):
    """How long finished jobs are kept, and how many of each state."""


class QueueBody(QueueSettings, frozen=True, forbid_unknown_fields=True):
    """All settings of a queue. A member that is left out means no limit, or the server's setting.

    `pause_reason` and `pause_until` are dropped unless it is paused.
    """

    pause_reason: Reason | None = None
    pause_until: Annotated[Time, Meta(description="The server resumes the queue then.")] | None = None
    rate_limit: RateLimitBody | None = None
    backoff: BackoffBody | None = None
    retention: RetentionBody | None = None


class PauseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why the queue is paused, and when the server resumes it. Both replace those of an earlier pause."""

    reason: Reason | None = None
    until: Annotated[Time, Meta(description="In the future, at most 10 years.")] | None = None


class QueueWhy(msgspec.Struct, forbid_unknown_fields=True):
    """Why its ready jobs are not leased now, in `words` for a person.

    `code`: `paused`; `empty`: no job is ready; `concurrency`, `rate_limit`, `group_concurrency`: the limit that is
    reached; `no_worker`: no worker asked for its jobs in the last minute; `moving`: nothing holds them back.
    """

    code: Literal["paused", "empty", "concurrency", "rate_limit", "group_concurrency", "no_worker", "moving"]
    words: str


class QueueShown(msgspec.Struct, forbid_unknown_fields=True):
    """A queue as it is now. To a client key it shows the jobs of its owner, without `groups`, ages and rates.

    `ready` counts jobs that are due, `waiting` those with a later run_at, retries included. `oldest_ready_at`
    says since when the oldest ready job has been due, within 3% of its age; `oldest_ready_s` for how long, 0: none is.
    The rates are of the last 10 seconds: jobs submitted and redriven, jobs acked, attempts that failed.
    """

    name: str
    settings: QueueBody
    ready: int
    waiting: int
    running: int
    finished: dict[str, int]
    why: QueueWhy
    groups: int | msgspec.UnsetType = msgspec.UNSET
    oldest_ready_at: Time | msgspec.UnsetType = msgspec.UNSET
    oldest_ready_s: float | msgspec.UnsetType = msgspec.UNSET
    in_per_s: float | msgspec.UnsetType = msgspec.UNSET
    out_per_s: float | msgspec.UnsetType = msgspec.UNSET
    failed_per_s: float | msgspec.UnsetType = msgspec.UNSET


class QueuesShown(msgspec.Struct, forbid_unknown_fields=True):
    """A page of queues by name. `cursor`: there are more."""

    queues: list[QueueShown]
    cursor: str | msgspec.UnsetType = msgspec.UNSET


class QueuesQuery(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_MAX
    cursor: Annotated[str, Meta(max_length=64, description="From the previous page.")] = ""


class PauseQuery(msgspec.Struct, forbid_unknown_fields=True):
    create: Annotated[
        Literal["true", "false"], Meta(description="Pause a queue that has neither jobs nor settings.")
    ] = "false"


_PACE = msgspec.json.Decoder(PaceBody)
_PAUSE = msgspec.json.Decoder(PauseBody)
_SETTINGS = msgspec.json.Decoder(QueueBody)
_EXAMPLE = {
    "rate_limit": {"n": 100, "per_ms": 1_000},
    "concurrency": 50,
    "group_concurrency": 5,
    "fair": True,
    "backoff": {"base_ms": 500, "factor": 2, "cap_ms": 60_000},
    "retention": {"acked_ms": 3_600_000, "max": 10_000},
    "max_depth": 100_000,
}


def settings_of(body: bytes, now_us: int) -> QueueSettings:
    """Decode PUT /queues/{queue}. Raises InvalidRequest."""
    fields = decode(body, _SETTINGS)
    if fields.backoff is not None:
        backoff_of(fields.backoff)
    reason, until = _pause(fields.pause_reason, fields.pause_until, "pause_", now_us)
    settings = msgspec.convert(msgspec.to_builtins(fields), QueueSettings)
    if not settings.paused:
        reason = until = None
    return msgspec.structs.replace(settings, pause_reason=reason, pause_until=until)


def pause_of(body: bytes, now_us: int) -> tuple[str | None, str | None]:
    """Decode POST /queues/{queue}/pause, which may be empty: the reason, and the end in UTC. Raises InvalidRequest."""
    fields = decode(body, _PAUSE) if body else PauseBody()
    reason, until = _pause(fields.reason, fields.until, "", now_us)
    if fields.until is not None and time_us(fields.until, "until") <= now_us:
        raise InvalidRequest("until must be in the future")
    return reason, until


def _pause(reason: str | None, until: str | None, prefix: str, now_us: int) -> tuple[str | None, str | None]:
    if reason is not None:
        reason = printable(reason, f"{prefix}reason", PAUSE_REASON_BYTES_MAX)
    if until is not None:
        until = time_of(ahead_us(until, f"{prefix}until", now_us)).isoformat() + "Z"
    return reason, until


class QueueRoutes:
    """The responders of /queues."""

    def __init__(self, engine: Engine, queues: Queues, bulk: Bulk) -> None:
        self._engine, self._queues, self._bulk = engine, queues, bulk

    def _shown(self, queue: Shown, who: Principal) -> dict[str, Any]:
        view, settings = queue
        reason = reason_of(self._engine, view, settings)
        answer = {
            "name": view.name,
            "settings": msgspec.to_builtins(settings),
            "ready": view.ready,
            "waiting": view.waiting,
            "running": view.running,
            "finished": view.finished,
            "why": {"code": reason.code, "words": reason.words},
        }
        if who.oversees.owner_id is None:
            answer["groups"] = view.groups
            answer |= movement(view, self._engine.now_us())
        if view.oldest_ready_us:
            answer["oldest_ready_at"] = time_of(view.oldest_ready_us)
        return answer

    async def page(self, req: Request, resp: Response) -> None:
        query = read_query(req, QueuesQuery)
        who, after = req.context.principal, ""

        async def slices() -> AsyncIterator[list[Any]]:
            nonlocal after
            async for page in self._queues.pages(who, query.cursor, query.limit):
                after = page.after
                yield [self._shown(queue, who) for queue in page.queues]

        queues = await array_of(self._engine, req, slices())
        resp.content_type = JSON
        resp.data = page_of("queues", queues, cursor=after)

    async def show(self, req: Request, resp: Response, queue: str) -> None:
        who = req.context.principal
        _answer(resp, self._shown(self._queues.show(who, queue), who))

    async def put(self, req: Request, resp: Response, queue: str) -> None:
        name = queue_name(queue, "queue")
        settings = settings_of(await read_body(req, SMALL_BODY_BYTES_MAX), self._engine.now_us())
        who = req.context.principal
        _answer(resp, self._shown(self._queues.put(who, name, settings), who))

    async def delete(self, req: Request, resp: Response, queue: str) -> None:
        self._queues.delete(req.context.principal, queue)
        resp.status = 204

    async def pause(self, req: Request, resp: Response, queue: str) -> None:
        name, create = queue_name(queue, "queue"), read_query(req, PauseQuery).create == "true"
        reason, until = pause_of(await read_body(req, SMALL_BODY_BYTES_MAX), self._engine.now_us())
        who = req.context.principal
        _answer(resp, self._shown(self._queues.pause(who, name, create, reason, until), who))

    async def resume(self, req: Request, resp: Response, queue: str) -> None:
        who = req.context.principal
        _answer(resp, self._shown(self._queues.resume(who, queue), who))

    async def purge(self, req: Request, resp: Response, queue: str) -> None:
        body = await read_body(req, SMALL_BODY_BYTES_MAX)
        pace = decode(body, _PACE) if body else PaceBody()
        self._queues.need(req.context.principal, queue, is_known=pace.cursor is not None)
        order = Order("delete", Filter(states=WAITING, queue=queue), "queue.purge", queue)
        _answer(resp, await bulk_answer(req, self._bulk, order, pace))

    def routes(self) -> list[Route]:
        return [*self._looking(), *self._changing()]

    def _looking(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/queues",
                "jobs:read",
                self.page,
                "List the queues that have jobs or settings; a client key sees those with jobs of its owner",
                (Answer(200, "a page of queues", QueuesShown),),
                query=QueuesQuery,
            ),
            Route(
                "GET",
                "/queues/{queue}",
                "jobs:read",
                self.show,
                "Show a queue",
                (Answer(200, "the queue", QueueShown), NO_SUCH),
            ),
        ]

    def _changing(self) -> list[Route]:
        served = Answer(200, "the settings are on stable storage", QueueShown)
        full = Answer(409, "the limit of queues with settings is reached", Failure)
        return [
            Route(
                "PUT",
                "/queues/{queue}",
                MANAGE,
                self.put,
                "Set a queue's settings",
                (served, full, *CHANGES),
                QueueBody,
                example=_EXAMPLE,
            ),
            Route(
                "DELETE",
                "/queues/{queue}",
                MANAGE,
                self.delete,
                "Delete a queue's settings",
                (
                    Answer(204, "the settings are deleted"),
                    NO_SUCH,
                    Answer(409, "the queue has unfinished jobs", Failure),
                    *TOO_MUCH,
                    DISK_FULL,
                ),
            ),
            Route(
                "POST",
                "/queues/{queue}/pause",
                MANAGE,
                self.pause,
                "Pause a queue: lease none of its jobs; running jobs go on",
                (served, NO_SUCH, full, *CHANGES),
                PauseBody,
                query=PauseQuery,
                body_optional=True,
            ),
            Route(
                "POST",
                "/queues/{queue}/resume",
                MANAGE,
                self.resume,
                "Resume a queue",
                (served, NO_SUCH, full, *TOO_MUCH, DISK_FULL),
            ),
            Route(
                "POST",
                "/queues/{queue}/purge",
                MANAGE,
                self.purge,
                "Delete the waiting jobs of a queue, in slices",
                (Answer(200, "the numbers of jobs", BulkDone), NO_SUCH, *CHANGES),
                PaceBody,
                body_optional=True,
            ),
        ]


def _answer(resp: Response, answer: Any) -> None:
    resp.content_type = JSON
    resp.data = encode(answer)
