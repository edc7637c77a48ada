"""Output formats: tables and records for people, JSON and tabs for programs."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from fastq.cli.notices import notice
from fastq.cli.streams import printable, say, say_cells
from fastq.server.settings import duration_text

GAP = 2  # columns of the terminal between two columns of a table

json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's JSON.")
lines_option = click.option("--json", "as_json", is_flag=True, help="Print the API's JSON, one object a line.")


# --- values -----------------------------------------------------------------------------------------------------------


def as_json(value: Any) -> str:
    """A struct of the SDK as the JSON of the API, without empty members."""
    return msgspec.json.encode(members(value)).decode()


def members(value: Any) -> Any:
    """The members of a struct by API name, without empty ones; any other value unchanged."""
    if not isinstance(value, msgspec.Struct):
        return value
    found = {}
    for one in msgspec.structs.fields(value):
        member = getattr(value, one.name)
        if one.required or not _is_empty(member):
            found[one.encode_name] = member
    return found


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == () or value is False or value == msgspec.Raw(b"null")


def cell(value: Any) -> str:
    """A value as text on one line. Characters that are not printable, or not in the output's encoding, are escaped."""
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
    encoding = sys.stdout.encoding or "utf-8"
    return printable(text).encode(encoding, "fastq.escape").decode(encoding)


def duration(ms: int | None) -> str:
    """A duration as options accept it. Empty for None."""
    return "" if ms is None else duration_text(ms)


def ago(at: datetime | None, now: datetime) -> str:
    """The time since `at` in its two largest units, such as `3h12m`. Empty for None."""
    if at is None:
        return ""
    seconds = max(0, int((now - at).total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds % 60, "s")]
    first = next((i for i, (number, _) in enumerate(parts) if number), 3)
    return "".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number or first == 3)


# --- records ----------------------------------------------------------------------------------------------------------


def record(fields: dict[str, Any], least: int = 0) -> list[str]:
    """The lines of a record: one for each member that is not empty. `least`: the width of the labels, at least."""
    said = {name: text for name, value in fields.items() if (text := cell(value)) != ""}
    width = max([least, *map(len, said)])
    return [f"{name:<{width}}  {text}" for name, text in said.items()]


def show(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    rank: 0 is always shown; where the terminal is too narrow, the highest rank is left out first.
    is_whole: never shortened: an id or name that people copy.
    least: columns of the terminal that others are shortened to.
    """

    name: str
    rank: int = 0
    is_whole: bool = False
    least: int = 8


@dataclass(slots=True)
class Table:
    """Prints rows as they come.

    A pipe gets every column in full, with tabs between. A terminal gets aligned columns in its width: empty columns are
    left out, texts are shortened, and a first cell that is too long has a line of its own.
    """

    columns: Sequence[Column]
    _is_begun: bool = False
    _left_out: dict[str, None] = field(default_factory=dict)

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Print rows below those before; the first call prints the head."""
        cells = [[cell(value) for value in row] for row in rows]
        if not sys.stdout.isatty():
            lines = cells if self._is_begun else [[column.name for column in self.columns], *cells]
            for line in lines:
                say_cells(line)
        elif cells or not self._is_begun:
            show(self._lines(cells, shutil.get_terminal_size().columns))
        self._is_begun = True

    def end(self) -> None:
        """Name the columns that did not fit."""
        if self._left_out:
            notice(f"not shown: {', '.join(self._left_out)} (--json shows all)")

    def _lines(self, rows: list[list[str]], width: int) -> list[str]:
        filled = [i for i in range(len(self.columns)) if not i or not rows or any(row[i] for row in rows)]
        kept, widths = fitted([self.columns[i] for i in filled], [[row[i] for i in filled] for row in rows], width)
        shown = [filled[i] for i in kept]
        if rows:
            self._left_out |= dict.fromkeys(self.columns[i].name for i in filled if i not in shown)
        head = [self.columns[i].name for i in shown]
        return [line for row in [head, *([row[i] for i in shown] for row in rows)] for line in aligned(row, widths)]


def fitted(columns: Sequence[Column], rows: list[list[str]], width: int) -> tuple[list[int], list[int]]:
    """The columns that are shown, and the width of each. The first may be too narrow for some of its cells."""
    most = [max(columns_of(text) for text in [column.name, *(row[i] for row in rows)])
            for i, column in enumerate(columns)]  # fmt: skip
    least = [wide if column.is_whole else min(wide, max(column.least, len(column.name)))
             for column, wide in zip(columns, most, strict=True)]  # fmt: skip
    own_line = min(least[0], width // 2)  # a longer first cell has a line of its own before columns are left out for it
    for first in (own_line, 0):
        kept = _kept(columns, least, width - first)
        room = width - sum(least[i] + GAP for i in kept[1:])
        fitting = [size for row in rows if (size := columns_of(row[0])) <= room]
        if least[0] <= room or fitting:
            break
    if least[0] > room:
        most[0] = least[0] = max(fitting, default=0)
    return kept, _widened([least[i] for i in kept], [most[i] for i in kept], room - least[0])


def _kept(columns: Sequence[Column], least: list[int], room: int) -> list[int]:
    """The columns that fit in `room` beside the first one."""
    kept = list(range(len(columns)))
    while sum(least[i] + GAP for i in kept[1:]) > room:
        last = max(kept, key=lambda i: (columns[i].rank, i))
        if columns[last].rank == 0:
            break
        kept.remove(last)
    return kept


def _widened(widths: list[int], most: list[int], room: int) -> list[int]:
    """The widths with `room` more in all, shared by the columns that need it."""
    while room > 0 and (short := [i for i, wide in enumerate(widths) if wide < most[i]]):
        for i in short[:room]:
            widths[i] += 1
        room -= len(short)
    return widths


def aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The line of a row, or two if the first cell is too long."""
    above = [row[0]] if columns_of(row[0]) > widths[0] and len(row) > 1 else []
    cells = ["" if above else row[0], *(cut(text, wide) for text, wide in zip(row[1:], widths[1:], strict=True))]
    padded = [text + " " * (wide - columns_of(text)) for text, wide in zip(cells, widths, strict=True)]
    return [*above, (" " * GAP).join(padded).rstrip()]


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(one) for one in text)


def _columns_of(one: str) -> int:
    if unicodedata.category(one) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(one) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text, shortened to `width` columns of the terminal with an ellipsis."""
    if columns_of(text) <= width:
        return text
    found, left = "", width - 1
    for one in text:
        left -= _columns_of(one)
        if left < 0:
            break
        found += one
    return found + ("…" if "…".encode(sys.stdout.encoding or "utf-8", "replace") != b"?" else "~")
