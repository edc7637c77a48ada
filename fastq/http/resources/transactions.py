"""Transactions: acks, extends and submits, all or none."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import BATCH_BYTES_MAX, OPS_MAX, Ack, Extend, Submit, Transaction
from fastq.errors import CleanerBehind, InvalidRequest, Overloaded
from fastq.http.authentication import confirmed
from fastq.http.decoding import DEPTH_MAX, members, read_body
from fastq.http.errors import Failure
from fastq.http.fields import Time, idempotency_key_of, traceparent_of
from fastq.http.reply import JSON, encode, time_of
from fastq.http.resources.ack import AckOneBody, ack_of
from fastq.http.resources.extend import ExtendBody
from fastq.http.resources.submit import SubmitBody, digest_of, submit_of, submitted
from fastq.http.routes import ABSENT, BEHIND_OR_FULL, CHANGES, KEY_USED, Answer, Route

if TYPE_CHECKING:
    from fastq._core import Submitted

TRANSACTION_DEPTH_MAX = DEPTH_MAX + 3  # each member is inside the transaction's object, the array and the operation


class ExtendOneBody(ExtendBody, forbid_unknown_fields=True, kw_only=True):
    """Extend one job's lease."""

    job_id: str


class OpBody(msgspec.Struct, forbid_unknown_fields=True):
    """One operation: exactly one member. An ack requires its `lease_token`."""

    ack: AckOneBody | None = None
    submit: SubmitBody | None = None
    extend: ExtendOneBody | None = None


class TransactionBody(msgspec.Struct, forbid_unknown_fields=True):
    """Operations that all happen or none. A job is acked or extended at most once."""

    ops: Annotated[
        list[OpBody],
        Meta(max_length=OPS_MAX, description=f"At most {BATCH_BYTES_MAX} bytes of text together."),
    ]


class OpAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """An ack has `ok`, an extend `lease_until`, a submit the members of a submit's answer."""

    job_id: str
    ok: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    lease_until: Time | msgspec.UnsetType = msgspec.UNSET
    duplicate: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    replaced: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class TransactionDone(msgspec.Struct, forbid_unknown_fields=True):
    """The answers in the order of the request."""

    results: list[OpAnswered]


_TRANSACTION = msgspec.json.Decoder(TransactionBody)
_RAW_OPS = msgspec.json.Decoder(msgspec.defstruct("RawOps", [("ops", list[msgspec.Raw])]))
_OP = msgspec.json.Decoder(OpBody)


def transaction_command(body: bytes, now_us: int, idempotency_key: str, traceparent: str) -> Transaction:
    """Decode POST /transactions. Raises InvalidRequest; the message names the operation by its index."""
    fields = members(body, _TRANSACTION, _RAW_OPS, "ops", _OP, TRANSACTION_DEPTH_MAX)
    ops: list[Ack | Extend | Submit] = []
    named: set[str] = set()
    for i, op in enumerate(fields.ops):
        try:
            command = _op(op, now_us, idempotency_key, traceparent)
            if isinstance(command, Ack | Extend):
                if command.job_id in named:
                    raise InvalidRequest("job_id must be different from that of every other ack and extend")
                named.add(command.job_id)
            ops.append(command)
        except InvalidRequest as error:
            raise InvalidRequest(f"ops[{i}]: {error}") from None
    return Transaction(tuple(ops), idempotency_key, _digest_of(fields) if idempotency_key else 0)


def _op(op: OpBody, now_us: int, idempotency_key: str, traceparent: str) -> Ack | Extend | Submit:
    if sum(one is not None for one in (op.ack, op.submit, op.extend)) != 1:
        raise InvalidRequest("exactly one of ack, submit and extend is required")
    if op.ack is not None:
        if op.ack.lease_token is None:
            raise InvalidRequest("ack.lease_token is required")
        return ack_of(op.ack.job_id, op.ack)
    if op.extend is not None:
        return Extend(op.extend.job_id, op.extend.lease_token, op.extend.lease_ms or 0)
    assert op.submit is not None
    if idempotency_key and op.submit.idempotency_key is not None:
        raise InvalidRequest("submit.idempotency_key must be left out when the header Idempotency-Key is given")
    return submit_of(op.submit, now_us, traceparent)


def _digest_of(fields: TransactionBody) -> int:
    """Return a 64-bit digest of all operations in their order, as `digest_of` of jobs."""
    digest = sha256()
    for op in fields.ops:
        of_job = 0 if op.submit is None else digest_of(op.submit)
        digest.update(msgspec.json.encode([op.ack, op.extend, of_job]))
    return int.from_bytes(digest.digest()[:8], "little")


def transaction_done(ops: Sequence[Ack | Extend | Submit], answered: Sequence[int | Submitted | None]) -> bytes:
    results = []
    for op, answer in zip(ops, answered, strict=True):
        if isinstance(op, Submit):
            assert isinstance(answer, tuple)
            results.append(submitted(answer))
        elif isinstance(answer, int):
            results.append({"job_id": op.job_id, "lease_until": time_of(answer)})
        else:
            results.append({"job_id": op.job_id, "ok": True})
    return encode({"results": results})


class Transactions:
    """The responder of POST /transactions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes_max = min(BATCH_BYTES_MAX, engine.record_bytes_max // 2)

    async def transact(self, req: Request, resp: Response) -> None:
        body = await read_body(req, self._batch_bytes_max)
        transaction = transaction_command(
            body, self._engine.now_us(), idempotency_key_of(req), traceparent_of(req.get_header("traceparent"))
        )
        who = req.context.principal
        resp.content_type = JSON
        if not transaction.ops:
            resp.data = transaction_done([], [])
            return
        try:
            answered, _ = self._engine.transact(who, transaction)
        except (CleanerBehind, Overloaded):
            await self._engine.caught_up()
            answered, _ = self._engine.transact(await confirmed(req), transaction)
        resp.data = transaction_done(transaction.ops, answered)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/transactions",
                "jobs:ack",
                self.transact,
                "Ack, extend and submit, all or nothing",
                (
                    Answer(200, "all operations are on stable storage; an answer for each", TransactionDone),
                    ABSENT,
                    Answer(409, "a lease is lost, or an attempt was acked before", Failure),
                    KEY_USED,
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                TransactionBody,
                headers=("Idempotency-Key", "traceparent"),
            ),
        ]
