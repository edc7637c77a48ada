"""Request bodies of workers: lease, ack, extend, heartbeat, progress, transactions. Messages as in `decoding`."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta

from fastq.engine.commands import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    DEFAULT_QUEUE,
    ERROR_BYTES_KEPT,
    ERROR_CODE_BYTES_MAX,
    LEASES_EXTENDED_MAX,
    LEASES_MAX,
    NOTE_BYTES_MAX,
    OPS_MAX,
    QUEUES_MAX,
    REQUEST_ID_BYTES_MAX,
    RESULT_BYTES_MAX,
    WAIT_MS_MAX,
    WEIGHT_MAX,
    WORKER_ID_BYTES_MAX,
    Ack,
    Extend,
    Lease,
    Submit,
    Transaction,
)
from fastq.errors import InvalidRequest
from fastq.http.decoding import DEPTH_MAX, at_most, decode, queue_name
from fastq.http.resources.bodies import (
    Delay,
    LeaseMs,
    QueueName,
    SubmitBody,
    digest_of,
    members,
    printable,
    readable_numbers,
    submit_of,
)

TOKEN_CHARACTERS_MAX = 200
UNNAMED_ERROR = "the worker reported an error without a text"
OUTCOMES = ("ok", "error", "discard", "snooze", "release")
TRANSACTION_DEPTH_MAX = DEPTH_MAX + 3  # its own object, the array and the operation stand around each member

Token = Annotated[str, Meta(max_length=TOKEN_CHARACTERS_MAX)]
WorkerId = Annotated[
    str,
    Meta(
        description=f"At most {WORKER_ID_BYTES_MAX} bytes of UTF-8.",
        extra_json_schema={"maxLength": WORKER_ID_BYTES_MAX},
    ),
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
        | Annotated[
            dict[str, Annotated[int, Meta(ge=1, le=WEIGHT_MAX)]],
            Meta(
                min_length=1,
                max_length=QUEUES_MAX,
                description="By weight: while all have jobs, so many of each in turn.",
                extra_json_schema={"propertyNames": {"pattern": "^[A-Za-z0-9._-]{1,64}$"}},
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
    worker_id: WorkerId = ""


class AckBody(msgspec.Struct, forbid_unknown_fields=True):
    """How an attempt ended. Without `outcome` a `result_error` that is not empty is an error, all else is ok."""

    result: Annotated[
        msgspec.Raw,
        Meta(description=f'Any JSON value, at most {RESULT_BYTES_MAX} bytes of text; null and "" count as none.'),
    ] = msgspec.field(default_factory=msgspec.Raw)
    result_error: Annotated[str, Meta(description=f"The first {ERROR_BYTES_KEPT} bytes are kept.")] | None = None
    lease_token: Token | None = None
    outcome: Annotated[str, Meta(extra_json_schema={"enum": list(OUTCOMES)})] | None = None
    retry_after_ms: Annotated[Delay, Meta(description="Of an error.")] | None = None
    delay_ms: Annotated[Delay, Meta(description="Of a snooze, which needs it.")] | None = None
    error_code: (
        Annotated[
            str,
            Meta(
                description=f"Of an error or a discard. At most {ERROR_CODE_BYTES_MAX} bytes.",
                extra_json_schema={"minLength": 1, "maxLength": ERROR_CODE_BYTES_MAX},
            ),
        ]
        | None
    ) = None


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
    """How long a lease is to last from now on. It never gets shorter. Left out: as long as it was granted."""

    lease_token: Token
    lease_ms: LeaseMs | None = None


class ExtendOneBody(ExtendBody, forbid_unknown_fields=True, kw_only=True):
    """The same of one job."""

    job_id: str


class LeaseHeldBody(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    lease_token: Token


class HeartbeatBody(msgspec.Struct, forbid_unknown_fields=True):
    """A worker that lives, and the leases that it holds: each is extended, or said to be lost."""

    worker_id: WorkerId
    leases: Annotated[list[LeaseHeldBody], Meta(max_length=LEASES_EXTENDED_MAX)] = []
    lease_ms: LeaseMs | None = None


class ProgressBody(msgspec.Struct, forbid_unknown_fields=True):
    """How far an attempt has come."""

    lease_token: Token
    percent: Annotated[int, Meta(ge=0, le=100)]
    note: Annotated[
        str,
        Meta(description=f"At most {NOTE_BYTES_MAX} bytes of UTF-8.", extra_json_schema={"maxLength": NOTE_BYTES_MAX}),
    ] = ""


class OpBody(msgspec.Struct, forbid_unknown_fields=True):
    """One operation: one member. An ack needs its `lease_token`."""

    ack: AckOneBody | None = None
    submit: SubmitBody | None = None
    extend: ExtendOneBody | None = None


class TransactionBody(msgspec.Struct, forbid_unknown_fields=True):
    """What happens together or not at all. A job is acked or extended at most once."""

    ops: Annotated[
        list[OpBody],
        Meta(min_length=1, max_length=OPS_MAX, description=f"In all at most {BATCH_BYTES_MAX} bytes of text."),
    ]


# --- commands ---------------------------------------------------------------------------------------------------------

_LEASE = msgspec.json.Decoder(LeaseBody)
_ACK = msgspec.json.Decoder(AckBody)
_ACK_ONE = msgspec.json.Decoder(AckOneBody)
_ACK_MANY = msgspec.json.Decoder(AckManyBody)
_RAW_ACKS = msgspec.json.Decoder(msgspec.defstruct("RawAcks", [("acks", list[msgspec.Raw])]))
_EXTEND = msgspec.json.Decoder(ExtendBody)
_HEARTBEAT = msgspec.json.Decoder(HeartbeatBody)
_PROGRESS = msgspec.json.Decoder(ProgressBody)
_TRANSACTION = msgspec.json.Decoder(TransactionBody)
_RAW_OPS = msgspec.json.Decoder(msgspec.defstruct("RawOps", [("ops", list[msgspec.Raw])]))
_OP = msgspec.json.Decoder(OpBody)


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
    weights = tuple(fields.queues.values()) if isinstance(fields.queues, dict) else ()
    command = Lease(
        fields.lease_ms, fields.worker_id, had_body=True, queues=queues, limit=fields.max or 1,
        wait_ms=fields.wait_ms or 0, request_id=fields.request_id, weights=weights,
    )  # fmt: skip
    return command, fields.max is not None


def extend_fields(body: bytes) -> ExtendBody:
    """Raises InvalidRequest."""
    return decode(body, _EXTEND)


def heartbeat_fields(body: bytes) -> HeartbeatBody:
    """Raises InvalidRequest."""
    fields = decode(body, _HEARTBEAT)
    printable(fields.worker_id, "worker_id", WORKER_ID_BYTES_MAX)
    return fields


def progress_fields(body: bytes) -> ProgressBody:
    """Raises InvalidRequest."""
    fields = decode(body, _PROGRESS)
    at_most("note", len(fields.note.encode()), NOTE_BYTES_MAX)
    return fields


def ack_command(job_id: str, body: bytes) -> Ack:
    """Raises InvalidRequest. No body is the outcome ok."""
    if not body:
        return Ack(job_id)
    return _ack(job_id, decode(body, _ACK))


def ack_many_commands(body: bytes) -> list[Ack]:
    """Raises InvalidRequest, which names the ack by its index."""
    fields = members(body, _ACK_MANY, _RAW_ACKS, "acks", _ACK_ONE)
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
        readable_numbers("result", result)
    error = fields.result_error or ""
    outcome = ("error" if error else "ok") if fields.outcome is None else fields.outcome
    if outcome not in OUTCOMES:
        raise InvalidRequest(f"outcome must be {', '.join(OUTCOMES[:-1])} or {OUTCOMES[-1]}")
    if outcome == "error":
        error = error or UNNAMED_ERROR
    elif fields.retry_after_ms is not None:
        raise InvalidRequest("retry_after_ms must be left out unless the attempt failed")
    if (outcome == "snooze") != (fields.delay_ms is not None):
        raise InvalidRequest("delay_ms is required when outcome is snooze, and must be left out otherwise")
    if outcome not in ("error", "discard"):
        if error:
            raise InvalidRequest(f"result_error must be empty when outcome is {outcome}")
        if fields.error_code is not None:
            raise InvalidRequest("error_code must be left out unless outcome is error or discard")
    if outcome in ("snooze", "release") and result is not None:
        raise InvalidRequest(f"result must be left out when outcome is {outcome}")
    code = "" if fields.error_code is None else printable(fields.error_code, "error_code", ERROR_CODE_BYTES_MAX)
    return Ack(job_id, fields.lease_token, result, error, fields.retry_after_ms, outcome, fields.delay_ms, code)


def transaction_command(body: bytes, now_us: int, idempotency_key: str, traceparent: str) -> Transaction:
    """Raises InvalidRequest, which names the operation by its index."""
    fields = members(body, _TRANSACTION, _RAW_OPS, "ops", _OP, TRANSACTION_DEPTH_MAX)
    ops: list[Ack | Extend | Submit] = []
    named: set[str] = set()
    for i, op in enumerate(fields.ops):
        try:
            command = _op(op, now_us, idempotency_key, traceparent)
            if isinstance(command, Ack | Extend):
                if command.job_id in named:
                    raise InvalidRequest("job_id must not be one that another operation names")
                named.add(command.job_id)
            ops.append(command)
        except InvalidRequest as error:
            raise InvalidRequest(f"ops[{i}]: {error}") from None
    return Transaction(tuple(ops), idempotency_key, _digest_of(fields) if idempotency_key else 0)


def _op(op: OpBody, now_us: int, idempotency_key: str, traceparent: str) -> Ack | Extend | Submit:
    if sum(one is not None for one in (op.ack, op.submit, op.extend)) != 1:
        raise InvalidRequest("one of ack, submit and extend is required, and no other")
    if op.ack is not None:
        if op.ack.lease_token is None:
            raise InvalidRequest("ack.lease_token is required")
        return _ack(op.ack.job_id, op.ack)
    if op.extend is not None:
        return Extend(op.extend.job_id, op.extend.lease_token, op.extend.lease_ms or 0)
    assert op.submit is not None
    if idempotency_key and op.submit.idempotency_key is not None:
        raise InvalidRequest("submit.idempotency_key must be left out when the header Idempotency-Key is given")
    return submit_of(op.submit, now_us, traceparent)


def _digest_of(fields: TransactionBody) -> int:
    """As of jobs, over all operations in their order."""
    digest = sha256()
    for op in fields.ops:
        of_job = 0 if op.submit is None else digest_of(op.submit)
        digest.update(msgspec.json.encode([op.ack, op.extend, of_job]))
    return int.from_bytes(digest.digest()[:8], "little")
