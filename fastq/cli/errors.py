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
