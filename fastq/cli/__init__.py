"""The command line: one module for each group of commands, put together here."""

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
"""name -> module below fastq.cli that has it, under that name or the one behind the colon"""

NAME = "fastq"
EXIT_BROKEN_PIPE = 1
EXIT_INTERRUPTED = 130  # what a shell says of SIGINT


class Commands(click.Group):
    """A module is imported when its command is asked for: a wrong setting is told without the native modules."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(f"fastq.cli.{module}"), attribute or name)
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's, but that what is wrong is one line."""
        extra.setdefault("prog_name", NAME)  # also as `python -m fastq`: a completion asks by this name
        as_click: Callable[..., Any] = super().main  # which has overloads, for callers that want a result
        if not extra.pop("standalone_mode", True):
            return as_click(*args, standalone_mode=False, **extra)
        try:
            code = as_click(*args, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            notice(error.format_message())
            code = error.exit_code
        except click.ClickException as error:
            notice(f"fastq: {_told(error)}")
            code = error.exit_code
        except click.Abort:
            code = EXIT_INTERRUPTED
        except BrokenPipeError:  # whoever read has enough; and nothing more is to be written at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = EXIT_BROKEN_PIPE
        sys.exit(code if isinstance(code, int) else 0)


def _told(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')} (see {error.ctx.command_path} --help)"
    return message


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastq")
def main() -> None:
    """A durable job queue.

    Commands that speak to a server find it by FASTQ_URL and their key in FASTQ_KEY. Exit codes: 0 done; 1 refused or
    failed; 2 used wrongly; 3 the server cannot be reached; 4 there was no job, or not in time.
    """
