"""Request bodies: read up to a limit, decoded from JSON into structs.

An error's message names the field, a nested one as `a.b`, and the limit that the value breaks.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn, TypeVar

import falcon.asgi
import msgspec

from fastq.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding, shown
from fastq.http._scan import scan

DEPTH_MAX = 64  # the body's own object is the first level
BATCH_DEPTH_MAX = DEPTH_MAX + 2  # each member is inside the batch's object and array

T = TypeVar("T", bound=msgspec.Struct)


async def read_body(req: falcon.asgi.Request, bytes_max: int) -> bytes:
    """Read the whole body. Stop reading when it exceeds `bytes_max`.

    Raises:
        UnsupportedEncoding: the body is compressed.
        BodyTooLarge: the body exceeds `bytes_max`.
        InvalidRequest: the connection ended before the body did.
    """
    coding = req.get_header("Content-Encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise UnsupportedEncoding("Content-Encoding must be identity")
    announced = req.content_length
    if announced is not None and announced > bytes_max:
        raise BodyTooLarge(f"the body must be at most {bytes_max} bytes")
    body: bytes = await req.stream.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise BodyTooLarge(f"the body must be at most {bytes_max} bytes")
    return body


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
            raise InvalidRequest(f"invalid JSON: byte {error.start} is not UTF-8") from None
    found = scan(body, depth_max)
    if found == "depth":
        raise InvalidRequest(f"invalid JSON: nested deeper than {depth_max} levels")
    if found == "surrogate":
        raise InvalidRequest("invalid JSON: a surrogate escape without its other half")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _say_what_is_wrong(str(error))
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
        except msgspec.MsgspecError:
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
_LIMIT = re.compile(rf"Expected `\w+` (of length )?([<>]=) (-?[\d.]+){_PATH}")
_CHOICE = re.compile(rf"Invalid enum value '(.*)'{_PATH}", re.DOTALL)
_KIND = {"int": "an integer", "str": "a string", "array": "an array", "object": "an object", "bool": "true or false"}


def _say_what_is_wrong(text: str) -> NoReturn:
    """Raise InvalidRequest with the text of a msgspec error in the API's words."""
    if match := _UNKNOWN.fullmatch(text):
        raise InvalidRequest(f"unknown field: {_path(match[2], shown(match[1]))}")
    if match := _MISSING.fullmatch(text):
        raise InvalidRequest(f"{_path(match[2], match[1])} is required")
    if match := _LIMIT.fullmatch(text):
        of_length, relation, limit, field = match.groups()
        field = field.replace("[...]", "")
        if of_length and relation == ">=":
            raise InvalidRequest(f"{field} is required")
        raise InvalidRequest(f"{field} must be {of_length or ''}{relation} {limit.removesuffix('.0')}")
    if match := _CHOICE.fullmatch(text):
        raise InvalidRequest(f"{match[2]} must not be {shown(match[1])}")
    if match := _TYPE.fullmatch(text):
        expected, got, field = match.groups()
        if field is None:
            raise InvalidRequest("invalid JSON: the body must be an object")
        kind = expected.removesuffix(" | null")
        if got == "null":
            raise InvalidRequest(f"{field} is required")
        raise InvalidRequest(f"invalid JSON: {field} must be {_KIND.get(kind, kind)}")
    raise InvalidRequest(f"invalid JSON: {_lower_first(text)}")


def _path(parent: str | None, field: str) -> str:
    return f"{parent}.{field}" if parent else field


def _lower_first(text: str) -> str:
    return text if text.startswith("JSON") else text[:1].lower() + text[1:]
