"""Query parameters: checked and decoded into a struct, as bodies are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from falcon.asgi import Request

from fastq.errors import InvalidRequest, shown
from fastq.http.decoding import not_a_choice

T = TypeVar("T", bound=msgspec.Struct)

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_LIMIT = re.compile(r"Expected `\w+` (of length )?([<>]=) (-?\d+) - at `\$\.(\w+)`")
_CHOICE = re.compile(r"Invalid enum value '(.*)' - at `\$\.(\w+)`", re.DOTALL)
_FIELD = re.compile(r" - at `\$\.(\w+)`$")


def read_query(req: Request, fields: type[T]) -> T:
    """Decode the parameters of a request: see `read_params`."""
    return read_params(req.params, fields)


def read_params(params: Mapping[str, Any], fields: type[T]) -> T:
    """Decode parameters into `fields`, a struct that forbids unknown ones.

    Raises:
        InvalidRequest: the message names the parameter.
    """
    try:
        return msgspec.convert(dict(params), fields, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
    if match := _UNKNOWN.fullmatch(text):
        raise InvalidRequest(f"unknown parameter: {shown(match[1])}")
    if match := _LIMIT.fullmatch(text):
        of_length, relation, limit, field = match.groups()
        raise InvalidRequest(f"{field} must be {of_length or ''}{relation} {limit}")
    if match := _CHOICE.fullmatch(text):
        raise InvalidRequest(not_a_choice(fields, match[2], match[1]))
    if match := _FIELD.search(text):
        kind = "an integer" if "`int" in text else "given once, as text"
        raise InvalidRequest(f"{match[1]} must be {kind}")
    raise InvalidRequest(f"invalid parameters: {text}")
