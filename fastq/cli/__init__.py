"""The command line. This module finds each command in the module of its group."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from fastq import __version__
from fastq.cli.notices import notice

COMMANDS = {
    "serve": "serve",
    "worker": "worker",
    "submit": "submit",
    "lease": "leases",
    "extend": "leases",
    "ack": "leases",
    "job": "job",
    "queues": "queues",
    "schedules": "schedules",
    "workers": "status",
    "audit": "status",
    "status": "status",
    "keys": "keys",
    "export": "transfer:export_jobs",
    "import": "transfer:import_jobs",
    "import-wal": "import_wal:import_wal",
    "backup": "backup",
    "restore": "backup",
    "log": "log",
    "chaos": "chaos",
    "completion": "completion",
}
"""Command name -> module in fastq.cli; the function has the same name, or the one after the colon."""

NAME = "fastq"
EXIT_BROKEN_PIPE = 1
EXIT_INTERRUPTED = 130  # as shells report SIGINT


class Commands(click.Group):
    """Imports a module when its command is called, so that a bad setting is reported before the extensions load."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(f"fastq.cli.{module}"), attribute or name)
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """click's `main`, but an error is one line."""
        extra.setdefault("prog_name", NAME)  # for `python -m fastq` too: shell completion uses this name
        as_click: Callable[..., Any] = super().main  # drops click's overloads
        if not extra.pop("standalone_mode", True):
            return as_click(*args, standalone_mode=False, **extra)
        try:
            code = as_click(*args, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            notice(error.format_message())
            code = error.exit_code
        except click.ClickException as error:
            notice(f"fastq: {_message(error)}")
            code = error.exit_code
        except click.Abort:
            code = EXIT_INTERRUPTED
        except BrokenPipeError:  # the reader left; the flush at exit must not fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = EXIT_BROKEN_PIPE
        sys.exit(code if isinstance(code, int) else 0)


def _message(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')} (see {error.ctx.command_path} --help)"
    return message


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastq")
def main() -> None:
    """A durable job queue.

    FASTQ_URL names the server and FASTQ_KEY holds the API key. Exit codes: 0 success; 1 the server refused, or a job
    failed; 2 wrong usage; 3 the server cannot be reached; 4 no job is ready, or the wait timed out.
    """
