"""Submit jobs: one, or a batch that is stored as a whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq._core import CREATED, DUPLICATE, REPLACED
from fastq.engine import Engine
from fastq.engine.commands import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    DEFAULT_QUEUE,
    KEY_BYTES_MAX,
    MAX_RETRIES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    TAG_BYTES_MAX,
    TAGS_MAX,
    JobOptions,
    Submit,
)
from fastq.errors import CleanerBehind, InvalidRequest, Overloaded
from fastq.http.authentication import confirmed
from fastq.http.decoding import decode, members, null_as_empty, read_body
from fastq.http.fields import (
    _TRACEPARENT,
    BODY_BYTES_MAX,
    DELAY_MS_MAX,
    TRACEPARENT_PATTERN,
    BackoffBody,
    Delay,
    LeaseMs,
    QueueName,
    Time,
    ahead_us,
    backoff_of,
    idempotency_key_of,
    payload_of,
    printable,
    queue_name,
    text_of,
    traceparent_of,
)
from fastq.http.long_bodies import commands_of
from fastq.http.reply import JSON, encode
from fastq.http.routes import BEHIND_OR_FULL, CHANGES, KEY_USED, Answer, Route

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from fastq._core import Submitted


class SubmitBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A job. `delay_ms` excludes `run_at`, and `expires_ms` excludes `expires_at`."""

    payload: Annotated[
        msgspec.Raw,
        Meta(
            description=f"Any JSON value except null and the empty string, at most {PAYLOAD_BYTES_MAX} bytes of text.",
            extra_json_schema={"not": {"enum": [None, ""]}},
        ),
    ]
    max_retries: Annotated[int, Meta(ge=0, le=MAX_RETRIES_MAX)] | None = None
    priority: Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)] | None = None
    delay_ms: Delay | None = None
    run_at: Time | None = None
    queue: QueueName | None = None
    group: QueueName | None = None
    lease_ms: LeaseMs | None = None
    backoff: BackoffBody | None = None
    expires_ms: Annotated[int, Meta(ge=1, le=DELAY_MS_MAX)] | None = None
    expires_at: Time | None = None
    idempotency_key: Annotated[str, text_of(KEY_BYTES_MAX)] | None = None
    unique_key: Annotated[str, text_of(KEY_BYTES_MAX)] | None = None
    on_duplicate: Annotated[str, Meta(extra_json_schema={"enum": ["keep", "replace"]})] | None = None
    tags: Annotated[list[Annotated[str, text_of(TAG_BYTES_MAX)]], Meta(max_length=TAGS_MAX)] | None = None
    traceparent: Annotated[str, Meta(extra_json_schema={"pattern": f"^{TRACEPARENT_PATTERN}$"})] | None = None


class SubmitManyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Jobs that are stored as a whole or not at all."""

    jobs: Annotated[
        list[SubmitBody],
        Meta(max_length=BATCH_JOBS_MAX, description=f"At most {BATCH_BYTES_MAX} bytes of text together."),
    ]


class JobCreated(msgspec.Struct, forbid_unknown_fields=True):
    """`duplicate`: an unfinished job has the unique key. `replaced`: that job was changed to the submitted one."""

    job_id: str
    duplicate: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    replaced: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class JobsCreated(msgspec.Struct, forbid_unknown_fields=True):
    """The jobs in the order of the request. `duplicates`: the indexes, from 0, of those that existed before."""

    job_ids: list[str]
    duplicates: list[int] | msgspec.UnsetType = msgspec.UNSET


_SUBMIT = msgspec.json.Decoder(SubmitBody)
_SUBMIT_MANY = msgspec.json.Decoder(SubmitManyBody)
_RAW_JOBS = msgspec.json.Decoder(msgspec.defstruct("RawJobs", [("jobs", list[msgspec.Raw])]))


def submit_command(body: bytes, now_us: int, idempotency_key: str = "", traceparent: str = "") -> Submit:
    """Decode POST /jobs.

    Args:
        now_us: Unix microseconds; `run_at` and `expires_at` are at most 10 years later.
        idempotency_key, traceparent: from the headers, empty without them.
    Raises:
        InvalidRequest.
    """
    fields = decode(null_as_empty(body), _SUBMIT)
    if idempotency_key:
        if fields.idempotency_key not in (None, idempotency_key):
            raise InvalidRequest("idempotency_key must be the same as the header Idempotency-Key, or left out")
        fields.idempotency_key = idempotency_key
    return submit_of(fields, now_us, traceparent)


def submit_of(fields: SubmitBody, now_us: int, traceparent: str = "") -> Submit:
    """Make the command of a decoded job. Raises InvalidRequest."""
    fields.tags = fields.tags or None  # so that the digest of a job without tags has one value
    payload = payload_of(fields.payload)
    run_at_us = None
    if fields.run_at is not None:
        if fields.delay_ms is not None:
            raise InvalidRequest("run_at must be left out when delay_ms is given")
        run_at_us = ahead_us(fields.run_at, "run_at", now_us)
    queue = DEFAULT_QUEUE if fields.queue is None else queue_name(fields.queue, "queue")
    options = _options(fields, now_us, traceparent)
    return Submit(payload, fields.max_retries, fields.priority or 0, fields.delay_ms, run_at_us, queue, options)


def _options(fields: SubmitBody, now_us: int, traceparent: str) -> JobOptions | None:
    """Return the options of a job, None for a job without any."""
    if (
        not traceparent and fields.group is None and fields.lease_ms is None and fields.backoff is None
        and fields.expires_ms is None and fields.expires_at is None and fields.idempotency_key is None
        and fields.unique_key is None and fields.on_duplicate is None and fields.tags is None
        and fields.traceparent is None
    ):  # fmt: skip
        return None
    if fields.traceparent is not None:
        traceparent = fields.traceparent
        if not _TRACEPARENT.fullmatch(traceparent):
            raise InvalidRequest("traceparent must be a W3C Trace Context value of 55 characters")
    if fields.expires_at is not None and fields.expires_ms is not None:
        raise InvalidRequest("expires_at must be left out when expires_ms is given")
    if fields.on_duplicate not in (None, "keep", "replace"):
        raise InvalidRequest("on_duplicate must be keep or replace")
    if fields.on_duplicate is not None and fields.unique_key is None:
        raise InvalidRequest("on_duplicate must be left out without unique_key")
    key = None if fields.idempotency_key is None else printable(fields.idempotency_key, "idempotency_key")
    return JobOptions(
        group="" if fields.group is None else queue_name(fields.group, "group"),
        lease_ms=fields.lease_ms or 0,
        backoff=None if fields.backoff is None else backoff_of(fields.backoff),
        expires_ms=fields.expires_ms or 0,
        expires_us=0 if fields.expires_at is None else max(1, ahead_us(fields.expires_at, "expires_at", now_us)),
        unique_key="" if fields.unique_key is None else printable(fields.unique_key, "unique_key"),
        replace=fields.on_duplicate == "replace",
        tags=_tags(fields.tags or []),
        traceparent=traceparent,
        idempotency_key=key or "",
        body_digest=digest_of(fields) if key else 0,
    )


def _tags(tags: list[str]) -> tuple[str, ...]:
    for tag in tags:
        printable(tag, "tags", TAG_BYTES_MAX)
    return tuple(dict.fromkeys(tags))


def digest_of(job: SubmitBody) -> int:
    """Return a 64-bit digest of a job. A repeated request with the same idempotency key has the same digest.

    The key itself and `traceparent` are not part of it.
    """
    return number_of(sha256(digested(job)))


def digested(job: SubmitBody) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(job, idempotency_key=None, traceparent=None))


def number_of(digest: Hash) -> int:
    return int.from_bytes(digest.digest()[:8], "little")


def submit_many_fields(body: bytes) -> list[SubmitBody]:
    """Decode POST /jobs/batch. Raises InvalidRequest; the message names the job by its index."""
    return members(body, _SUBMIT_MANY, _RAW_JOBS, "jobs", _SUBMIT).jobs


def submit_member(index: int, job: SubmitBody, now_us: int, traceparent: str, digest: Hash | None) -> Submit:
    """Make the command of a job of a batch.

    Args:
        digest: of the whole batch, which has an idempotency key then; the job is added to it.
    Raises:
        InvalidRequest: the message names the job by its index.
    """
    try:
        if digest is not None and job.idempotency_key is not None:
            raise InvalidRequest("idempotency_key must be left out when the header Idempotency-Key is given")
        command = submit_of(job, now_us, traceparent)
    except InvalidRequest as error:
        raise InvalidRequest(f"jobs[{index}]: {error}") from None
    if digest is not None:
        digest.update(digested(job))
    return command


def job_created(stored: Submitted) -> bytes:
    return encode(submitted(stored))


def submitted(stored: Submitted) -> dict[str, Any]:
    job_id, how = stored
    if how == DUPLICATE:
        return {"job_id": job_id, "duplicate": True}
    if how == REPLACED:
        return {"job_id": job_id, "duplicate": True, "replaced": True}
    return {"job_id": job_id}


def jobs_created(stored: Sequence[Submitted]) -> bytes:
    answer: dict[str, Any] = {"job_ids": [job_id for job_id, _ in stored]}
    if there_before := [i for i, (_, how) in enumerate(stored) if how != CREATED]:
        answer["duplicates"] = there_before
    return encode(answer)


class Submits:
    """The responders of POST /jobs and POST /jobs/batch."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes_max = min(BATCH_BYTES_MAX, engine.record_bytes_max // 2)

    async def submit(self, req: Request, resp: Response) -> None:
        body = await read_body(req, BODY_BYTES_MAX)
        traceparent = traceparent_of(req.get_header("traceparent"))
        command = submit_command(body, self._engine.now_us(), idempotency_key_of(req), traceparent)
        who = req.context.principal
        try:
            stored = self._engine.submit(who, command)
        except (CleanerBehind, Overloaded):
            await self._engine.caught_up()
            stored = self._engine.submit(await confirmed(req), command)
        resp.status = 201 if stored[1] == CREATED else 200
        resp.content_type = JSON
        resp.data = job_created(stored)

    async def submit_many(self, req: Request, resp: Response) -> None:
        body = await read_body(req, self._batch_bytes_max)
        traceparent = traceparent_of(req.get_header("traceparent"))
        key = idempotency_key_of(req)
        now_us, digest = self._engine.now_us(), sha256() if key else None

        def command(index: int, job: SubmitBody) -> Submit:
            return submit_member(index, job, now_us, traceparent, digest)

        commands = await commands_of(self._engine, req, submit_many_fields(body), command)
        number = 0 if digest is None else number_of(digest)
        resp.content_type = JSON
        if not commands:
            resp.data = jobs_created([])
            return
        try:
            stored, repeated = self._engine.submit_many(req.context.principal, commands, key, number)
        except (CleanerBehind, Overloaded):
            await self._engine.caught_up()
            stored, repeated = self._engine.submit_many(await confirmed(req), commands, key, number)
        resp.status = 201 if not repeated and any(how == CREATED for _, how in stored) else 200
        resp.data = jobs_created(stored)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs",
                "jobs:submit",
                self.submit,
                "Store a job",
                (
                    Answer(201, "the job is on stable storage", JobCreated),
                    Answer(200, "the job existed before: its idempotency key or unique key is known", JobCreated),
                    KEY_USED,
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                SubmitBody,
                headers=("Idempotency-Key", "traceparent"),
                example={"payload": {"mail": "ann@example.org"}, "queue": "mail", "unique_key": "mail-7"},
            ),
            Route(
                "POST",
                "/jobs/batch",
                "jobs:submit",
                self.submit_many,
                "Store jobs, all or none",
                (
                    Answer(201, "all jobs are on stable storage", JobsCreated),
                    Answer(200, "all jobs existed before, or there are none", JobsCreated),
                    KEY_USED,
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                SubmitManyBody,
                headers=("Idempotency-Key", "traceparent"),
            ),
        ]
