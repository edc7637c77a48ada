"""Handlers: functions of a job."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from fastq.client.codec import CODEC, Codec
from fastq.client.job import Job
from fastq.client.models import LeasedJob
from fastq.client.signatures import payload_type_of

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


def wrapped(innermost: Rest, job: Job[Any], middleware: Sequence[Middleware]) -> Rest:
    """`innermost` inside all middleware. The first one is the outermost."""
    rest = innermost
    for one in reversed(middleware):
        rest = _around(one, job, rest)
    return rest


def _around(one: Middleware, job: Job[Any], rest: Rest) -> Rest:
    return lambda: one(job, rest)
