"""How commands fail: one line on standard error, and an exit code."""

from __future__ import annotations

import click


class Failed(click.ClickException):
    """The server refused, or what was asked for did not come out well."""

    exit_code = 1


class Unreachable(Failed):
    """No answer came."""

    exit_code = 3


class NotInTime(Failed):
    """There was no job, or it had not ended, when the time to wait was over."""

    exit_code = 4
