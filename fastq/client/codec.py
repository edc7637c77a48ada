"""Converts payloads and results to JSON and back: JSON types, dataclasses, msgspec, attrs and pydantic classes.

Each class is written and read by its own library: pydantic's models by pydantic, everything else by msgspec.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from pathlib import PurePath
from typing import Any, Protocol

import msgspec
import msgspec.inspect

from fastq.client import pydantic_models as pydantic
from fastq.client.errors import NotJSON
from fastq.client.round_trip import compare, find_misfit

TEXT_BYTES_MAX = 1 << 20
DEPTH_MAX = 63  # of arrays and objects; the server reads 64 levels, and the request is the first

_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})
_SUSPECT = re.compile(rb"\d{19}|Infinity")  # more digits than 64 bits need; a Decimal
_plain = msgspec.json.Decoder().decode
_text = msgspec.json.Decoder(msgspec.Raw).decode
_body = msgspec.json.Encoder().encode


class Codec(Protocol):
    """Converts payloads and results to JSON text. Pass another implementation as `codec=`.

    It may have a method `check(as_type)`, which a worker calls when a handler is registered: it raises ValueError if
    `decode` cannot read that type.
    """

    def encode(self, value: Any) -> bytes:
        """JSON text in UTF-8. Raises any exception if the value cannot be encoded."""

    def decode(self, text: bytes, as_type: Any) -> Any:
        """The value of JSON text. Raises ValueError if it is not an `as_type`."""


def encoded(codec: Codec, value: Any, name: str) -> msgspec.Raw:
    """The JSON text of a value. Raises NotJSON with a place that begins with `name`, and what the codec raises."""
    try:
        return msgspec.Raw(codec.encode(value))
    except NotJSON as error:
        raise error.within(name) from error.__cause__


def encoded_body(body: Any, within: str = "") -> bytes:
    """The JSON text of a request. Raises NotJSON: the caller gave an option that JSON cannot carry."""
    try:
        return _body(body)
    except Exception as error:
        try:
            find_misfit(body, DEPTH_MAX)
        except NotJSON as misfit:
            place = re.sub(r'^(?:\["(\w+)"\]|\.)', r"\1", misfit.place)
            raise NotJSON(within + place, misfit.why) from error
        raise


class JsonCodec:
    """The default codec. A value is encoded only if it comes back as it was sent."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=_written)

    def encode(self, value: Any) -> bytes:
        """Raises NotJSON. A `msgspec.Raw` is JSON text already: it is sent as it is, large integers too."""
        if type(value) is msgspec.Raw:
            try:
                return bytes(_text(bytes(value)))
            except msgspec.DecodeError as error:
                raise NotJSON("", f"not JSON: {error}") from error
        try:
            text = self._encoder.encode(value)
        except Exception as error:
            find_misfit(value, DEPTH_MAX)
            raise NotJSON("", f"{type(value).__qualname__} has no JSON form: {error}") from error
        if len(text) > TEXT_BYTES_MAX:
            raise NotJSON("", f"{len(text):,} bytes of JSON text, and {TEXT_BYTES_MAX:,} are allowed")
        if not _comes_back(value, text):
            find_misfit(value, DEPTH_MAX)
            compare(value, _plain(text), self._read_plain)
        return text

    def decode(self, text: bytes, as_type: Any) -> Any:
        """Raises ValueError: the errors of msgspec and pydantic are subclasses of it."""
        return _reader(as_type)(text)

    def _read_plain(self, plain: Any, as_type: Any) -> Any:
        return _reader(as_type)(self._encoder.encode(plain))

    def check(self, as_type: Any) -> None:
        """Raises ValueError: values of that type cannot be read."""
        try:
            _reader(as_type)
            unknown = _unknown(msgspec.inspect.type_info(pydantic.readable(as_type)), set())
        except Exception as error:
            raise ValueError(f"JSON cannot be read as {as_type}: {error}") from error
        if unknown is not None:
            raise ValueError(f"JSON cannot be read as {as_type}: {unknown.__qualname__} is not a class of dataclasses, "
                             "msgspec, attrs or pydantic; pass a codec that reads it")  # fmt: skip


def _comes_back(value: Any, text: bytes) -> bool:
    """Whether a reader of the text gets an equal value. Also false if that cannot be told quickly."""
    kind = type(value)
    try:
        if (_plain(text) if kind in _PLAIN else _reader(kind)(text)) != value or _SUSPECT.search(text):
            return False
    except Exception:  # noqa: BLE001 -- what a class of the caller raises
        return False
    return text.count(b"[") + text.count(b"{") <= DEPTH_MAX or _depth(_plain(text)) <= DEPTH_MAX


def _depth(plain: Any) -> int:
    """How deep arrays and objects are nested."""
    level, depth = [plain], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        level = list(chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level))
        depth += 1
    return depth


def _written(value: Any) -> Any:
    """msgspec calls it for a class that it does not know. Raises TypeError, or what pydantic raises."""
    if pydantic.is_model(type(value)):
        return msgspec.Raw(pydantic.dump(value))
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__qualname__} cannot be encoded as JSON: pass a codec that can")


def _read(kind: Any, plain: Any) -> Any:
    """msgspec calls it for a class that it does not know. Raises TypeError, ValueError."""
    if pydantic.is_model(kind) or issubclass(kind, pydantic.Region):
        return pydantic.load(kind, msgspec.json.encode(plain))
    if issubclass(kind, PurePath) and isinstance(plain, str):
        return kind(plain)
    raise TypeError(f"{kind.__qualname__} cannot be read from JSON")


def _is_known(kind: Any) -> bool:
    """Whether `_read` reads the class."""
    return pydantic.is_model(kind) or (isinstance(kind, type) and issubclass(kind, pydantic.Region | PurePath))


def _unknown(info: Any, seen: set[int]) -> Any:
    """A class in a type that neither msgspec nor `_read` reads, or None. info: of `msgspec.inspect`."""
    if id(info) in seen:
        return None
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return None if _is_known(info.cls) else info.cls
    parts: Any = info if isinstance(info, tuple) else ()
    if isinstance(info, msgspec.Struct):
        parts = [getattr(info, name) for name in info.__struct_fields__]
    for part in parts:
        if isinstance(part, tuple | msgspec.Struct) and (found := _unknown(part, seen)) is not None:
            return found
    return None


def _reader(as_type: Any) -> Callable[[bytes], Any]:
    """Raises TypeError: msgspec or pydantic does not support the type."""
    try:
        return _cached_reader(as_type)
    except TypeError:
        return _new_reader(as_type)  # the type cannot be hashed; or raises its own error


def _new_reader(as_type: Any) -> Callable[[bytes], Any]:
    kind = pydantic.readable(as_type)
    if pydantic.is_model(kind) or (isinstance(kind, type) and issubclass(kind, pydantic.Region)):
        return lambda text: pydantic.load(kind, text)
    return msgspec.json.Decoder(kind, dec_hook=_read).decode


_cached_reader = lru_cache(maxsize=1024)(_new_reader)
CODEC = JsonCodec()
