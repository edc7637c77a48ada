"""Ack: report the outcome of one attempt, or of several with an answer for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq._core import ACK_OUTCOMES
from fastq.engine import Engine
from fastq.engine.commands import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    ERROR_BYTES_KEPT,
    ERROR_CODE_BYTES_MAX,
    RESULT_BYTES_MAX,
    Ack,
)
from fastq.errors import ApiError, InvalidRequest, JobNotFound, LeaseLost, NotAckable, Overloaded
from fastq.http.authentication import confirmed
from fastq.http.decoding import decode, members, null_as_empty, read_body
from fastq.http.errors import Wrapped, members_of
from fastq.http.fields import BODY_BYTES_MAX, Delay, Token, at_most, printable, readable_numbers
from fastq.http.long_bodies import commands_of
from fastq.http.reply import JSON, encode
from fastq.http.routes import CHANGES, LOST, Answer, Route

UNNAMED_ERROR = "the worker reported an error without a text"


class AckBody(msgspec.Struct, forbid_unknown_fields=True):
    """The outcome of an attempt. Without `outcome` it is error if `result_error` is not empty, else ok."""

    result: Annotated[
        msgspec.Raw,
        Meta(description=f'Any JSON value, at most {RESULT_BYTES_MAX} bytes of text; null and "" count as none.'),
    ] = msgspec.field(default_factory=msgspec.Raw)
    result_error: Annotated[str, Meta(description=f"The first {ERROR_BYTES_KEPT} bytes are kept.")] | None = None
    lease_token: Token | None = None
    outcome: Annotated[str, Meta(extra_json_schema={"enum": list(ACK_OUTCOMES)})] | None = None
    retry_after_ms: Annotated[Delay, Meta(description="With the outcome error only.")] | None = None
    delay_ms: Annotated[Delay, Meta(description="With the outcome snooze only, which requires it.")] | None = None
    error_code: (
        Annotated[
            str,
            Meta(
                description=f"With error or discard only. At most {ERROR_CODE_BYTES_MAX} bytes.",
                extra_json_schema={"minLength": 1, "maxLength": ERROR_CODE_BYTES_MAX},
            ),
        ]
        | None
    ) = None


class AckOneBody(AckBody, forbid_unknown_fields=True, kw_only=True):
    """The outcome of one job's attempt."""

    job_id: str


class AckManyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Outcomes of several attempts. Each has its own answer. The accepted ones are one change."""

    acks: Annotated[
        list[AckOneBody],
        Meta(max_length=BATCH_JOBS_MAX, description=f"At most {BATCH_BYTES_MAX} bytes of text together."),
    ]


class AckAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """Either `ok`, or the error that a single ack gets."""

    job_id: str
    ok: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    state: str | msgspec.UnsetType = msgspec.UNSET


class AcksAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """The answers in the order of the request."""

    results: list[AckAnswered]


_ACK = msgspec.json.Decoder(AckBody)
_ACK_ONE = msgspec.json.Decoder(AckOneBody)
_ACK_MANY = msgspec.json.Decoder(AckManyBody)
_RAW_ACKS = msgspec.json.Decoder(msgspec.defstruct("RawAcks", [("acks", list[msgspec.Raw])]))


def ack_command(job_id: str, body: bytes) -> Ack:
    """Decode POST /jobs/{job_id}/ack. An empty body is the outcome ok. Raises InvalidRequest."""
    if not body:
        return Ack(job_id)
    return ack_of(job_id, decode(null_as_empty(body), _ACK))


def ack_many_fields(body: bytes) -> list[AckOneBody]:
    """Decode POST /jobs/ack. Raises InvalidRequest; the message names the ack by its index."""
    return members(body, _ACK_MANY, _RAW_ACKS, "acks", _ACK_ONE).acks


def ack_member(index: int, ack: AckOneBody) -> Ack:
    """Make the command of one of several acks. Raises InvalidRequest; the message names it by its index."""
    try:
        return ack_of(ack.job_id, ack)
    except InvalidRequest as error:
        raise InvalidRequest(f"acks[{index}]: {error}") from None


def ack_of(job_id: str, fields: AckBody) -> Ack:
    result: bytes | None = bytes(fields.result)
    if result in (b"", b"null", b'""'):
        result = None
    if result is not None:
        at_most("result", len(result), RESULT_BYTES_MAX)
        readable_numbers("result", result)
    error = fields.result_error or ""
    outcome = ("error" if error else "ok") if fields.outcome is None else fields.outcome
    if outcome not in ACK_OUTCOMES:
        raise InvalidRequest(f"outcome must be {', '.join(ACK_OUTCOMES[:-1])} or {ACK_OUTCOMES[-1]}")
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


def acks_answered(job_ids: Sequence[str], refusals: Sequence[ApiError | None]) -> bytes:
    return encode(
        {
            "results": [
                {"job_id": job_id, "ok": True} if refusal is None else refusal_of(job_id, refusal)
                for job_id, refusal in zip(job_ids, refusals, strict=True)
            ]
        }
    )


def refusal_of(job_id: str, refusal: ApiError) -> dict[str, Any]:
    return {"job_id": job_id, **members_of(refusal)}


def ack_refused(error: ApiError) -> Wrapped:
    """Return the error of a refused ack in the original API's words. That API answers 400 for an unknown job."""
    return Wrapped("failed to ack job", error, status=400 if isinstance(error, JobNotFound) else None)


class Acks:
    """The responders of POST /jobs/{job_id}/ack and POST /jobs/ack."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes_max = min(BATCH_BYTES_MAX, engine.record_bytes_max // 2)

    async def ack(self, req: Request, _resp: Response, job_id: str) -> None:
        command = ack_command(job_id, await read_body(req, BODY_BYTES_MAX))
        try:
            (refusal,) = await self._acked(req, [command])
            if refusal is not None:
                raise refusal
        except (JobNotFound, NotAckable, LeaseLost) as error:
            raise ack_refused(error) from None

    async def ack_many(self, req: Request, resp: Response) -> None:
        acks = ack_many_fields(await read_body(req, self._batch_bytes_max))
        commands = await commands_of(self._engine, req, acks, ack_member)
        refusals = await self._acked(req, commands) if commands else []
        resp.content_type = JSON
        resp.data = acks_answered(
            [command.job_id for command in commands],
            [refusal and ack_refused(refusal) for refusal in refusals],
        )

    async def _acked(self, req: Request, commands: Sequence[Ack]) -> list[ApiError | None]:
        """End attempts; if the next segment of the log is not ready, wait for it once."""
        try:
            return self._engine.ack_many(req.context.principal, commands)
        except Overloaded:
            await self._engine.caught_up()
            return self._engine.ack_many(await confirmed(req), commands)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/{job_id}/ack",
                "jobs:ack",
                self.ack,
                "End an attempt",
                (Answer(200, "the outcome is on stable storage; the body is empty"), LOST, *CHANGES),
                AckBody,
                body_optional=True,
            ),
            Route(
                "POST",
                "/jobs/ack",
                "jobs:ack",
                self.ack_many,
                "End several attempts",
                (
                    Answer(200, "an answer for each ack; the accepted ones are on stable storage", AcksAnswered),
                    *CHANGES,
                ),
                AckManyBody,
            ),
        ]
