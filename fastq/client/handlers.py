"""Handlers: functions of a job, async or not; which of them a job goes to; and what their outcome is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from fastq.client.codec import Codec
from fastq.client.errors import LeaseGone, ProcessFailed
from fastq.client.job import WHY, Job
from fastq.client.models import Ack, Failure, LeasedJob, NewJob, Snooze, Success

Function: TypeAlias = Callable[[Job[Any]], Any]
Rest: TypeAlias = Callable[[], Awaitable[Any]]
Middleware: TypeAlias = Callable[[Job[Any], Rest], Awaitable[Any]]
"""Called around each attempt: awaits `rest()` for the outcome, and returns it, another one, or raises."""

ERROR_CHARACTERS = 2000


@dataclass(frozen=True)
class Handler:
    function: Function
    payload_type: Any
    is_async: bool
    in_process: bool = False

    @classmethod
    def of(cls, function: Function, payload_type: Any = None, in_process: bool = False) -> Handler:
        """payload_type: else that of the annotation of the first parameter, `Job[Video]`; else as JSON has it."""
        called = function if inspect.isroutine(function) else type(function).__call__
        is_async = inspect.iscoroutinefunction(called)
        if is_async and in_process:
            raise ValueError("an async handler runs in the worker's loop, not in a process")
        return cls(function, payload_type or _annotated(called), is_async, in_process)

    def payload_of(self, leased: LeasedJob, codec: Codec) -> Any:
        """Raises ValueError."""
        return codec.decode(bytes(leased.payload_json), self.payload_type)


def _annotated(function: Callable[..., Any]) -> Any:
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # an annotation that only a type checker can read
        return Any
    for name, hint in hints.items():
        if name != "return" and get_origin(hint) is Job:
            return get_args(hint)[0]
    return Any


def wrapped(innermost: Rest, job: Job[Any], middleware: Sequence[Middleware]) -> Rest:
    """The first is the outermost."""
    rest = innermost
    for one in reversed(middleware):
        rest = _around(one, job, rest)
    return rest


def _around(one: Middleware, job: Job[Any], rest: Rest) -> Rest:
    return lambda: one(job, rest)


def ack_of(job: Job[Any], done: asyncio.Future[Any], time_limit_s: float | None) -> tuple[Ack | None, Sequence[NewJob]]:
    """What the server is told, and the jobs that go with it; None if it is nothing to be told."""
    leased = job.leased
    if job.cut == "lost":
        return None, ()
    if job.cut == "released":
        return Ack.release(leased), ()
    if job.cut == "time_limit":
        return Ack.error(leased, f"the time limit of {time_limit_s:g} s is over", code="time_limit"), ()
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
