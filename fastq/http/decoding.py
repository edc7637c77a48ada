"""Request bodies: read up to a limit, decoded from JSON into structs.

An error's message names the field, a nested one as `a.b`, and the limit that the value breaks.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn, TypeVar

import falcon.asgi
import msgspec
from msgspec import inspect

from fastq.errors import InvalidRequest, shown
from fastq.http._scan import scan
from fastq.http.authentication import confirmed
from fastq.http.errors import BodyTooLarge, UnsupportedEncoding

DEPTH_MAX = 64  # the body's own object is the first level
BATCH_DEPTH_MAX = DEPTH_MAX + 2  # each member is inside the batch's object and array

T = TypeVar("T", bound=msgspec.Struct)


async def read_body(req: falcon.asgi.Request, bytes_max: int) -> bytes:
    """Read the whole body, then check that the request may still take effect.

    Raises:
        UnsupportedEncoding, BodyTooLarge, InvalidRequest: see `read_bytes`.
        Unauthenticated, Forbidden: see `confirmed`.
    """
    body = await read_bytes(req, bytes_max)
    await confirmed(req)
    return body


async def read_bytes(req: falcon.asgi.Request, bytes_max: int) -> bytes:
    """Read the whole body. Stop reading when it exceeds `bytes_max`.

    Raises:
        UnsupportedEncoding: the body is compressed.
        BodyTooLarge: the body exceeds `bytes_max`.
        InvalidRequest: the connection ended before the body did.
    """
    coding = req.get_header("Content-Encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise UnsupportedEncoding
    announced = req.content_length
    if announced is not None and announced > bytes_max:
        raise BodyTooLarge(bytes_max)
    body: bytes = await req.stream.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise BodyTooLarge(bytes_max)
    return body


def null_as_empty(body: bytes) -> bytes:
    """Return `{}` for a body `null`: the original API takes it for an object without members."""
    return b"{}" if len(body) < 64 and body.strip(b" \t\r\n") == b"null" else body


def decode(body: bytes, decoder: msgspec.json.Decoder[T], depth_max: int = DEPTH_MAX) -> T:
    """Decode the body into the decoder's struct.

    Raises:
        InvalidRequest: the message names the field.
    """
    if not body:
        raise InvalidRequest("invalid JSON: the body is empty")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"invalid JSON: not UTF-8 at byte {error.start}") from None
    found = scan(body, depth_max)
    if found == "depth":
        raise InvalidRequest(f"invalid JSON: nested deeper than {depth_max} levels")
    if found == "surrogate":
        raise InvalidRequest("invalid JSON: a surrogate escape without its other half")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _say_what_is_wrong(str(error), decoder.type)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid JSON: {_lower_first(str(error))}") from None


def members(
    body: bytes, decoder: msgspec.json.Decoder[T], raw: msgspec.json.Decoder[Any], name: str,
    member: msgspec.json.Decoder[Any], depth_max: int = BATCH_DEPTH_MAX,
) -> T:  # fmt: skip
    """Decode a batch. If that fails, decode its members one by one to find the bad one.

    Args:
        decoder: decodes the batch.
        raw: decodes the batch and leaves its members as raw JSON.
        name: the array of members.
        member: decodes one member.
    Raises:
        InvalidRequest: the message names the member by its index.
    """
    try:
        return decode(body, decoder, depth_max)
    except InvalidRequest as whole:
        try:
            pieces = raw.decode(body)
        except (msgspec.MsgspecError, RecursionError):  # msgspec skips what is not decoded by recursion
            raise whole from None
        for i, piece in enumerate(getattr(pieces, name)):
            try:
                decode(bytes(piece), member, depth_max - 2)
            except InvalidRequest as error:
                raise InvalidRequest(f"{name}[{i}]: {error}") from None
        raise


_PATH = r" - at `\$\.([\w.\[\]]+)`"
_UNKNOWN = re.compile(rf"Object contains unknown field `(.*?)`(?:{_PATH})?", re.DOTALL)
_MISSING = re.compile(rf"Object missing required field `(\w+)`(?:{_PATH})?")
_TYPE = re.compile(rf"Expected `([^`]*)`, got `(\w+)`(?:{_PATH})?")
_LIMIT = re.compile(rf"Expected `(\w+)` (of length )?([<>]=) (-?[\d.]+){_PATH}")
_CHOICE = re.compile(rf"Invalid enum value '(.*)'{_PATH}", re.DOTALL)
_KIND = {"int": "an integer", "str": "a string", "array": "an array", "object": "an object", "bool": "true or false"}


def _say_what_is_wrong(text: str, body: type[msgspec.Struct]) -> NoReturn:
    """Raise InvalidRequest with the text of a msgspec error about a `body` in the API's words."""
    if match := _UNKNOWN.fullmatch(text):
        raise InvalidRequest(f"unknown field: {_path(match[2], shown(match[1]))}")
    if match := _MISSING.fullmatch(text):
        raise InvalidRequest(f"{_path(match[2], match[1])} is required")
    if match := _LIMIT.fullmatch(text):
        kind, of_length, relation, limit, field = match.groups()
        field = field.replace("[...]", "")
        if kind == "str" and relation == ">=":
            raise InvalidRequest(f"{field} is required")
        if of_length and relation == ">=":
            raise InvalidRequest(
                f"{field} must have at least {limit} {'entry' if limit == '1' else 'entries'}, or be left out"
            )
        raise InvalidRequest(f"{field} must be {of_length or ''}{relation} {limit.removesuffix('.0')}")
    if match := _CHOICE.fullmatch(text):
        raise InvalidRequest(not_a_choice(body, match[2], match[1]))
    if match := _TYPE.fullmatch(text):
        expected, got, field = match.groups()
        if field is None:
            raise InvalidRequest("invalid JSON: the body must be an object")
        kind = expected.removesuffix(" | null")
        if got == "null":
            raise InvalidRequest(f"{field} is required")
        raise InvalidRequest(f"invalid JSON: {field} must be {_KIND.get(kind, kind)}")
    raise InvalidRequest(f"invalid JSON: {_lower_first(text)}")


def not_a_choice(struct: type[msgspec.Struct], path: str, given: str) -> str:
    """Return the message about a field that must be one of some texts. It lists them. `path` is `a.b`."""
    found: list[inspect.Type] = [inspect.type_info(struct)]
    for name in path.replace("[...]", "").split("."):
        fields = [field for one in found if isinstance(one, inspect.StructType) for field in one.fields]
        found = [one for field in fields if field.encode_name == name for one in _alternatives(field.type)]
    allowed = [str(value) for one in found if isinstance(one, inspect.LiteralType) for value in one.values]
    listed = [", ".join(allowed[:-1]), allowed[-1]] if len(allowed) > 1 else allowed
    return f"{path} must be {' or '.join(listed)}, not {shown(given)}"


def _alternatives(type_: inspect.Type) -> list[inspect.Type]:
    """Return a field's types: without its description, of an array the members' type, of a union each type."""
    if isinstance(type_, inspect.Metadata):
        return _alternatives(type_.type)
    if isinstance(type_, inspect.ListType | inspect.VarTupleType):
        return _alternatives(type_.item_type)
    if isinstance(type_, inspect.UnionType):
        return [one for member in type_.types for one in _alternatives(member)]
    return [type_]


def _path(parent: str | None, field: str) -> str:
    return f"{parent}.{field}" if parent else field


def _lower_first(text: str) -> str:
    return text if text.startswith("JSON") else text[:1].lower() + text[1:]
