"""Request bodies: checked, and turned into commands. Messages are as `fastq.http.decoding` says."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from fastq.engine.commands import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    DEFAULT_QUEUE,
    KEY_BYTES_MAX,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    MAX_RETRIES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    RUN_AT_AHEAD_US_MAX,
    TAG_BYTES_MAX,
    TAGS_MAX,
    JobOptions,
    Submit,
)
from fastq.errors import InvalidRequest
from fastq.http._scan import numbers_fit
from fastq.http.decoding import DEPTH_MAX, QUEUE_PATTERN, at_most, decode, queue_name, time_us
from fastq.services.queues import Backoff

ROOM_BYTES = 64 << 10  # for the JSON around a payload or a result
BODY_BYTES_MAX = PAYLOAD_BYTES_MAX + ROOM_BYTES
SMALL_BODY_BYTES_MAX = ROOM_BYTES  # of requests that carry neither payload nor result
DELAY_MS_MAX = RUN_AT_AHEAD_US_MAX // 1000
NUMBER_CHARACTERS_MAX = 400

Delay = Annotated[int, Meta(ge=0, le=DELAY_MS_MAX)]
LeaseMs = Annotated[int, Meta(ge=LEASE_MS_MIN, le=LEASE_MS_MAX)]
QueueName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{QUEUE_PATTERN}$"})]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
TRACEPARENT_PATTERN = "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(TRACEPARENT_PATTERN, re.ASCII)
BATCH_DEPTH_MAX = DEPTH_MAX + 2  # a batch's own object and array stand around each of its members


def text_of(bytes_max: int, more: str = "") -> Meta:
    """The schema of a text that is no empty one and has at most so many bytes."""
    return Meta(
        description=f"At most {bytes_max} bytes of UTF-8, nothing that cannot be printed.{more}",
        extra_json_schema={"minLength": 1, "maxLength": bytes_max},
    )


class BackoffBody(Backoff, frozen=True, forbid_unknown_fields=True):
    """After attempt n a job waits a random time up to base_ms * factor ** (n - 1), and never longer than cap_ms."""


class SubmitBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A job. At most one of `delay_ms` and `run_at` may be given, and of `expires_ms` and `expires_at`."""

    payload: Annotated[
        msgspec.Raw,
        Meta(
            description=f"Any JSON value but null and the empty string, at most {PAYLOAD_BYTES_MAX} bytes of text.",
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
    tags: Annotated[list[Annotated[str, text_of(TAG_BYTES_MAX)]], Meta(min_length=1, max_length=TAGS_MAX)] | None = None
    traceparent: Annotated[str, Meta(extra_json_schema={"pattern": f"^{TRACEPARENT_PATTERN}$"})] | None = None


class SubmitManyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Jobs that are stored together: all of them or none."""

    jobs: Annotated[
        list[SubmitBody],
        Meta(min_length=1, max_length=BATCH_JOBS_MAX, description=f"In all at most {BATCH_BYTES_MAX} bytes of text."),
    ]


# --- commands ---------------------------------------------------------------------------------------------------------

T = TypeVar("T", bound=msgspec.Struct)

_SUBMIT = msgspec.json.Decoder(SubmitBody)
_SUBMIT_MANY = msgspec.json.Decoder(SubmitManyBody)
_RAW_JOBS = msgspec.json.Decoder(msgspec.defstruct("RawJobs", [("jobs", list[msgspec.Raw])]))


def submit_command(body: bytes, now_us: int, idempotency_key: str = "", traceparent: str = "") -> Submit:
    """Raises InvalidRequest. `now_us`: what `run_at` is held against, Unix microseconds.

    Args:
        idempotency_key, traceparent: of the request's headers.
    """
    fields = decode(body, _SUBMIT)
    if idempotency_key:
        if fields.idempotency_key not in (None, idempotency_key):
            raise InvalidRequest("idempotency_key must be what the header Idempotency-Key is, or left out")
        fields.idempotency_key = idempotency_key
    return submit_of(fields, now_us, traceparent)


def submit_of(fields: SubmitBody, now_us: int, traceparent: str = "") -> Submit:
    """A job as it was decoded. Raises InvalidRequest."""
    payload = payload_of(fields.payload)
    run_at_us = None
    if fields.run_at is not None:
        if fields.delay_ms is not None:
            raise InvalidRequest("run_at must be left out when delay_ms is given")
        run_at_us = ahead_us(fields.run_at, "run_at", now_us)
    queue = DEFAULT_QUEUE if fields.queue is None else queue_name(fields.queue, "queue")
    options = _options(fields, now_us, traceparent)
    return Submit(payload, fields.max_retries, fields.priority or 0, fields.delay_ms, run_at_us, queue, options)


def payload_of(raw: msgspec.Raw) -> bytes:
    payload = bytes(raw)
    if payload in (b"null", b'""'):
        raise InvalidRequest("payload is required")
    at_most("payload", len(payload), PAYLOAD_BYTES_MAX)
    readable_numbers("payload", payload)
    return payload


def readable_numbers(field: str, text: bytes) -> None:
    """Numbers are the caller's and kept as they are, but for those at which the reader's JSON library would fail."""
    if not numbers_fit(text, NUMBER_CHARACTERS_MAX):
        raise InvalidRequest(
            f"{field}: a number in it must be at most {NUMBER_CHARACTERS_MAX} characters and within ±1.8e308"
        )


def _options(fields: SubmitBody, now_us: int, traceparent: str) -> JobOptions | None:
    """What only some jobs have; None for a plain job."""
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
            raise InvalidRequest("traceparent must be as W3C Trace Context has it, 55 characters")
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


def backoff_of(fields: BackoffBody) -> tuple[int, float, int]:
    """Raises InvalidRequest."""
    if fields.cap_ms < fields.base_ms:
        raise InvalidRequest("backoff.cap_ms must be >= backoff.base_ms")
    return fields.base_ms, fields.factor, fields.cap_ms


def _tags(tags: list[str]) -> tuple[str, ...]:
    for tag in tags:
        printable(tag, "tags", TAG_BYTES_MAX)
    return tuple(dict.fromkeys(tags))


def printable(text: str, field: str, bytes_max: int = KEY_BYTES_MAX) -> str:
    """A text of 1 to `bytes_max` bytes that can be printed. Raises InvalidRequest."""
    if not 1 <= len(text.encode()) <= bytes_max:
        raise InvalidRequest(f"{field} must be 1 to {bytes_max} bytes")
    if not text.isprintable():
        raise InvalidRequest(f"{field} must not have characters that cannot be printed")
    return text


def traceparent_of(header: str | None) -> str:
    """The header if it is well-formed; else it is passed over, as its standard says."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else ""


def digest_of(*jobs: SubmitBody) -> int:
    """64 bits that tell whether an idempotency key comes with the same again; its trace may be another."""
    digest = sha256()
    for job in jobs:
        same = msgspec.structs.replace(job, idempotency_key=None, traceparent=None)
        digest.update(msgspec.json.encode(same))
    return int.from_bytes(digest.digest()[:8], "little")


def submit_many_commands(
    body: bytes, now_us: int, idempotency_key: str = "", traceparent: str = ""
) -> tuple[list[Submit], int]:
    """The jobs, and with an idempotency key for the whole the digest of it. Raises InvalidRequest, which names the job
    by its index.
    """
    fields = members(body, _SUBMIT_MANY, _RAW_JOBS, "jobs", _SUBMIT)
    commands = []
    for i, job in enumerate(fields.jobs):
        try:
            if idempotency_key and job.idempotency_key is not None:
                raise InvalidRequest("idempotency_key must be left out when the header Idempotency-Key is given")
            commands.append(submit_of(job, now_us, traceparent))
        except InvalidRequest as error:
            raise InvalidRequest(f"jobs[{i}]: {error}") from None
    return commands, digest_of(*fields.jobs) if idempotency_key else 0


def members(
    body: bytes, decoder: msgspec.json.Decoder[T], raw: msgspec.json.Decoder[Any], name: str,
    member: msgspec.json.Decoder[Any], depth_max: int = BATCH_DEPTH_MAX,
) -> T:  # fmt: skip
    """A batch. If it cannot be decoded as a whole, its members are, one by one, to say which it is."""
    try:
        return decode(body, decoder, depth_max)
    except InvalidRequest as whole:
        try:
            pieces = raw.decode(body)
        except msgspec.MsgspecError:
            raise whole from None
        for i, piece in enumerate(getattr(pieces, name)):
            try:
                decode(bytes(piece), member, depth_max - 2)
            except InvalidRequest as error:
                raise InvalidRequest(f"{name}[{i}]: {error}") from None
        raise


def ahead_us(text: str, field: str, now_us: int) -> int:
    """A time that is at most 10 years ahead, Unix microseconds. Raises InvalidRequest."""
    at_us = time_us(text, field)
    if at_us > now_us + RUN_AT_AHEAD_US_MAX:
        raise InvalidRequest(f"{field} must be at most 10 years ahead")
    return at_us
