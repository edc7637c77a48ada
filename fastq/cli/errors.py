"""The errors of commands. Each becomes one line on standard error and an exit code."""

from __future__ import annotations

import click


class Failed(click.ClickException):
    """The server refused, or a job failed."""

    exit_code = 1


class Unreachable(Failed):
    """The server cannot be reached."""

    exit_code = 3


class TimedOut(Failed):
    """No job was ready, or a job had not ended, within the timeout."""

    exit_code = 4


class Interrupted(click.ClickException):
    """Ctrl-C."""

    exit_code = 130  # as shells report SIGINT

    def __init__(self) -> None:
        super().__init__("interrupted")


class Declined(click.ClickException):
    """A question was answered with no."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("nothing was changed")
