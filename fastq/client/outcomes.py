"""The end of an attempt: the value that a handler returned or what it raised, and the ack that follows.

A handler may raise anything, also what is no `Exception`, and give back any value. Nothing of it leaves this module as
an exception. A piece of an outcome that the server cannot take is dropped, and the rest is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw

from fastq.client import calls, tracing
from fastq.client.codec import Codec
from fastq.client.errors import Interrupted, LeaseGone, ProcessFailed
from fastq.client.job import WHY, Job
from fastq.client.models import Ack, LeasedJob, NewJob
from fastq.client.outcome_models import Failure, Outcome, Snooze, Success

Ended: TypeAlias = Any
"""How a handler ended: the value that it returned, the `Outcome` that it returned or raised, or a `Raised`."""

ERROR_CHARACTERS = 2000
CODE_BYTES_MAX = 64
RESULT_BYTES_MAX = 1 << 20  # the server's limit. It closes the connection of a much larger request unread.
PIECES = ("result", "retry_after_ms", "error_code")
"""What a failure can lose, first to last. It keeps its text, and whether it is final."""


@dataclass(frozen=True, slots=True)
class Raised:
    """A handler raised this, no `Outcome`. name: of its class. message: text, at most `ERROR_CHARACTERS`."""

    name: str
    message: str
    error: BaseException

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        if type(error) is RuntimeError and isinstance(error.__cause__, StopIteration | StopAsyncIteration):
            error = error.__cause__  # a coroutine cannot raise it: Python raises a RuntimeError instead
        if type(error) is ProcessFailed:
            return cls(error.name, error.message, error)
        return cls(class_name(error), text_of(error), error)

    @property
    def text(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name

    @property
    def is_cut(self) -> bool:
        """Whether the handler ended because the worker asked it to stop."""
        return issubclass(type(self.error), asyncio.CancelledError | LeaseGone)


def ended(function: Callable[[Job[Any]], Any], job: Job[Any]) -> Ended:
    """Call a handler that is no coroutine function."""
    try:
        return function(job)
    except BaseException as error:  # noqa: BLE001 -- a handler raises anything
        return ended_by(error)


def ended_by(error: BaseException) -> Ended:
    """How a handler ended that raised this. A group of one, as of an `asyncio.TaskGroup`, is what is in it."""
    found = error
    while (
        issubclass(type(found), BaseExceptionGroup) and len(inner := BaseExceptionGroup.exceptions.__get__(found)) == 1
    ):
        found = inner[0]
    if not issubclass(type(found), Outcome):  # `isinstance` calls what the class defines
        return Raised.of(error)
    BaseException.with_traceback(found, None)  # its frames hold the handler's data, as those of the others do
    for other in ("__context__", "__cause__"):
        BaseException.__setattr__(found, other, None)  # a subclass may forbid it
    return found


# --- text -------------------------------------------------------------------------------------------------------------


def class_name(value: object) -> str:
    """The name of a value's class, also if its metaclass hides it."""
    name: str = type.__dict__["__name__"].__get__(type(value))
    return name


def text_of(value: object) -> str:
    """`str(value)`, or a text that says that there is none. At most `ERROR_CHARACTERS`, without lone surrogates."""
    try:
        return cleaned(str(value))
    except BaseException as error:  # noqa: BLE001 -- a `__str__` raises anything
        return f"<{class_name(value)} without a text: its __str__ raises {class_name(error)}>"


def cleaned(text: str, characters: int = ERROR_CHARACTERS) -> str:
    """The first characters of a text. A lone surrogate, which UTF-8 does not have, becomes an escape sequence."""
    return str.encode(str.__getitem__(text, slice(characters)), "utf-8", "backslashreplace").decode()[:characters]


def code_of(value: object) -> str | None:
    """An error code that the server accepts: printable, at most 64 bytes. None if nothing is left of it."""
    text = "".join(c if c.isprintable() else " " for c in text_of(value)[:CODE_BYTES_MAX])
    return text.encode()[:CODE_BYTES_MAX].decode(errors="ignore").strip() or None


# --- acks -------------------------------------------------------------------------------------------------------------


def ack_of(job: Job[Any], outcome: Ended, time_limit_s: float | None) -> tuple[Ack | None, Sequence[NewJob]]:
    """The ack of an attempt that has ended, and its follow-up jobs. None if the lease is lost."""
    leased = job.leased
    if job.cut == "lost":
        return None, ()
    if job.cut == "released":
        return Ack.release(leased), ()
    if job.cut == "time_limit":
        return Ack.error(leased, f"the attempt exceeded its time limit of {time_limit_s:g} s", code="time_limit"), ()
    if type(outcome) is not Raised:
        try:
            return _of_value(leased, outcome)
        except BaseException as error:  # noqa: BLE001 -- a property of the value raises anything
            outcome = Raised.of(error)
    if issubclass(type(outcome.error), Interrupted):
        return Ack.release(leased), ()
    if outcome.is_cut:
        text = WHY["cancelled"] if job.cut == "cancelled" else "the handler was cancelled"
        return Ack.error(leased, text, code="cancelled"), ()
    return Ack.error(leased, outcome.text[:ERROR_CHARACTERS], code=code_of(outcome.name)), ()


def _of_value(leased: LeasedJob, value: Any) -> tuple[Ack, Sequence[NewJob]]:
    if isinstance(value, Failure):
        given: object = value.error  # any value: nothing checks it
        text = "" if given is None else text_of(given)
        code = None if value.code is None else code_of(value.code)
        ack = Ack.error(
            leased, text, code=code, retry_after_ms=value.retry_after_ms, result=value.result,
            discard=bool(value.discard),
        )  # fmt: skip
        return ack, ()
    if isinstance(value, Snooze):
        return Ack.snooze(leased, value.delay_ms), ()
    if isinstance(value, Success):
        return Ack.ok(leased, value.result), list(tracing.followed(value, leased.traceparent).then)
    return Ack.ok(leased, value), ()


def encoded(job: LeasedJob, ack: Ack, codec: Codec, told: Callable[[str], None]) -> tuple[Ack, Raw]:
    """The ack and its JSON text, without what has no JSON text. told: called with what was dropped, and why."""
    while True:
        try:
            body = calls.ack_body(ack, codec)
            if ack.result is UNSET or len(bytes(body)) <= RESULT_BYTES_MAX:
                return ack, body
            if (length := len(codec.encode(ack.result))) <= RESULT_BYTES_MAX:
                return ack, body
            why = f"the result has {length} bytes; the limit is {RESULT_BYTES_MAX}"
        except BaseException as error:  # noqa: BLE001 -- a codec, or a method of the result, raises anything
            why = f"the result cannot be encoded as JSON: {text_of(error)}"
        lesser = without_a_piece(job, ack, why, told)
        assert lesser is not None, "the text of a failure can be encoded"
        ack = lesser


def without_a_piece(job: LeasedJob, ack: Ack, why: str, told: Callable[[str], None]) -> Ack | None:
    """The ack to send instead of one that was refused. None if nothing is left to drop.

    A failure loses one piece after the other. Any other outcome becomes a failure with the text `why`.
    """
    if ack.outcome not in ("error", "discard"):
        return Ack.error(job, why[:ERROR_CHARACTERS], code="result_refused")
    piece = next((name for name in PIECES if getattr(ack, name) is not UNSET), None)
    if piece is None:
        return None
    told(f"{piece} of its failure was dropped: {why}")
    return msgspec.structs.replace(ack, **{piece: UNSET})
