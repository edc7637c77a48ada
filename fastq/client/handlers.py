"""Handlers: functions of a job, and the acks that follow from their outcomes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastq.client.codec import CODEC, Codec
from fastq.client.errors import LeaseGone, ProcessFailed
from fastq.client.job import WHY, Job
from fastq.client.models import Ack, Failure, LeasedJob, NewJob, Snooze, Success
from fastq.client.signatures import payload_type_of

Function: TypeAlias = Callable[[Job[Any]], Any]
Rest: TypeAlias = Callable[[], Awaitable[Any]]
Middleware: TypeAlias = Callable[[Job[Any], Rest], Awaitable[Any]]
"""Called around each attempt. It awaits `rest()` for the outcome and returns an outcome, or raises."""

ERROR_CHARACTERS = 2000


@dataclass(frozen=True)
class Handler:
    function: Function
    payload_type: Any
    is_async: bool
    in_process: bool = False

    @classmethod
    def of(
        cls, function: Function, payload_type: Any = None, in_process: bool = False, codec: Codec = CODEC
    ) -> Handler:  # fmt: skip
        """payload_type: default: T of the parameter annotated `Job[T]`; without an annotation JSON types.

        Raises:
            ValueError: the type is not found or cannot be read by the codec, or an async function has `in_process`.
        """
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        if is_async and in_process:
            raise ValueError("an async handler cannot run in a child process: make it a plain function")
        payload_type = payload_type_of(function) if payload_type is None else payload_type
        if (check := getattr(codec, "check", None)) is not None:
            check(payload_type)
        return cls(function, payload_type, is_async, in_process)

    def payload_of(self, leased: LeasedJob, codec: Codec) -> Any:
        """The decoded payload. Raises ValueError."""
        return codec.decode(bytes(leased.payload_json), self.payload_type)


def wrapped(innermost: Rest, job: Job[Any], middleware: Sequence[Middleware]) -> Rest:
    """`innermost` inside all middleware. The first one is the outermost."""
    rest = innermost
    for one in reversed(middleware):
        rest = _around(one, job, rest)
    return rest


def _around(one: Middleware, job: Job[Any], rest: Rest) -> Rest:
    return lambda: one(job, rest)


def ack_of(job: Job[Any], done: asyncio.Future[Any], time_limit_s: float | None) -> tuple[Ack | None, Sequence[NewJob]]:
    """The ack of an attempt that has ended, and its follow-up jobs. None if the lease is lost."""
    leased = job.leased
    if job.cut == "lost":
        return None, ()
    if job.cut == "released":
        return Ack.release(leased), ()
    if job.cut == "time_limit":
        return Ack.error(leased, f"the attempt exceeded its time limit of {time_limit_s:g} s", code="time_limit"), ()
    if done.cancelled():
        return _cut_short(job), ()
    if (error := done.exception()) is not None:
        if isinstance(error, LeaseGone):
            return _cut_short(job), ()
        name, message = type(error).__name__, str(error)
        if isinstance(error, ProcessFailed):
            name, message = error.name, error.message
        return Ack.error(leased, f"{name}: {message}"[:ERROR_CHARACTERS], code=name[:64]), ()
    return _of_value(leased, done.result())


def _cut_short(job: Job[Any]) -> Ack:
    text = WHY["cancelled"] if job.cut == "cancelled" else "the handler was cancelled"
    return Ack.error(job.leased, text, code="cancelled")


def _of_value(leased: LeasedJob, value: Any) -> tuple[Ack, Sequence[NewJob]]:
    if isinstance(value, Failure):
        ack = Ack.error(
            leased, value.error[:ERROR_CHARACTERS], code=value.code, retry_after_ms=value.retry_after_ms,
            result=value.result, discard=value.discard,
        )  # fmt: skip
        return ack, ()
    if isinstance(value, Snooze):
        return Ack.snooze(leased, value.delay_ms), ()
    if isinstance(value, Success):
        return Ack.ok(leased, value.result), value.then
    return Ack.ok(leased, value), ()
