"""Request bodies: read with a limit, checked, decoded, and turned into commands.

A message names the field and, if a limit was passed, the limit. Times are RFC 3339.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn, TypeVar

import falcon.asgi
import msgspec
from msgspec import Meta

from fastq.commands import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    DEFAULT_QUEUE,
    ERROR_BYTES_KEPT,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    LEASES_MAX,
    MAX_RETRIES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    QUEUES_MAX,
    REQUEST_ID_BYTES_MAX,
    RESULT_BYTES_MAX,
    RUN_AT_AHEAD_US_MAX,
    WAIT_MS_MAX,
    WORKER_ID_BYTES_MAX,
    Ack,
    Lease,
    Submit,
)
from fastq.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding, shown
from fastq.http._scan import numbers_fit, scan

ROOM_BYTES = 64 << 10  # for the JSON around a payload or a result
BODY_BYTES_MAX = PAYLOAD_BYTES_MAX + ROOM_BYTES
SMALL_BODY_BYTES_MAX = ROOM_BYTES  # of requests that carry neither payload nor result
DEPTH_MAX = 64  # the body's own object is the first level
DELAY_MS_MAX = RUN_AT_AHEAD_US_MAX // 1000
TOKEN_CHARACTERS_MAX = 200
NUMBER_CHARACTERS_MAX = 400
UNNAMED_ERROR = "the worker reported an error without a text"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)

Delay = Annotated[int, Meta(ge=0, le=DELAY_MS_MAX)]
LeaseMs = Annotated[int, Meta(ge=LEASE_MS_MIN, le=LEASE_MS_MAX)]
_QUEUE_PATTERN = "[A-Za-z0-9._-]{1,64}"
_QUEUE = re.compile(_QUEUE_PATTERN, re.ASCII)
QueueName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{_QUEUE_PATTERN}$"})]
Token = Annotated[str, Meta(max_length=TOKEN_CHARACTERS_MAX)]
BATCH_DEPTH_MAX = DEPTH_MAX + 2  # a batch's own object and array stand around each of its members


class SubmitBody(msgspec.Struct, forbid_unknown_fields=True):
    """A job. At most one of `delay_ms` and `run_at` may be given."""

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
    run_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None
    queue: QueueName | None = None


class SubmitManyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Jobs that are stored together: all of them or none."""

    jobs: Annotated[
        list[SubmitBody],
        Meta(min_length=1, max_length=BATCH_JOBS_MAX, description=f"In all at most {BATCH_BYTES_MAX} bytes of text."),
    ]


class LeaseBody(msgspec.Struct, forbid_unknown_fields=True):
    """How a job is leased. Without a body the lease may be acked without its token."""

    lease_ms: LeaseMs | None = None
    queues: (
        Annotated[
            list[QueueName],
            Meta(
                min_length=1,
                max_length=QUEUES_MAX,
                description="In strict order: a job of the first queue that has one. Left out: the queue `default`.",
            ),
        ]
        | None
    ) = None
    max: Annotated[int, Meta(ge=1, le=LEASES_MAX, description="With it the answer has `jobs`.")] | None = None
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX, description="How long to wait for a job.")] | None = None
    request_id: Annotated[
        str,
        Meta(
            description=f"The same within a minute gets the same leases. At most {REQUEST_ID_BYTES_MAX} bytes.",
            extra_json_schema={"maxLength": REQUEST_ID_BYTES_MAX},
        ),
    ] = ""
    worker_id: Annotated[
        str,
        Meta(
            description=f"At most {WORKER_ID_BYTES_MAX} bytes of UTF-8.",
            extra_json_schema={"maxLength": WORKER_ID_BYTES_MAX},
        ),
    ] = ""


class AckBody(msgspec.Struct, forbid_unknown_fields=True):
    """How an attempt ended. A `result_error` that is not empty is an error; so is the outcome `error`."""

    result: Annotated[
        msgspec.Raw,
        Meta(description=f'Any JSON value, at most {RESULT_BYTES_MAX} bytes of text; null and "" count as none.'),
    ] = msgspec.field(default_factory=msgspec.Raw)
    result_error: Annotated[str, Meta(description=f"The first {ERROR_BYTES_KEPT} bytes are kept.")] | None = None
    lease_token: Token | None = None
    outcome: Annotated[str, Meta(extra_json_schema={"enum": ["ok", "error"]})] | None = None
    retry_after_ms: Delay | None = None


class AckOneBody(AckBody, forbid_unknown_fields=True, kw_only=True):
    """How the attempt at one job ended."""

    job_id: str


class AckManyBody(msgspec.Struct, forbid_unknown_fields=True):
    """How attempts ended. Each is answered for itself; those that are accepted are one change."""

    acks: Annotated[
        list[AckOneBody],
        Meta(min_length=1, max_length=BATCH_JOBS_MAX, description=f"In all at most {BATCH_BYTES_MAX} bytes of text."),
    ]


class ExtendBody(msgspec.Struct, forbid_unknown_fields=True):
    """How long a lease is to last from now on. It never gets shorter. Left out: as long as leases are by default."""

    lease_token: Token
    lease_ms: LeaseMs | None = None


# --- bytes ------------------------------------------------------------------------------------------------------------


async def read_body(req: falcon.asgi.Request, bytes_max: int) -> bytes:
    """The whole body, read as a stream and no further than one piece past `bytes_max`.

    Raises:
        UnsupportedEncoding, BodyTooLarge. A body that ends early is refused where it comes in.
    """
    coding = req.get_header("Content-Encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise UnsupportedEncoding("Content-Encoding must be identity")
    announced = req.content_length
    if announced is not None and announced > bytes_max:
        raise BodyTooLarge(f"the body must be at most {bytes_max} bytes")
    body: bytes = await req.stream.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise BodyTooLarge(f"the body must be at most {bytes_max} bytes")
    return body


T = TypeVar("T", bound=msgspec.Struct)


def decode(body: bytes, decoder: msgspec.json.Decoder[T], depth_max: int = DEPTH_MAX) -> T:
    """The body as a struct. Raises InvalidRequest with a message that says what is wrong where."""
    if not body:
        raise InvalidRequest("invalid JSON: the body is empty")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"invalid JSON: no UTF-8 at byte {error.start}") from None
    found = scan(body, depth_max)
    if found == "depth":
        raise InvalidRequest(f"invalid JSON: nested deeper than {depth_max} levels")
    if found == "surrogate":
        raise InvalidRequest("invalid JSON: a surrogate escape without its other half")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _say_what_is_wrong(str(error))
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid JSON: {_lower_first(str(error))}") from None


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_TYPE = re.compile(r"Expected `([^`]*)`, got `(\w+)`(?: - at `\$\.(\w+)`)?")
_LIMIT = re.compile(r"Expected `\w+` (of length )?([<>]=) (-?\d+) - at `\$\.(\w+)`")
_KIND = {"int": "an integer", "str": "a string", "array": "an array", "object": "an object"}


def _say_what_is_wrong(text: str) -> NoReturn:
    """Raise InvalidRequest in our words for what msgspec says."""
    if match := _UNKNOWN.fullmatch(text):
        raise InvalidRequest(f"unknown field: {shown(match[1])}")
    if match := _MISSING.fullmatch(text):
        raise InvalidRequest(f"{match[1]} is required")
    if match := _LIMIT.fullmatch(text):
        of_length, relation, limit, field = match.groups()
        if of_length and relation == ">=":
            raise InvalidRequest(f"{field} is required")
        raise InvalidRequest(f"{field} must be {of_length or ''}{relation} {limit}")
    if match := _TYPE.fullmatch(text):
        expected, got, field = match.groups()
        if field is None:
            raise InvalidRequest("invalid JSON: the body must be an object")
        kind = expected.removesuffix(" | null")
        if got == "null":
            raise InvalidRequest(f"{field} is required")
        raise InvalidRequest(f"invalid JSON: {field} must be {_KIND.get(kind, kind)}")
    raise InvalidRequest(f"invalid JSON: {_lower_first(text)}")


def _lower_first(text: str) -> str:
    return text if text.startswith("JSON") else text[:1].lower() + text[1:]


# --- commands ---------------------------------------------------------------------------------------------------------

_SUBMIT = msgspec.json.Decoder(SubmitBody)
_LEASE = msgspec.json.Decoder(LeaseBody)
_ACK = msgspec.json.Decoder(AckBody)
_SUBMIT_MANY = msgspec.json.Decoder(SubmitManyBody)
_ACK_ONE = msgspec.json.Decoder(AckOneBody)
_ACK_MANY = msgspec.json.Decoder(AckManyBody)
_RAW_JOBS = msgspec.json.Decoder(msgspec.defstruct("RawJobs", [("jobs", list[msgspec.Raw])]))
_RAW_ACKS = msgspec.json.Decoder(msgspec.defstruct("RawAcks", [("acks", list[msgspec.Raw])]))
_EXTEND = msgspec.json.Decoder(ExtendBody)


def submit_command(body: bytes, now_us: int) -> Submit:
    """Raises InvalidRequest. `now_us`: what `run_at` is held against, Unix microseconds."""
    return _submit(decode(body, _SUBMIT), now_us)


def _submit(fields: SubmitBody, now_us: int) -> Submit:
    payload = bytes(fields.payload)
    if payload in (b"null", b'""'):
        raise InvalidRequest("payload is required")
    at_most("payload", len(payload), PAYLOAD_BYTES_MAX)
    _readable_numbers("payload", payload)
    run_at_us = None
    if fields.run_at is not None:
        if fields.delay_ms is not None:
            raise InvalidRequest("run_at must be left out when delay_ms is given")
        run_at_us = _run_at_us(fields.run_at, now_us)
    queue = DEFAULT_QUEUE if fields.queue is None else queue_name(fields.queue, "queue")
    return Submit(payload, fields.max_retries, fields.priority or 0, fields.delay_ms, run_at_us, queue)


def submit_many_commands(body: bytes, now_us: int) -> list[Submit]:
    """Raises InvalidRequest, which names the job by its index."""
    fields = _members(body, _SUBMIT_MANY, _RAW_JOBS, "jobs", _SUBMIT)
    commands = []
    for i, job in enumerate(fields.jobs):
        try:
            commands.append(_submit(job, now_us))
        except InvalidRequest as error:
            raise InvalidRequest(f"jobs[{i}]: {error}") from None
    return commands


def _members(
    body: bytes, decoder: msgspec.json.Decoder[T], raw: msgspec.json.Decoder[Any], name: str,
    member: msgspec.json.Decoder[Any],
) -> T:  # fmt: skip
    """A batch. If it cannot be decoded as a whole, its members are, one by one, to say which it is."""
    try:
        return decode(body, decoder, BATCH_DEPTH_MAX)
    except InvalidRequest as whole:
        try:
            pieces = raw.decode(body)
        except msgspec.MsgspecError:
            raise whole from None
        for i, piece in enumerate(getattr(pieces, name)):
            try:
                decode(bytes(piece), member)
            except InvalidRequest as error:
                raise InvalidRequest(f"{name}[{i}]: {error}") from None
        raise


def lease_command(body: bytes) -> tuple[Lease, bool]:
    """The command, and whether it asks with `max`, and so for an answer with `jobs`. No body is the original's request.

    Raises:
        InvalidRequest.
    """
    if not body:
        return Lease(), False
    fields = decode(body, _LEASE)
    at_most("worker_id", len(fields.worker_id.encode()), WORKER_ID_BYTES_MAX)
    at_most("request_id", len(fields.request_id.encode()), REQUEST_ID_BYTES_MAX)
    queues = tuple(dict.fromkeys(queue_name(name, "queues") for name in fields.queues or (DEFAULT_QUEUE,)))
    command = Lease(
        fields.lease_ms, fields.worker_id, had_body=True, queues=queues, limit=fields.max or 1,
        wait_ms=fields.wait_ms or 0, request_id=fields.request_id,
    )  # fmt: skip
    return command, fields.max is not None


def extend_fields(body: bytes) -> ExtendBody:
    """Raises InvalidRequest."""
    return decode(body, _EXTEND)


def ack_command(job_id: str, body: bytes) -> Ack:
    """Raises InvalidRequest. No body is the outcome ok."""
    if not body:
        return Ack(job_id)
    return _ack(job_id, decode(body, _ACK))


def ack_many_commands(body: bytes) -> list[Ack]:
    """Raises InvalidRequest, which names the ack by its index."""
    fields = _members(body, _ACK_MANY, _RAW_ACKS, "acks", _ACK_ONE)
    commands = []
    for i, ack in enumerate(fields.acks):
        try:
            commands.append(_ack(ack.job_id, ack))
        except InvalidRequest as error:
            raise InvalidRequest(f"acks[{i}]: {error}") from None
    return commands


def _ack(job_id: str, fields: AckBody) -> Ack:
    result: bytes | None = bytes(fields.result)
    if result in (b"", b"null", b'""'):
        result = None
    if result is not None:
        at_most("result", len(result), RESULT_BYTES_MAX)
        _readable_numbers("result", result)
    error = fields.result_error or ""
    if fields.outcome == "ok" and error:
        raise InvalidRequest("result_error must be empty when outcome is ok")
    if fields.outcome == "error" and not error:
        error = UNNAMED_ERROR
    if fields.outcome not in (None, "ok", "error"):
        raise InvalidRequest("outcome must be ok or error")
    if fields.retry_after_ms is not None and not error:
        raise InvalidRequest("retry_after_ms must be left out unless the attempt failed")
    return Ack(job_id, fields.lease_token, result, error, fields.retry_after_ms)


def queue_name(name: str, field: str) -> str:
    if not _QUEUE.fullmatch(name):
        raise InvalidRequest(f"{field} must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
    return name


def at_most(field: str, length_bytes: int, bytes_max: int) -> None:
    if length_bytes > bytes_max:
        raise InvalidRequest(f"{field} must be at most {bytes_max} bytes")


def _readable_numbers(field: str, text: bytes) -> None:
    """Numbers are the caller's and kept as they are, but for those at which the reader's JSON library would fail."""
    if not numbers_fit(text, NUMBER_CHARACTERS_MAX):
        raise InvalidRequest(
            f"{field}: a number in it must be at most {NUMBER_CHARACTERS_MAX} characters and within ±1.8e308"
        )


def _run_at_us(text: str, now_us: int) -> int:
    run_at_us = time_us(text, "run_at")
    if run_at_us > now_us + RUN_AT_AHEAD_US_MAX:
        raise InvalidRequest("run_at must be at most 10 years ahead")
    return run_at_us


def time_us(text: str, field: str) -> int:
    """An RFC 3339 time as Unix microseconds, what is finer cut off; at least 0. Raises InvalidRequest."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"{field} must be an RFC 3339 time")
    day, minute, second, fraction, offset = match.groups()
    leap_s = 1 if second == "60" else 0
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}:{59 if leap_s else second}{offset.upper()}")
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{field} must be an RFC 3339 time") from None
    return max(0, since // timedelta(microseconds=1) + leap_s * 1_000_000 + int(f"{fraction or '':0<6}"[:6]))
