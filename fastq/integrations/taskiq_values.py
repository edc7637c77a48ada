"""What taskiq's arguments, results and errors become as JSON. A value comes back as it was sent, or it is refused.

taskiq writes values with pydantic, and reads arguments and results by the annotations of the task's function. A value
in a place without an annotation comes back as JSON types, as everywhere in the SDK.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, get_type_hints

from pydantic import TypeAdapter
from taskiq import TaskiqMessage, TaskiqResult

from fastq.client.codec import CODEC, DEPTH_MAX
from fastq.client.errors import NotJSON
from fastq.client.outcomes import class_name, cleaned, text_of
from fastq.client.round_trip import CONTAINERS, field_names, find_misfit, parts, same


class _Limits(NamedTuple):
    """What is told of an exception: how many arguments and causes, and how many characters of an argument."""

    arguments: int
    causes: int
    characters: int


LIMITS = _Limits(arguments=100, causes=10, characters=500_000)
NARROW_LIMITS = _Limits(arguments=5, causes=10, characters=2_000)  # under 500 kB in any encoding

_any: TypeAdapter[Any] = TypeAdapter(Any)


def check(value: Any, place: str, annotation: Any = None) -> None:
    """Raises NotJSON: JSON cannot carry the value, or a reader with this annotation gets another one."""
    try:
        find_misfit(value, DEPTH_MAX, "pydantic")
        _find_iterator(value, "")
        plain = _written(value)
        if plain != value:
            same(value, _read_or_plain(plain, annotation), _read)
    except NotJSON as error:
        raise error.within(place) from error.__cause__


def check_arguments(message: TaskiqMessage, function: Callable[..., Any] | None) -> None:
    """Raises NotJSON. function: that of the task; None: the sender does not have it."""
    positional, named = ([], {}) if function is None else _annotations(function)
    for number, value in enumerate(message.args):
        check(value, f"args[{number}]", positional[min(number, len(positional) - 1)] if positional else None)
    for name, value in message.kwargs.items():
        check(value, f'kwargs["{name}"]', named.get(name))


@lru_cache(maxsize=1024)
def _annotations(function: Callable[..., Any]) -> tuple[list[Any], dict[str, Any]]:
    """Those of positional arguments, of which the last one is for all that follow, and those of named ones."""
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [hints.get(one.name) for one in parameters if one.kind in kinds]
    rest = [hints.get(one.name) for one in parameters if one.kind is inspect.Parameter.VAR_POSITIONAL]
    named = {one.name: hints.get(one.name) for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD}
    return [*positional, *(rest or [None])], named


def _find_iterator(value: Any, place: str) -> None:
    """Raises NotJSON: pydantic would use an iterator up, and the next writer of the value would find it empty."""
    if isinstance(value, Iterator):
        raise NotJSON(place, f"{class_name(value)} has no JSON form: make a list of it")
    if isinstance(value, CONTAINERS) or field_names(value):
        for part, its_place, _ in parts(value, place, "pydantic"):
            _find_iterator(part, its_place)


def _written(value: Any) -> Any:
    """The value as JSON types. Raises NotJSON."""
    try:
        return _any.dump_python(value, mode="json")
    except Exception as error:
        raise NotJSON("", f"{class_name(value)} has no JSON form: {error}") from error


def _read_or_plain(plain: Any, annotation: Any) -> Any:
    """As taskiq reads it: what does not match the annotation stays as it is."""
    try:
        return plain if annotation is None else _read(plain, annotation)
    except (TypeError, ValueError, RuntimeError):
        return plain


def _read(plain: Any, as_type: Any) -> Any:
    """Raises TypeError: the type cannot be read; ValueError: it does not match."""
    try:
        adapter = _adapter(as_type)
    except TypeError:  # it cannot be hashed
        adapter = TypeAdapter(as_type)
    except Exception as error:
        raise TypeError(f"{as_type} cannot be read from JSON") from error
    return adapter.validate_python(plain)


@lru_cache(maxsize=1024)
def _adapter(as_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(as_type)


# --- results ----------------------------------------------------------------------------------------------------------


def shown(result: TaskiqResult[Any], annotation: Any = None) -> Any:
    """The result as JSON types. annotation: the return type of the task. Raises NotJSON: its value is refused."""
    if result.is_err:
        return _shown_error(result)
    check(result.return_value, "result", annotation)
    return result.model_dump(mode="json")


def _shown_error(result: TaskiqResult[Any]) -> Any:
    """An error always arrives: what JSON cannot carry is cut and cleaned.

    taskiq would write each argument of the exception by itself, twice, and raise for what it cannot write.
    """
    plain = result.model_copy(update={"error": None, "return_value": None, "labels": {}}).model_dump(mode="json")
    for limits in (LIMITS, NARROW_LIMITS):
        plain["error"] = None if result.error is None else _told(result.error, limits)
        try:
            CODEC.encode(plain)
            break
        except NotJSON:  # it is too long
            continue
    return plain


def _told(error: BaseException, limits: _Limits, depth: int = 0) -> dict[str, Any]:
    """An exception as taskiq writes it."""
    cause = error.__cause__ if error.__cause__ is not None or error.__suppress_context__ else error.__context__
    is_cause = cause is not None and cause is error.__cause__
    told = None if cause is None or depth == limits.causes else _told(cause, limits, depth + 1)
    return {
        "exc_type": cleaned(type.__dict__["__qualname__"].__get__(type(error))),
        "exc_message": [_told_argument(one, limits) for one in error.args[: limits.arguments]],
        "exc_module": cleaned(str(type(error).__module__)),
        "exc_cause": told if is_cause else None,
        "exc_context": None if is_cause else told,
        "exc_suppress_context": error.__suppress_context__,
    }


def _told_argument(value: Any, limits: _Limits) -> Any:
    if isinstance(value, str):
        return cleaned(value, limits.characters)
    try:
        text = CODEC.encode(value)
    except Exception:  # noqa: BLE001 -- a method of the value raises anything
        return text_of(value)
    return CODEC.decode(text, Any) if len(text) <= limits.characters else text_of(value)
