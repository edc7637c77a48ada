"""What is asked about jobs beside work: queries, and the bodies of changes. Messages as in `decoding`."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Annotated, Literal

import msgspec
from falcon.asgi import Request
from msgspec import Meta

from fastq.engine.commands import (
    PAGE_EXAMINED_MAX,
    PAGE_JOBS,
    PAGE_JOBS_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    SEARCH_BYTES_MAX,
    TAG_BYTES_MAX,
    WAIT_MS_MAX,
    Edit,
    Find,
)
from fastq.errors import InvalidRequest
from fastq.http.decoding import at_most, decode, queue_name, time_us
from fastq.http.queries import read_query
from fastq.http.resources.bodies import Delay, QueueName, Time, ahead_us, payload_of, printable
from fastq.http.resources.job_answers import CHECK_BYTES, State, cursor_of

CURSOR_CHARACTERS_MAX = 64


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """With `force` also a job that runs ends at once; its worker is refused then."""

    force: bool = False


class EditBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to change of a job, at least one member. At most one of `delay_ms` and `run_at` may be given."""

    payload: Annotated[
        msgspec.Raw, Meta(description="As of a submit.", extra_json_schema={"not": {"enum": [None, ""]}})
    ] = msgspec.field(default_factory=msgspec.Raw)
    priority: Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)] | None = None
    delay_ms: Delay | None = None
    run_at: Time | None = None
    queue: QueueName | None = None


class JobQuery(msgspec.Struct, forbid_unknown_fields=True):
    include: Annotated[Literal["payload"], Meta(description="What to show beside the job.")] | None = None
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX, description="How long to wait for the job's end.")] = 0


class JobsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which jobs; those that fit all that is given."""

    state: Annotated[State, Meta(description="As it is shown.")] | None = None
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
    since: Annotated[Time, Meta(description="Submitted then or later.")] | None = None
    limit: Annotated[
        int,
        Meta(
            ge=1,
            le=PAGE_JOBS_MAX,
            description=f"A page may have fewer: it looks at {PAGE_EXAMINED_MAX} jobs at most, with q at fewer.",
        ),
    ] = PAGE_JOBS
    cursor: (
        Annotated[
            str,
            Meta(
                description="That of the page before. The filter should be the same.",
                extra_json_schema={"maxLength": CURSOR_CHARACTERS_MAX},
            ),
        ]
        | None
    ) = None


_CANCEL = msgspec.json.Decoder(CancelBody)
_EDIT = msgspec.json.Decoder(EditBody)


def cancel_force(body: bytes) -> bool:
    """Raises InvalidRequest. No body is no force."""
    return decode(body, _CANCEL).force if body else False


def edit_command(body: bytes, now_us: int) -> Edit:
    """Raises InvalidRequest."""
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


def job_query(req: Request) -> JobQuery:
    """Raises InvalidRequest."""
    return read_query(req, JobQuery)


def find_command(req: Request, database_id: bytes) -> Find:
    """Raises InvalidRequest."""
    fields = read_query(req, JobsQuery)
    if fields.q is not None:
        if not fields.q:
            raise InvalidRequest("q must be of length >= 1")
        at_most("q", len(fields.q.encode("utf-8", "surrogatepass")), SEARCH_BYTES_MAX)
    return Find(
        state=fields.state or "",
        queue="" if fields.queue is None else queue_name(fields.queue, "queue"),
        group=None if fields.group is None else queue_name(fields.group, "group"),
        tag="" if fields.tag is None else printable(fields.tag, "tag", TAG_BYTES_MAX),
        text=fields.q or "",
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
    raise InvalidRequest("cursor must be one that a page of this server had")
