"""Cancel, redrive or delete all jobs that match a filter."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, Meta, UnsetType

from fastq.engine.commands import ERROR_CODE_BYTES_MAX, WORKER_ID_BYTES_MAX
from fastq.errors import InvalidRequest
from fastq.http.authentication import confirmed
from fastq.http.decoding import decode, read_body
from fastq.http.fields import BODY_BYTES_MAX, QueueName, State, printable, queue_name, searched, text_of, time_us
from fastq.http.reply import JSON, encode
from fastq.http.routes import CHANGES, Answer, Route
from fastq.http.scope import CONNECTION
from fastq.services.bulk import ACTIONS, BEGIN, WORK_US, Bulk, Filter, Order, Progress

IDS_MAX = 10_000
TEXT_BYTES_MAX = 200
TAG_CHARACTERS_MAX = 64
PACE_MAX = 1_000_000
CURSOR_NUMBER_BYTES, CURSOR_CHECK_BYTES, CURSOR_CHARACTERS_MAX = 6, 8, 64
_NUMBERS = ("after", "until", "entry", "matched", "changed")
_MEANING = {
    "cancel": "Cancel jobs; workers of running ones see cancel_requested at their next heartbeat",
    "redrive": "Redrive dead letters: make them ready with 0 attempts",
    "delete": "Delete jobs that are not running",
}


class JobFilterBody(msgspec.Struct, forbid_unknown_fields=True):
    """A filter with at least one member. A job matches if it matches every member."""

    state: State | None = None
    queue: QueueName | None = None
    group: QueueName | None = None
    tag: Annotated[str, Meta(max_length=TAG_CHARACTERS_MAX)] | None = None
    q: (
        Annotated[
            str,
            Meta(
                description=f"A part of the payload's JSON text. At most {TEXT_BYTES_MAX} bytes.",
                extra_json_schema={"minLength": 1, "maxLength": TEXT_BYTES_MAX},
            ),
        ]
        | None
    ) = None
    error: (
        Annotated[
            str,
            Meta(
                description=f"A part of the last attempt's error. At most {TEXT_BYTES_MAX} bytes.",
                extra_json_schema={"minLength": 1, "maxLength": TEXT_BYTES_MAX},
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
    since: (
        Annotated[str, Meta(description="The earliest time of the submit.", extra_json_schema={"format": "date-time"})]
        | None
    ) = None
    ids: Annotated[list[str], Meta(max_length=IDS_MAX, description="Only these jobs.")] | None = None


class PaceBody(msgspec.Struct, forbid_unknown_fields=True):
    """How fast the work goes, how long one request works, and where an earlier request with the same filter ended."""

    pace_per_s: Annotated[int, Meta(ge=1, le=PACE_MAX, description="Jobs changed in a second, at most.")] | None = None
    work_ms: Annotated[int, Meta(ge=1, le=WORK_US // 1000)] = WORK_US // 1000
    cursor: (
        Annotated[
            str,
            Meta(
                description="From an answer that is not complete.",
                extra_json_schema={"maxLength": CURSOR_CHARACTERS_MAX},
            ),
        ]
        | None
    ) = None


class BulkBody(PaceBody, forbid_unknown_fields=True, kw_only=True):
    """The jobs to change. With `dry_run` the answer has the numbers and nothing changes."""

    filter: JobFilterBody
    dry_run: bool = False


class BulkDone(msgspec.Struct, forbid_unknown_fields=True):
    """`matched`: jobs that match the filter and allow the change. `changed`: jobs that were changed.

    The server works in slices between other requests. `complete` is false if the time of the request (`work_ms`) was
    over, the server stopped, the log was full, or the key ended, before it examined all jobs. Then `cursor` continues:
    over the jobs that were submitted before the first request. If the client closes the connection, the work stops.
    """

    matched: int
    changed: int
    complete: bool
    cursor: str | UnsetType = UNSET


_BULK = msgspec.json.Decoder(BulkBody)
_EXAMPLE = {"filter": {"state": "DEAD", "queue": "mail", "since": "2030-01-01T00:00:00Z"}, "dry_run": True}


def filter_of(fields: JobFilterBody) -> Filter:
    """Make the service's filter. Raises InvalidRequest."""
    if fields == JobFilterBody():
        raise InvalidRequest("filter must have at least one member")
    for name in ("queue", "group"):
        if (value := getattr(fields, name)) is not None:
            queue_name(value, f"filter.{name}")
    code = fields.error_code
    return Filter(
        states=frozenset() if fields.state is None else frozenset({fields.state}),
        queue=fields.queue or "",
        group=fields.group,
        tag=fields.tag or "",
        text=searched("filter.q", fields.q, TEXT_BYTES_MAX),
        error=searched("filter.error", fields.error, TEXT_BYTES_MAX),
        error_code="" if code is None else printable(code, "filter.error_code", ERROR_CODE_BYTES_MAX),
        worker=searched("filter.worker", fields.worker, WORKER_ID_BYTES_MAX),
        since_us=0 if fields.since is None else time_us(fields.since, "filter.since"),
        ids=None if fields.ids is None else tuple(fields.ids),
    )


def audited(fields: JobFilterBody) -> dict[str, object]:
    """Return the filter as the audit log shows it: `ids` is their number."""
    details = {name: value for name, value in msgspec.structs.asdict(fields).items() if value is not None}
    if fields.ids is not None:
        details["ids"] = len(fields.ids)
    return details


def cursor_of(progress: Progress, scope: bytes) -> str:
    """Return a cursor that goes on from `progress`.

    Args:
        scope: what its check bytes cover beside the numbers: the server, and the change.
    """
    numbers = b"".join(getattr(progress, name).to_bytes(CURSOR_NUMBER_BYTES, "big") for name in _NUMBERS)
    return urlsafe_b64encode(numbers + _check(numbers, scope)).decode().rstrip("=")


def progress_of(cursor: str | None, scope: bytes) -> Progress:
    """Decode a cursor; None begins. Raises InvalidRequest: it is of another server, filter or change."""
    if cursor is None:
        return BEGIN
    raw = b""
    if len(cursor) <= CURSOR_CHARACTERS_MAX:
        with suppress(ValueError):
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    numbers, check = raw[:-CURSOR_CHECK_BYTES], raw[-CURSOR_CHECK_BYTES:]
    if len(numbers) != CURSOR_NUMBER_BYTES * len(_NUMBERS) or check != _check(numbers, scope):
        raise InvalidRequest("cursor must be one that this server returned for the same change and filter")
    parts = [numbers[at : at + CURSOR_NUMBER_BYTES] for at in range(0, len(numbers), CURSOR_NUMBER_BYTES)]
    return Progress(*(int.from_bytes(part, "big") for part in parts))


def _check(numbers: bytes, scope: bytes) -> bytes:
    return sha256(numbers + scope).digest()[:CURSOR_CHECK_BYTES]


async def bulk_answer(
    req: Request, bulk: Bulk, order: Order, pace: PaceBody, chosen: bytes = b"", dry_run: bool = False
) -> dict[str, Any]:
    """Change the jobs for as long as one request may, or until the client closes the connection.

    Args:
        chosen: what the order chooses, for the check of a cursor.
    """
    connection = req.scope.get(CONNECTION)
    scope = bulk.engine.database_id + msgspec.json.encode([order.action, order.target, dry_run]) + chosen
    result = await bulk.run(
        partial(confirmed, req),
        order,
        dry_run=dry_run,
        pace_per_s=pace.pace_per_s,
        work_us=pace.work_ms * 1000,
        begin=progress_of(pace.cursor, scope),
        is_stopped=lambda: connection is not None and connection.is_closed,
    )
    answer = {"matched": result.matched, "changed": result.changed, "complete": result.complete}
    return answer if result.complete else answer | {"cursor": cursor_of(result.progress, scope)}


class BulkRoutes:
    """The responders of POST /jobs/cancel and the like."""

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk

    async def cancel_many(self, req: Request, resp: Response) -> None:
        await self._run("cancel", req, resp)

    async def redrive_many(self, req: Request, resp: Response) -> None:
        await self._run("redrive", req, resp)

    async def delete_many(self, req: Request, resp: Response) -> None:
        await self._run("delete", req, resp)

    async def _run(self, action: str, req: Request, resp: Response) -> None:
        fields = decode(await read_body(req, BODY_BYTES_MAX), _BULK)
        order = Order(action, filter_of(fields.filter), details={"filter": audited(fields.filter)})
        answer = await bulk_answer(req, self._bulk, order, fields, msgspec.json.encode(fields.filter), fields.dry_run)
        resp.content_type = JSON
        resp.data = encode(answer)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                f"/jobs/{action}",
                "jobs:submit",
                getattr(self, f"{action}_many"),
                _MEANING[action],
                (Answer(200, "the numbers of jobs", BulkDone), *CHANGES),
                BulkBody,
                example=_EXAMPLE,
            )
            for action in ACTIONS
        ]
