"""Messages and questions on standard error."""

from __future__ import annotations

import contextlib
import select
import shutil
import signal
import socket
import sys
import textwrap
from typing import Any

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
        click.UsageError: standard input is not a terminal. Declined: the answer is no. click.Abort: there is none.
        KeyboardInterrupt: Ctrl-C.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Standard input is not a terminal: {instead}")
    sys.stdout.flush()
    while (answer := _answer(f"{printable(question)} [y/N]: ")) not in ("y", "yes"):
        if answer in ("n", "no", ""):
            raise Declined
        notice("answer y or n")


def _answer(prompt: str) -> str:
    """Ask for a line on the terminal. Returns it in lower case. Raises click.Abort: there is none; KeyboardInterrupt.

    `input` does not see a Ctrl-C that comes after the interpreter's last look at signals and before its read; it then
    waits for ever. So this waits for the line and for a signal at once.
    """
    print(prompt, end="", file=sys.stderr, flush=True)
    signalled, wakes = socket.socketpair()
    with signalled, wakes:
        wakes.setblocking(False)
        before = signal.set_wakeup_fd(wakes.fileno())
        try:
            select.select([sys.stdin, signalled], [], [])
            line = sys.stdin.readline()  # a terminal passes on whole lines
        finally:
            signal.set_wakeup_fd(before)
    if not line:
        raise click.Abort
    return line.strip().lower()


def is_watched() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


def progress_bar(label: str, length: int | None) -> Any:
    """A context manager that draws a bar on standard error; its `update(n)` adds to it. None: the length is unknown."""
    return click.progressbar(length=length or 0, file=sys.stderr, show_pos=True, label=label, width=24)
