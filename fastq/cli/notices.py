"""Messages and questions on standard error."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap

import click

from fastq.cli.errors import Declined
from fastq.cli.streams import printable


def notice(text: str) -> None:
    """Print text on standard error, after the standard output before it. Control characters are escaped.

    Standard output to a pipe is buffered and standard error is not. Without the flush a reader of both gets the notice
    first. A notice that nobody can read is dropped. Raises OSError: the output before it cannot be written.
    """
    sys.stdout.flush()
    lines = [printable(line) for line in text.split("\n")]
    if sys.stderr.isatty():  # at words, not inside of them
        width = shutil.get_terminal_size().columns
        lines = [part for line in lines for part in textwrap.wrap(line, width, break_long_words=False,
                 break_on_hyphens=False, drop_whitespace=True, subsequent_indent="  ") or [""]]  # fmt: skip
    with contextlib.suppress(OSError):
        print("\n".join(lines), file=sys.stderr)


def confirm(question: str, instead: str = "give --yes") -> None:
    """Ask yes or no.

    Args:
        instead: what to do where nobody can answer.
    Raises:
        click.UsageError: standard input is not a terminal. Declined: the answer is no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Standard input is not a terminal: {instead}")
    sys.stdout.flush()
    if not click.confirm(printable(question), err=True):
        raise Declined
