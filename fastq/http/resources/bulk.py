"""Cancel, redrive or delete all jobs that match a filter."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine.commands import ERROR_CODE_BYTES_MAX, WORKER_ID_BYTES_MAX
from fastq.errors import InvalidRequest
from fastq.http.authentication import confirmed
from fastq.http.decoding import decode, read_body
from fastq.http.fields import BODY_BYTES_MAX, QueueName, State, printable, queue_name, searched, text_of, time_us
from fastq.http.reply import JSON, encode
from fastq.http.routes import CHANGES, Answer, Route
from fastq.services.bulk import ACTIONS, Bulk, Filter, Order

IDS_MAX = 10_000
TEXT_BYTES_MAX = 200
TAG_CHARACTERS_MAX = 64
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


class BulkBody(msgspec.Struct, forbid_unknown_fields=True):
    """The jobs to change. With `dry_run` the answer has the numbers and nothing changes."""

    filter: JobFilterBody
    dry_run: bool = False


class BulkDone(msgspec.Struct, forbid_unknown_fields=True):
    """`matched`: jobs that match the filter and allow the change. `changed`: jobs that were changed.

    The server works in slices between other requests. `complete` is false if it stopped, the log was full, or the
    key ended, before it examined all jobs.
    """

    matched: int
    changed: int
    complete: bool


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
        result = await self._bulk.run(partial(confirmed, req), order, dry_run=fields.dry_run)
        resp.content_type = JSON
        resp.data = encode(result)

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
