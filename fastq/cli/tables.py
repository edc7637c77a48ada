"""What a person reads, and what a program does: tables, records, and JSON as the API has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from fastq.server.settings import duration_text

CELL_CHARACTERS_MAX = 60  # of a cell in a table; a record shows all

json_option = click.option("--json", "as_json", is_flag=True, help="As the API shows it.")
lines_option = click.option("--json", "as_json", is_flag=True, help="As the API shows it, one object a line.")


def as_json(value: Any) -> str:
    """A struct of the SDK as the API had it: members that say nothing are left out."""
    return msgspec.json.encode(members(value)).decode()


def members(value: Any) -> Any:
    if not isinstance(value, msgspec.Struct):
        return value
    found = {}
    for field in msgspec.structs.fields(value):
        one = getattr(value, field.name)
        if field.required or not _says_nothing(one):
            found[field.encode_name] = one
    return found


def _says_nothing(value: Any) -> bool:
    return value is None or value == "" or value == () or value is False or value == msgspec.Raw(b"null")


def cell(value: Any) -> str:
    """On one line: a name may hold anything."""
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
    """Lines, as wide as they must be."""
    cells = [[_short(cell(value)) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [columns, *cells]) for i in range(len(columns))]
    shown = [list(columns), *cells] if with_head else cells
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _short(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS_MAX else text[: CELL_CHARACTERS_MAX - 1] + "…"


def record(fields: dict[str, Any]) -> list[str]:
    """A line for each member that says something."""
    said = {name: text for name, value in fields.items() if (text := cell(value)) != ""}
    width = max(map(len, said), default=0)
    return [f"{name:<{width}}  {text}" for name, text in said.items()]


def show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def lasting(ms: int | None) -> str:
    """A duration as options take it."""
    return "" if ms is None else duration_text(ms)
