"""Handlers: functions of a job."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from fastq.client.codec import Codec
from fastq.client.job import Job
from fastq.client.models import LeasedJob

Function: TypeAlias = Callable[[Job[Any]], Any]
Rest: TypeAlias = Callable[[], Awaitable[Any]]
Middleware: TypeAlias = Callable[[Job[Any], Rest], Awaitable[Any]]
"""Called around each attempt. It awaits `rest()` for the outcome and returns an outcome, or raises."""


@dataclass(frozen=True)
class Handler:
    function: Function
    payload_type: Any
    is_async: bool
    in_process: bool = False

    @classmethod
    def of(cls, function: Function, payload_type: Any = None, in_process: bool = False) -> Handler:
        """payload_type: default: T of a parameter annotated `Job[T]`, else the JSON types. Raises ValueError."""
        called = function if inspect.isroutine(function) else type(function).__call__
        is_async = inspect.iscoroutinefunction(called)
        if is_async and in_process:
            raise ValueError("an async handler cannot run in a child process: make it a plain function")
        return cls(function, payload_type or _annotated(called), is_async, in_process)

    @property
    def name(self) -> str:
        """For people: the module and name of the function."""
        function = self.function
        while isinstance(function, partial):
            function = function.func
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', '')}.{name}"

    def payload_of(self, leased: LeasedJob, codec: Codec) -> Any:
        """The decoded payload. Raises ValueError."""
        return codec.decode(bytes(leased.payload_json), self.payload_type)


def _annotated(function: Callable[..., Any]) -> Any:
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # a name that exists for type checkers only
        return Any
    for name, hint in hints.items():
        if name != "return" and get_origin(hint) is Job:
            return get_args(hint)[0]
    return Any


def wrapped(innermost: Rest, job: Job[Any], middleware: Sequence[Middleware]) -> Rest:
    """`innermost` inside all middleware. The first one is the outermost."""
    rest = innermost
    for one in reversed(middleware):
        rest = _around(one, job, rest)
    return rest


def _around(one: Middleware, job: Job[Any], rest: Rest) -> Rest:
    return lambda: one(job, rest)
