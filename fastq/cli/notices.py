"""Messages and questions on standard error."""

from __future__ import annotations

import sys

import click


def notice(text: str) -> None:
    """Print a line on standard error, after the standard output before it.

    Standard output to a pipe is buffered and standard error is not. Without the flush a reader of both gets the notice
    first. Raises BrokenPipeError: the reader of the output left.
    """
    sys.stdout.flush()
    print(text, file=sys.stderr)


def confirm(question: str) -> None:
    """Ask yes or no. Raises click.Abort: the answer is no."""
    sys.stdout.flush()
    click.confirm(question, abort=True, err=True)
