"""What a command tells a person beside its output, on standard error."""

from __future__ import annotations

import sys

import click


def notice(text: str) -> None:
    """Print a line after all that was printed before it.

    Standard output to a pipe or a file is buffered, standard error is not: without the flush, a reader of both gets
    the notice first. Raises BrokenPipeError: nobody reads the output any more.
    """
    sys.stdout.flush()
    print(text, file=sys.stderr)


def confirm(question: str) -> None:
    """Raises click.Abort unless the person says yes."""
    sys.stdout.flush()
    click.confirm(question, abort=True, err=True)
