"""Standard input, output and error: what is read must be UTF-8, and what is printed never fails half-way unnoticed.

Text for people goes out with control characters escaped, so that no payload, name or error moves a terminal's cursor.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import click

from fastq.cli.errors import Failed
from fastq.drafts import draft, naming

EXIT_BROKEN_PIPE = 141  # as shells report SIGPIPE
EXIT_IO = 74  # EX_IOERR
BOM = codecs.BOM_UTF8


class InputFailed(Failed):
    """Standard input or a file cannot be read."""

    exit_code = EXIT_IO


# --- read -------------------------------------------------------------------------------------------------------------


def decoded(content: bytes, what: str) -> str:
    """The text of UTF-8. Raises click.UsageError: it is not UTF-8; the message begins with `what`."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f" (line {line})" if b"\n" in content.rstrip(b"\n") else ""
        byte = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        raise click.UsageError(f"{what} is not UTF-8: {byte}{where}") from None


def stdin_text() -> str:
    """All of standard input. Raises click.UsageError: it is not UTF-8. Raises InputFailed."""
    try:
        return decoded(sys.stdin.buffer.read(), "standard input")
    except OSError as error:
        raise InputFailed(f"standard input: {error.strerror}") from None


def text_lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers from 1, without line ends. Lines of white space are left out.

    Raises:
        click.UsageError: a line is not UTF-8. The message names the line and the offset in it.
        InputFailed.
    """
    number = 0
    try:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(BOM) if number == 1 else line
            if content.strip():
                yield number, decoded(content.rstrip(b"\r\n"), f"line {number}")
    except OSError as error:
        raise InputFailed(f"line {number + 1}: {error.strerror}") from None


def arguments_as_text(arguments: Iterable[str]) -> list[str]:
    """The arguments of the command. Python keeps bytes that it cannot decode as surrogates; they are decoded as UTF-8.

    Raises click.UsageError: an argument is not UTF-8.
    """
    return [_as_text(text, f"argument {number}") for number, text in enumerate(arguments, 1)]


def check_variables(environ: Mapping[str, str], names: Iterable[str]) -> None:
    """Raises click.UsageError: a variable is not UTF-8."""
    for name in names:
        _as_text(environ.get(name, ""), name)


def _as_text(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return decoded(text.encode(sys.getfilesystemencoding(), "surrogateescape"), what)
    return text


# --- print ------------------------------------------------------------------------------------------------------------

_JOINERS = "\u200c\u200d"  # emoji and scripts need them, and they do not move the cursor
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """The text with control characters, surrogates and changes of direction as escapes such as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(one if _is_harmless(one) else _escaped(one) for one in text)


def _is_harmless(one: str) -> bool:
    return one.isprintable() or one in _JOINERS or unicodedata.category(one) == "Zs"  # Zs: spaces of other scripts


def _escaped(one: str) -> str:
    if one in _NAMED:
        return _NAMED[one]
    return f"\\x{ord(one):02x}" if one < "\u0100" else _as_json_escape(one)


def _as_json_escape(one: str) -> str:
    units = one.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def json_line(text: str) -> str:
    """JSON text on one line. A payload is kept as it was submitted, with line ends between its tokens."""
    if text.isprintable():
        return text
    spaced = text.translate({ord("\n"): " ", ord("\r"): " ", ord("\t"): " "})
    return "".join(one if one.isprintable() else _as_json_escape(one) for one in spaced)


def say(text: str) -> None:
    """Print a line on standard output, with control characters escaped. Raises OSError."""
    print(printable(text))


def say_cells(cells: Iterable[str]) -> None:
    """Print the cells of a row with tabs between. Their control characters are escaped already. Raises OSError."""
    print("\t".join(cells))


def say_json(text: str) -> None:
    """Print JSON text on one line of standard output. Raises OSError."""
    print(json_line(text))


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; - is standard output. Until the block ends a regular file stays as it was, or is not there.

    Raises:
        OSError.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
    elif path.exists() and not path.is_file():  # a pipe or a device
        with path.open("wb") as file:
            yield file
    else:
        with draft(path.resolve(), mode=0o666) as fd, naming(path), open(fd, "wb", closefd=False) as file:
            yield file


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """A character that the terminal's encoding lacks becomes `\\u00e9`, which is right in JSON too."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_as_json_escape, error.object[error.start : error.end])), error.end


codecs.register_error("fastq.escape", _escape_unencodable)


def prepare() -> None:
    """Make the standard streams safe to use. Call it before anything else opens a file.

    A stream that the caller closed gets a stand-in that fails as a closed one does: otherwise the next socket or log
    segment would get its number, and what is printed to it.
    """
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 -- until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="fastq.escape")


def discard_output() -> None:
    """Send what is still printed to nowhere: the flush at exit must not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
