"""Finds the payload type of a handler: T of its parameter annotated `Job[T]`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from fastq.client.job import Job

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
ADVICE = "annotate it as Job[T], or pass payload_type="


def payload_type_of(function: Callable[..., Any]) -> Any:
    """T of the parameter annotated `Job[T]`; Any without an annotation: JSON types.

    Raises:
        ValueError: the function does not take one argument, or its type cannot be found.
    """
    if inspect.isbuiltin(function):  # such as list.append: it has no annotations
        return Any
    try:
        parameter = _job_parameter(function)
        if parameter.annotation is inspect.Parameter.empty:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                raise ValueError(
                    f"takes *{parameter.name}, which hides the payload type: use functools.wraps, {ADVICE}"
                )
            return Any
        return _payload_type(_resolved(function, parameter), parameter.name)
    except ValueError as error:
        raise ValueError(f"the handler {_name(function)} {error}") from error


def _job_parameter(function: Callable[..., Any]) -> inspect.Parameter:
    """The parameter that gets the job. Raises ValueError: the function cannot be called with one argument."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ValueError("has no signature: pass payload_type=") from None
    needed = [one for one in parameters if one.default is one.empty and one.kind in POSITIONAL]
    named = [one.name for one in parameters if one.default is one.empty and one.kind is inspect.Parameter.KEYWORD_ONLY]
    first = next((one for one in parameters if one.kind in (*POSITIONAL, inspect.Parameter.VAR_POSITIONAL)), None)
    if first is None or len(needed) > 1 or named:
        raise ValueError(f"is called with one argument, the job, but takes {inspect.signature(function)}")
    return first


def _resolved(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The annotation as a type. Raises ValueError: a name in it is not defined."""
    holder = SimpleNamespace(__annotations__={"job": parameter.annotation})
    unknown: Exception | None = None
    for names in _namespaces(function):
        try:
            return get_type_hints(holder, globalns=dict(names), include_extras=True)["job"]
        except Exception as error:  # noqa: BLE001 -- an annotation is an expression of the caller
            unknown = unknown or error
    raise ValueError(f"has an annotation that cannot be resolved, {parameter.annotation!r}: {unknown}; "
                     f"import its names at run time, or pass payload_type=") from unknown  # fmt: skip


def _namespaces(function: Callable[..., Any]) -> Iterator[Mapping[str, Any]]:
    """Where the names of an annotation may be: in the function's module and closure, or where it is registered."""
    plain = _plain(function)
    own = dict(getattr(plain, "__globals__", {}))
    code, cells = getattr(plain, "__code__", None), getattr(plain, "__closure__", None) or ()
    for name, cell in zip(code.co_freevars if code else (), cells, strict=True):
        try:
            own[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield own
    frame = sys._getframe(1)
    local: dict[str, Any] = {}
    while (next_frame := frame.f_back) is not None:
        frame = next_frame
        if frame.f_globals is getattr(plain, "__globals__", None):
            local = {**frame.f_locals, **local}
    yield {"Job": Job, **own, **local}


def _plain(function: Any) -> Any:
    """The function inside decorators, partials, methods and callable objects."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        elif not inspect.isroutine(function) and not isinstance(function, type):
            function = type(function).__call__
        else:
            return function


def _payload_type(annotation: Any, name: str) -> Any:
    """Raises ValueError: the annotation is not a `Job`."""
    while hasattr(annotation, "__value__"):  # type VideoJob = Job[Video]
        annotation = annotation.__value__
    if get_origin(annotation) is Annotated:
        return _payload_type(get_args(annotation)[0], name)
    if annotation in (Any, object, Job):
        return Any
    if get_origin(annotation) is not Job:
        raise ValueError(f"has {name}: {annotation}, but a handler gets a Job: {ADVICE}")
    (payload_type,) = get_args(annotation)
    if isinstance(payload_type, TypeVar):
        raise ValueError(f"has {name}: Job[{payload_type}], and a type variable names no type: pass payload_type=")
    return payload_type


def _name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else _plain(function)
    return str(getattr(named, "__qualname__", repr(function)))
