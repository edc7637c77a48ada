"""Python values to JSON and back: dataclasses, msgspec and attrs classes, pydantic models, and what JSON has."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import msgspec


class Codec(Protocol):
    """How payloads and results become JSON text. Another one is given to a client or worker as `codec=`."""

    def encode(self, value: Any) -> bytes:
        """JSON text in UTF-8. Raises whatever says that the value has none."""

    def decode(self, text: bytes, as_type: Any) -> Any:
        """Raises ValueError if the text is no such value."""


def _pydantic(value: Any) -> Any:
    """msgspec asks here for what it does not know."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__qualname__} has no form in JSON: give a codec that knows one")
    return dump(mode="json")


@lru_cache(maxsize=1024)
def _decoder(as_type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(as_type)


class JsonCodec:
    """The usual one."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=_pydantic)

    def encode(self, value: Any) -> bytes:
        """Raises TypeError, ValueError."""
        return self._encoder.encode(value)

    def decode(self, text: bytes, as_type: Any) -> Any:
        """Raises ValueError: msgspec's and pydantic's errors are."""
        if (validate := getattr(as_type, "model_validate_json", None)) is not None:
            return validate(text)
        return _decoder(as_type).decode(text)


CODEC = JsonCodec()
