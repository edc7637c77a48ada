"""Output formats: tables and records for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from fastq.server.settings import duration_text

CELL_CHARACTERS_MAX = 60  # of a table cell; a record shows the whole value

json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's JSON.")
lines_option = click.option("--json", "as_json", is_flag=True, help="Print the API's JSON, one object a line.")


def as_json(value: Any) -> str:
    """A struct of the SDK as the JSON of the API, without empty members."""
    return msgspec.json.encode(members(value)).decode()


def members(value: Any) -> Any:
    """The members of a struct by API name, without empty ones; any other value unchanged."""
    if not isinstance(value, msgspec.Struct):
        return value
    found = {}
    for field in msgspec.structs.fields(value):
        one = getattr(value, field.name)
        if field.required or not _is_empty(one):
            found[field.encode_name] = one
    return found


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == () or value is False or value == msgspec.Raw(b"null")


def cell(value: Any) -> str:
    """A value as text on one line. Unprintable characters are replaced."""
    if value is None or value is False:
        text = ""
    elif value is True:
        text = "yes"
    elif isinstance(value, datetime):
        text = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    elif isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
    elif isinstance(value, tuple | list):
        text = " ".join(map(str, value))
    elif isinstance(value, dict | msgspec.Struct):
        text = msgspec.json.encode(members(value)).decode()
    else:
        text = str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], with_head: bool = True) -> list[str]:
    """The lines of a table, with columns aligned."""
    cells = [[_short(cell(value)) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [columns, *cells]) for i in range(len(columns))]
    shown = [list(columns), *cells] if with_head else cells
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _short(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS_MAX else text[: CELL_CHARACTERS_MAX - 1] + "…"


def record(fields: dict[str, Any]) -> list[str]:
    """The lines of a record: one for each member that is not empty."""
    said = {name: text for name, value in fields.items() if (text := cell(value)) != ""}
    width = max(map(len, said), default=0)
    return [f"{name:<{width}}  {text}" for name, text in said.items()]


def show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def duration(ms: int | None) -> str:
    """A duration as options accept it. Empty for None."""
    return "" if ms is None else duration_text(ms)
