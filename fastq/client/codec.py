"""Converts payloads and results to JSON and back: JSON types, dataclasses, msgspec, attrs and pydantic classes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import msgspec


class Codec(Protocol):
    """Converts payloads and results to JSON text. Pass another implementation as `codec=`."""

    def encode(self, value: Any) -> bytes:
        """JSON text in UTF-8. Raises any exception if the value cannot be encoded."""

    def decode(self, text: bytes, as_type: Any) -> Any:
        """The value of JSON text. Raises ValueError if it is not an `as_type`."""


def _pydantic(value: Any) -> Any:
    """msgspec calls it for a class that it cannot encode. Raises TypeError."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__qualname__} cannot be encoded as JSON: pass a codec that can")
    return dump(mode="json")


@lru_cache(maxsize=1024)
def _decoder(as_type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(as_type)


class JsonCodec:
    """The default codec."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=_pydantic)

    def encode(self, value: Any) -> bytes:
        """Raises TypeError, ValueError."""
        return self._encoder.encode(value)

    def decode(self, text: bytes, as_type: Any) -> Any:
        """Raises ValueError: the errors of msgspec and pydantic are subclasses of it."""
        if (validate := getattr(as_type, "model_validate_json", None)) is not None:
            return validate(text)
        return _decoder(as_type).decode(text)


CODEC = JsonCodec()
