"""Forms of the console: fields by name, each once unless a page asks for all."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from falcon.asgi import Request

from fastq.engine.commands import PAYLOAD_BYTES_MAX
from fastq.errors import InvalidRequest
from fastq.http.decoding import read_bytes

DIGITS_MAX = 18  # of a number
NUMBER_MAX = 2**63 - 1
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
FIELDS_MAX = 1_100  # a page of 1,000 chosen jobs, and the rest of its form
FORM_BYTES_MAX = 3 * PAYLOAD_BYTES_MAX + (64 << 10)  # a payload percent-encoded, and the rest of its form


class Form:
    """The fields of a form. A field that is left empty is as one that is not there."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """Return a field without spaces at its ends, an empty string if it is not there."""
        return self._fields.get(name, [""])[-1].strip()

    def exact(self, name: str) -> str:
        """Return a field as it is. Browsers send line ends as CR LF; it has LF."""
        return self._fields.get(name, [""])[-1].replace("\r\n", "\n")

    def all(self, name: str) -> list[str]:
        return self._fields.get(name, [])

    def has(self, name: str) -> bool:
        """Whether a box is ticked."""
        return bool(self.text(name))

    def number(self, name: str, unit: int = 1) -> int | None:
        """Return a whole number of units, None if the field is empty. Raises InvalidRequest.

        Args:
            unit: what one is in the unit of the result: 1000 for a field in seconds and a result in milliseconds.
        """
        text = self.text(name).replace(",", "")
        if not text:
            return None
        number = whole_number(text, name) * unit
        if abs(number) > NUMBER_MAX:
            raise InvalidRequest(f"{name} is too large")
        return number


def whole_number(text: str, name: str) -> int:
    """Read a whole number as people write it. Raises InvalidRequest, with the name of what it is."""
    if len(text) > DIGITS_MAX or _WHOLE.fullmatch(text) is None:
        raise InvalidRequest(f"{name} must be a whole number of at most {DIGITS_MAX} digits")
    return int(text)


async def read_form(req: Request) -> Form:
    """Read a form's body. Raises BodyTooLarge, InvalidRequest."""
    body = await read_bytes(req, FORM_BYTES_MAX)
    try:
        return Form(parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except (ValueError, UnicodeError):
        raise InvalidRequest("the form could not be read: it must be application/x-www-form-urlencoded") from None
