"""The base class of what the server answers."""

from __future__ import annotations

from typing import Any

import msgspec

from fastq.client.codec import CODEC

SHOWN_CHARACTERS = 200  # of a payload or result


class AnswerStruct(msgspec.Struct, frozen=True):
    """A part of an answer. `dict(answer)` gives its fields; web frameworks such as FastAPI encode it by them.

    A field `x_json` holds JSON text. It is shown as `x`.
    """

    def keys(self) -> list[str]:
        return [name.removesuffix("_json") for name in self.__struct_fields__]

    def __getitem__(self, name: str) -> object:
        """The value of a field. Raises KeyError."""
        if name not in self.keys():
            raise KeyError(name)
        raw = getattr(self, f"{name}_json", None)
        return getattr(self, name) if raw is None else CODEC.decode(bytes(raw), Any)

    def __repr__(self) -> str:
        """The fields that differ from their defaults."""
        given = zip(self.__struct_fields__, self._defaults(), strict=True)
        shown = [name.removesuffix("_json") for name, default in given if getattr(self, name) != default]
        return f"{type(self).__name__}({', '.join(f'{name}={_shown(self[name])}' for name in shown)})"

    def _defaults(self) -> list[object]:
        needed = len(self.__struct_fields__) - len(self.__struct_defaults__)
        return [msgspec.NODEFAULT] * needed + list(self.__struct_defaults__)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
