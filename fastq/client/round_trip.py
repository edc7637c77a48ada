"""Finds what JSON cannot carry in a value, and what would come back as something else. Each has its place in the error.

In a place without a declared type (a dict, a list, a field of type Any) a value comes back as JSON types: a tuple as a
list, a time, UUID, Decimal, Enum or bytes as text. A set, or a key that is not text, is refused there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET

from fastq.client import pydantic_models as pydantic
from fastq.client.errors import NotJSON

INT_MIN, INT_END = -(1 << 63), 1 << 64
CONTAINERS = (dict, list, tuple, set, frozenset)
TEXTS = (date, time, timedelta, UUID, Decimal, Enum, bytes, bytearray, PurePath)  # as text, without a declared type
SHOWN_CHARACTERS = 60
Declared = Literal["msgspec", "pydantic"] | None
"""Which library reads the class that declares the type of a value. None: no class does."""


def find_misfit(value: Any, depth_max: int, declared: Declared = None) -> None:
    """Raises NotJSON if JSON cannot carry a part of the value."""
    _find(value, "", depth_max, [], declared)


def _find(value: Any, place: str, depth_left: int, above: list[int], declared: Declared) -> None:
    """above: the ids of the values around this one."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise NotJSON(place, f"{str(value).lower()} has no JSON form")
    elif isinstance(value, int):
        if not INT_MIN <= value < INT_END:
            raise NotJSON(place, f"the integer {_shown(value)} has more than 64 bits")
    elif isinstance(value, str):
        _find_surrogate(value, place)
    if not isinstance(value, CONTAINERS) and not field_names(value):
        if declared != "pydantic":
            _find_unknown(value, place, depth_left)
        return
    if id(value) in above:
        raise NotJSON(place, "it contains itself")
    if depth_left < 1:
        raise NotJSON(place, "it is nested too deep: 63 levels of arrays and objects are allowed")
    above.append(id(value))
    for part, its_place, its_declared in parts(value, place, declared):
        _find(part, its_place, depth_left - 1, above, its_declared)
    above.pop()
    if pydantic.is_model(type(value)):
        _find_unwritten(value, place)


def parts(value: Any, place: str, declared: Declared) -> Iterator[tuple[Any, str, Declared]]:
    """The parts of a value, their places, and who declares their types. Raises NotJSON."""
    if isinstance(value, dict):
        for key, part in value.items():
            if isinstance(key, str):
                _find_surrogate(key, f"{place}[{key!a}]")
            elif declared is None:
                raise NotJSON(place, f"the key {_shown(key)} is not text")
            yield part, f"{place}[{_key(key)}]", declared
    elif isinstance(value, set | frozenset):
        if declared is None:
            raise NotJSON(place, "a set has no JSON form: send a list")
        for part in value:
            yield part, place, declared
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield part, f"{place}[{number}]", declared
    elif not _writes_infinity(value):
        by: Declared = "pydantic" if declared == "pydantic" or pydantic.is_model(type(value)) else "msgspec"
        for name in field_names(value):
            if getattr(value, name, UNSET) is not UNSET:
                yield getattr(value, name), f"{place}.{name}", by


def _find_surrogate(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NotJSON(place, f"character {error.start} is a lone surrogate, {text[error.start]!a}") from None


def _find_unwritten(model: Any, place: str) -> None:
    """Raises NotJSON if pydantic cannot write a field."""
    for name in field_names(model):
        try:
            model.model_dump_json(include={name}, round_trip=True, warnings=False)
        except Exception as error:
            raise NotJSON(f"{place}.{name}", f"{_shown(getattr(model, name))} has no JSON form: {error}") from error


def _find_unknown(value: Any, place: str, depth_left: int) -> None:
    """Raises NotJSON if no library writes the value."""
    if isinstance(value, msgspec.Raw):
        _find_in_text(bytes(value), place, depth_left)
        return
    if isinstance(value, PurePath):
        return
    try:
        msgspec.json.encode(value)
    except Exception as error:
        raise NotJSON(place, f"{type(value).__qualname__} has no JSON form: convert it, or pass a codec") from error


def _find_in_text(text: bytes, place: str, depth_left: int) -> None:
    """Text that the caller encoded. Python's own decoder reads NaN and Infinity, which JSON does not have."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotJSON(place, f"it is not JSON: {error}") from error
    _find(plain, place, depth_left, [], None)


def _writes_infinity(value: Any) -> bool:
    return pydantic.is_model(type(value)) and value.model_config.get("ser_json_inf_nan") == "strings"


def field_names(value: Any) -> list[str]:
    """The names of the fields of an instance. Empty for other values."""
    kind = type(value)
    if pydantic.is_model(kind):
        return [*kind.model_fields, *(value.model_extra or ())]
    if is_dataclass(kind):
        return [field.name for field in fields(kind)]
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    return [field.name for field in getattr(kind, "__attrs_attrs__", ())]


# --- what comes back --------------------------------------------------------------------------------------------------

Read = Callable[[Any, Any], Any]
"""Reads JSON types as a class. Raises TypeError: the class cannot be read."""


def compare(value: Any, plain: Any, read: Read, place: str = "") -> None:
    """Raises NotJSON if an instance in the value does not come back equal. plain: the value as JSON types."""
    if isinstance(value, dict):
        if len(value) != len(plain):
            raise NotJSON(place, "two of its keys are written alike")
        for (key, part), its_plain in zip(value.items(), plain.values(), strict=True):
            compare(part, its_plain, read, f"{place}[{_key(key)}]")
    elif isinstance(value, list | tuple):
        for number, (part, its_plain) in enumerate(zip(value, plain, strict=True)):
            compare(part, its_plain, read, f"{place}[{number}]")
    elif field_names(value):
        try:
            back = read(plain, type(value))
        except TypeError:  # the class cannot be read; a handler that declares it is refused
            return
        except ValueError as error:
            if pydantic.is_model(type(value)):
                raise NotJSON(
                    place, f"{type(value).__qualname__} does not come back as it was sent: {error}"
                ) from error
            return  # the instance breaks its own declaration: only a handler that declares the class minds
        same(value, back, read, place)


def same(value: Any, back: Any, read: Read, place: str = "") -> None:
    """Raises NotJSON: the value came back as another one. Without a declared type its JSON types are the same value."""
    if _equal(value, back):
        return
    names = field_names(value)
    if names and type(value) is type(back):
        for name in names:
            same(getattr(value, name, None), getattr(back, name, None), read, f"{place}.{name}")
    elif isinstance(value, dict) and isinstance(back, dict) and value.keys() == back.keys():
        for key, part in value.items():
            same(part, back[key], read, f"{place}[{_key(key)}]")
    elif isinstance(value, list | tuple) and isinstance(back, list | tuple) and len(value) == len(back):
        for number, part in enumerate(value):
            same(part, back[number], read, f"{place}[{number}]")
    elif names and isinstance(back, dict | list):
        compare(value, back, read, place)
    elif not (isinstance(value, TEXTS) and isinstance(back, str)):
        sent, got = _shown(value), _shown(back)
        raise NotJSON(place, f"{sent} does not come back as it was sent" + (f", but as {got}" if got != sent else ""))


def _equal(value: Any, back: Any) -> bool:
    try:
        is_equal = bool(value == back) or (value != value and back != back)
    except Exception:  # noqa: BLE001 -- what a class of the caller raises
        is_equal = False
    return is_equal or (type(value) is type(back) and not field_names(value) and not _compares(type(value)))


def _compares(kind: Any) -> bool:
    """Whether instances of the class can be equal although they are not identical."""
    return any("__eq__" in vars(base) for base in kind.__mro__[:-1])


def _key(key: Any) -> str:
    return json.dumps(key, ensure_ascii=False) if isinstance(key, str) else repr(key)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 -- what a class of the caller raises
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
