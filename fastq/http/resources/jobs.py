"""Read jobs: one, a page of them, and the reason why one does not run. A read of one job may wait for its end."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import orjson
from falcon.asgi import Request, Response
from msgspec import UNSET, Meta, UnsetType

from fastq._core import FINISHED, error_line
from fastq.engine import Engine
from fastq.engine.commands import (
    ERROR_CODE_BYTES_MAX,
    PAGE_EXAMINED_MAX,
    PAGE_JOBS,
    PAGE_JOBS_MAX,
    SEARCH_BYTES_MAX,
    TAG_BYTES_MAX,
    WAIT_MS_MAX,
    WORKER_ID_BYTES_MAX,
    Find,
)
from fastq.engine.results import End, JobStatus, Why
from fastq.errors import InvalidRequest, JobNotFound
from fastq.http.errors import Wrapped
from fastq.http.fields import Outcome, QueueName, State, Time, printable, queue_name, searched, text_of, time_us
from fastq.http.long_answers import array_of, page_of
from fastq.http.queries import read_params, read_query
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import ABSENT, Answer, Route
from fastq.http.scope import CONNECTION
from fastq.services.queues import Queues

if TYPE_CHECKING:
    from fastq._core import JobView

WAITING = ("SCHEDULED", "RETRY")
CHECK_BYTES = 4
CURSOR_CHARACTERS_MAX = 64
ORIGINAL_AGENT = "Go-http-client/"  # what Go sends for a program that sets none


class JobQuery(msgspec.Struct, forbid_unknown_fields=True):
    include: Annotated[Literal["payload"], Meta(description="Show the payload too.")] | None = None
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX, description="How long to wait for the job's end.")] = 0


class JobsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A filter. A job matches if it matches every parameter."""

    state: Annotated[State, Meta(description="The current state.")] | None = None
    queue: QueueName | None = None
    group: QueueName | None = None
    tag: Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": TAG_BYTES_MAX})] | None = None
    q: (
        Annotated[
            str,
            Meta(
                description=f"A part of the payload's JSON text, at most {SEARCH_BYTES_MAX} bytes.",
                extra_json_schema={"minLength": 1, "maxLength": SEARCH_BYTES_MAX},
            ),
        ]
        | None
    ) = None
    error: (
        Annotated[
            str,
            Meta(
                description=f"A part of the last attempt's error, at most {SEARCH_BYTES_MAX} bytes.",
                extra_json_schema={"minLength": 1, "maxLength": SEARCH_BYTES_MAX},
            ),
        ]
        | None
    ) = None
    error_code: Annotated[str, text_of(ERROR_CODE_BYTES_MAX)] | None = None
    worker: (
        Annotated[
            str,
            Meta(
                description="The worker that holds the job, or that had its last attempt if none holds it.",
                extra_json_schema={"minLength": 1, "maxLength": WORKER_ID_BYTES_MAX},
            ),
        ]
        | None
    ) = None
    since: Annotated[Time, Meta(description="The earliest time of the submit.")] | None = None
    limit: Annotated[
        int,
        Meta(
            ge=1,
            le=PAGE_JOBS_MAX,
            description=f"A page may have fewer: it examines at most {PAGE_EXAMINED_MAX} jobs, in a search fewer.",
        ),
    ] = PAGE_JOBS
    cursor: (
        Annotated[
            str,
            Meta(
                description="From the previous page. Use the same filter.",
                extra_json_schema={"maxLength": CURSOR_CHARACTERS_MAX},
            ),
        ]
        | None
    ) = None


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    percent: int
    note: str
    at: Time


class JobListed(msgspec.Struct, forbid_unknown_fields=True):
    """A job as it is now. Members without a value are left out.

    `run_at` is shown while the job waits for that time. `outcome`, `result_error` and `error_code` are the last
    attempt's. In a list `result_error` is the first line of the error, or of a traceback's exception.
    """

    job_id: str
    state: State
    attempts: int
    max_retries: int
    created_at: Time
    priority: int
    queue: str
    group: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    run_at: Time | UnsetType = UNSET
    expires_at: Time | UnsetType = UNSET
    lease_until: Time | UnsetType = UNSET
    worker_id: str | UnsetType = UNSET
    cancel_requested: Literal[True] | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET
    result_error: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET
    finished_at: Time | UnsetType = UNSET


class JobShown(JobListed, forbid_unknown_fields=True):
    """A job with the result or the whole error of its last attempt, and its payload if `include` asks for it.

    To a request with the User-Agent `Go-http-client/…` and without Accept, `result` is always a string: a result that
    is not a string is its JSON text.
    """

    result: msgspec.Raw | UnsetType = UNSET
    payload: msgspec.Raw | UnsetType = UNSET


class JobsListed(msgspec.Struct, forbid_unknown_fields=True):
    """A page, the newest job first. `cursor`: there are more pages, even if this one has few jobs or none.

    `examined_until`: only jobs that were submitted since then were looked at; left out if all were. `unreadable`: so
    many jobs were not searched, since their records cannot be read; left out if there are none.
    """

    jobs: list[JobListed]
    cursor: str | UnsetType = UNSET
    examined_until: Time | UnsetType = UNSET
    unreadable: int | UnsetType = UNSET


class WhyShown(msgspec.Struct, forbid_unknown_fields=True):
    """Why a job does not run now.

    `reason` is one of: `running` and `finished`; `not_due`: the job waits for `run_at`; `paused` (with the reason and
    the end of the pause, if they were given), `concurrency`, `rate_limit` (until `run_at`) and `group_concurrency`:
    limits of its queue or group; `no_worker`: no worker asked for jobs of its queue in the last minute; `behind`:
    `position` jobs come first; `next`: the job is the next one.
    """

    job_id: str
    state: State
    reason: Literal[
        "running", "finished", "not_due", "paused", "concurrency", "rate_limit", "group_concurrency", "no_worker",
        "behind", "next",
    ]  # fmt: skip
    queue: str
    position: Annotated[int, Meta(description="The number of jobs of its group that come first, at most 10,000.")]
    waiting_workers: Annotated[int, Meta(description="The number of lease requests that wait for its queue.")]
    group: str | UnsetType = UNSET
    run_at: Time | UnsetType = UNSET
    pause_reason: str | UnsetType = UNSET
    pause_until: Time | UnsetType = UNSET
    last_asked_at: (
        Annotated[Time, Meta(description="The last time that a worker asked for jobs of its queue.")] | UnsetType
    ) = UNSET


def find_command(params: Mapping[str, Any], database_id: bytes) -> Find:
    """Decode the query of GET /jobs. Raises InvalidRequest."""
    fields = read_params(params, JobsQuery)
    return Find(
        state=fields.state or "",
        queue="" if fields.queue is None else queue_name(fields.queue, "queue"),
        group=None if fields.group is None else queue_name(fields.group, "group"),
        tag="" if fields.tag is None else printable(fields.tag, "tag", TAG_BYTES_MAX),
        text=searched("q", fields.q, SEARCH_BYTES_MAX),
        error=searched("error", fields.error, SEARCH_BYTES_MAX),
        error_code=""
        if fields.error_code is None
        else printable(fields.error_code, "error_code", ERROR_CODE_BYTES_MAX),
        worker=searched("worker", fields.worker, WORKER_ID_BYTES_MAX),
        since_us=0 if fields.since is None else time_us(fields.since, "since"),
        limit=fields.limit,
        before=0 if fields.cursor is None else _before(fields.cursor, database_id),
    )


def _before(cursor: str, database_id: bytes) -> int:
    if len(cursor) <= CURSOR_CHARACTERS_MAX:
        try:
            number = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[:-CHECK_BYTES]
            before = int.from_bytes(number, "big")
            if before and cursor_of(before, database_id) == cursor:
                return before
        except (ValueError, OverflowError):
            pass
    raise InvalidRequest("cursor must be one that this server returned with a page")


def cursor_of(before: int, database_id: bytes) -> str:
    """Return a cursor before job number `before`. Its check bytes refuse the cursors of other servers."""
    number = before.to_bytes(6, "big")
    return urlsafe_b64encode(number + sha256(database_id + number).digest()[:CHECK_BYTES]).decode().rstrip("=")


def _job(job: JobView | JobStatus) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "job_id": job.job_id,
        "state": job.state,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "created_at": time_of(job.created_us),
        "priority": job.priority,
        "queue": job.queue,
    }
    if job.group:
        answer["group"] = job.group
    if job.tags:
        answer["tags"] = job.tags
    if job.state in WAITING:
        answer["run_at"] = time_of(job.run_at_us)
    if job.expires_us:
        answer["expires_at"] = time_of(job.expires_us)
    if job.lease_until_us is not None:
        answer["lease_until"] = time_of(job.lease_until_us)
    if job.worker_id:
        answer["worker_id"] = job.worker_id
    if job.cancel_requested:
        answer["cancel_requested"] = True
    if job.progress is not None:
        percent, note, at_us = job.progress
        answer["progress"] = {"percent": percent, "note": note, "at": time_of(at_us)}
    if job.outcome:
        answer["outcome"] = job.outcome
    if job.state in FINISHED and job.ended_us:
        answer["finished_at"] = time_of(job.ended_us)
    return answer


def job_listed(job: JobView, end: End | None) -> dict[str, Any]:
    """
    Args:
        end: how its last attempt ended, if it failed.
    """
    answer = _job(job)
    if end is not None:
        if line := error_line(end.error):
            answer["result_error"] = line
        if end.error_code:
            answer["error_code"] = end.error_code
    return answer


def reads_text_only(req: Request) -> bool:
    """Whether a client of the original asks. Its Go library has no headers of its own and reads results as strings."""
    agent = req.get_header("User-Agent") or ""
    return agent.startswith(ORIGINAL_AGENT) and req.get_header("Accept") is None


def job_shown(job: JobStatus, result_as_text: bool = False) -> bytes:
    """
    Args:
        result_as_text: show a result that is not a string as its JSON text, in a string.
    """
    answer = _job(job)
    if job.result is not None:
        is_text = job.result.startswith(b'"')
        answer["result"] = job.result.decode() if result_as_text and not is_text else orjson.Fragment(job.result)
    if job.error:
        answer["result_error"] = job.error
    if job.error_code:
        answer["error_code"] = job.error_code
    if job.payload is not None:
        answer["payload"] = orjson.Fragment(job.payload)
    return encode(answer)


def why_shown(why: Why, pause: tuple[str | None, str | None]) -> bytes:
    """
    Args:
        pause: why its queue is paused, and until when.
    """
    answer: dict[str, Any] = {
        "job_id": why.job_id,
        "state": why.state,
        "reason": why.reason,
        "queue": why.queue,
        "position": why.position,
        "waiting_workers": why.waiting_workers,
    }
    if why.group:
        answer["group"] = why.group
    if due_us := why.run_at_us or why.rate_due_us:
        answer["run_at"] = time_of(due_us)
    if why.reason == "paused":
        answer |= {name: text for name, text in zip(("pause_reason", "pause_until"), pause, strict=True) if text}
    if why.asked_us:
        answer["last_asked_at"] = time_of(why.asked_us)
    return encode(answer)


class Jobs:
    """The responders of GET /jobs, GET /jobs/{job_id} and GET /jobs/{job_id}/why."""

    def __init__(self, engine: Engine, queues: Queues) -> None:
        self._engine, self._queues = engine, queues

    async def show(self, req: Request, resp: Response, job_id: str) -> None:
        query = read_query(req, JobQuery)
        who, with_payload = req.context.principal, query.include == "payload"
        try:
            if query.wait_ms:
                connection = req.scope.get(CONNECTION)
                job = await self._engine.job_at_end(who, job_id, query.wait_ms, connection, with_payload=with_payload)
            else:
                job = await self._engine.job(who, job_id, with_payload=with_payload)
        except JobNotFound as error:
            raise Wrapped("job not found", error) from None
        resp.content_type = JSON
        resp.data = job_shown(job, reads_text_only(req))

    async def list_jobs(self, req: Request, resp: Response) -> None:
        who, database_id = req.context.principal, self._engine.database_id
        find = find_command(req.params, database_id)
        before = unreadable = 0

        async def slices() -> AsyncIterator[list[Any]]:
            nonlocal before, unreadable
            async for page in self._engine.pages(who, find):
                before = page.before
                unreadable += page.unreadable
                yield [job_listed(job, page.ends.get(job.job_id)) for job in page.jobs]

        jobs = await array_of(self._engine, req, slices())
        resp.content_type = JSON
        more: dict[str, str | int | datetime] = {"unreadable": unreadable}
        if before:
            until_us = self._engine.looked_until_us(before)
            more["cursor"] = cursor_of(before, database_id)
            more["examined_until"] = time_of(until_us) if until_us else ""
        resp.data = page_of("jobs", jobs, **more)

    async def why(self, req: Request, resp: Response, job_id: str) -> None:
        why = self._engine.why(req.context.principal, job_id)
        resp.data = why_shown(why, self._queues.pause_of(why.queue))
        resp.content_type = JSON

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/jobs/{job_id}",
                "jobs:read",
                self.show,
                "Show a job, or wait for its end",
                (Answer(200, "the job", JobShown), ABSENT),
                query=JobQuery,
            ),
            Route(
                "GET",
                "/jobs",
                "jobs:read",
                self.list_jobs,
                "List jobs, the newest first",
                (Answer(200, "a page of jobs", JobsListed),),
                query=JobsQuery,
            ),
            Route(
                "GET",
                "/jobs/{job_id}/why",
                "jobs:read",
                self.why,
                "Why a job does not run now",
                (Answer(200, "the reason", WhyShown), ABSENT),
            ),
        ]
