"""Writes and reads pydantic's models. It never imports pydantic before the program does.

A model is written by alias, in pydantic's round-trip mode: without computed fields, `Json` fields as text. If a field
is read by another name than it is written by (`validation_alias` and `serialization_alias`), the model is written by
the names of its fields, and read by both.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from dataclasses import is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints


def is_model(kind: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def dump(model: Any) -> bytes:
    """JSON text. Raises ValueError, TypeError: a field cannot be written."""
    kind: Any = type(model)
    text: str = model.model_dump_json(by_alias=_is_read_by_alias(kind), round_trip=True, warnings=False)
    return text.encode()


class _Whole(type):
    def __instancecheck__(cls, value: object) -> bool:  # msgspec asks it about what `load` returned
        return True


class Region(metaclass=_Whole):
    """A part of a type that pydantic reads as a whole, such as a union of models."""

    adapter: Any
    by_alias: bool


def load(kind: Any, text: bytes) -> Any:
    """The value of JSON text. kind: a model class or a `Region`. Raises ValueError."""
    if issubclass(kind, Region):
        return kind.adapter.validate_json(text, **_names(kind.by_alias))
    return kind.model_validate_json(text, **_names(_is_read_by_alias(kind)))


def _names(by_alias: bool) -> dict[str, bool]:
    return {"by_alias": True} if by_alias else {"by_alias": True, "by_name": True}


def readable(as_type: Any) -> Any:
    """The type with a `Region` for each part that msgspec cannot read. Raises TypeError: neither can pydantic."""
    while hasattr(as_type, "__value__"):  # type X = …
        as_type = as_type.__value__
    origin, args = get_origin(as_type), get_args(as_type)
    if origin in (Union, UnionType):
        others = [arg for arg in args if arg is not type(None)]
        if len(others) > 1 and any(map(_holds_model, others)):
            return _region(as_type)
        return Union[tuple(map(readable, args))]  # noqa: UP007 -- of a computed tuple
    if origin is Annotated and _holds_model(args[0]):
        return _region(as_type)
    if origin is not None and origin is not Annotated and any(map(_holds_model, args)) and not is_model(as_type):
        return origin[tuple(arg if arg is ... else readable(arg) for arg in args)]
    return as_type


def _holds_model(as_type: Any) -> bool:
    return any(is_model(part) for part in _parts(as_type, set()))


def _region(as_type: Any) -> Any:
    from pydantic import TypeAdapter  # noqa: PLC0415 -- the program has imported it: the type holds a model

    models = [part for part in _parts(as_type, set()) if is_model(part)]
    return _Whole(
        "Region", (Region,), {"adapter": TypeAdapter(as_type), "by_alias": all(map(_is_read_by_alias, models))}
    )


@lru_cache(maxsize=1024)
def _is_read_by_alias(model: Hashable) -> bool:
    """Whether the model and all models in it read each field by the alias that it is written by."""
    models = [part for part in _parts(model, set()) if is_model(part)]
    return all(_is_same_name(name, field) for one in models for name, field in one.model_fields.items())


def _is_same_name(name: str, field: Any) -> bool:
    written, read = field.serialization_alias or name, field.validation_alias or name
    return written in getattr(read, "choices", [read])  # AliasChoices; an AliasPath equals no name


def _parts(as_type: Any, seen: set[int]) -> Iterator[Any]:
    """The type, its arguments, and the types of its fields, at any depth."""
    if id(as_type) in seen:
        return
    seen.add(id(as_type))
    yield as_type
    for part in (*get_args(as_type), *_fields(as_type)):
        yield from _parts(part, seen)


def _fields(as_type: Any) -> list[Any]:
    if hasattr(as_type, "__value__"):
        return [as_type.__value__]
    kind = get_origin(as_type) or as_type
    if is_model(kind):
        return [field.annotation for field in kind.model_fields.values()]
    if is_dataclass(kind) or any(hasattr(kind, name) for name in ("__struct_fields__", "__attrs_attrs__", "_fields",
                                                                   "__total__")):  # fmt: skip
        try:
            return list(get_type_hints(kind, include_extras=True).values())
        except (NameError, TypeError):  # the reader says it
            return []
    return []
