"""The command line. This module finds each command in the module of its group."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from fastq import __version__
from fastq.cli import streams
from fastq.cli.errors import Interrupted
from fastq.cli.groups import Group
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
    "failures": "failures",
    "audit": "status",
    "status": "status",
    "top": "top",
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

NAME, PREFIX = "fastq", "FASTQ_"


class Commands(Group):
    """Imports a module when its command is called, so that a bad setting is reported before the extensions load."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(f"fastq.cli.{module}"), attribute or name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """click's `invoke`, before click handles an interrupt and a closed pipe in its own way."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None
        except BrokenPipeError:
            streams.discard_output()
            return streams.EXIT_BROKEN_PIPE

    def main(self, *args: Any, **extra: Any) -> Any:
        """click's `main`, but an error is one line."""
        extra.setdefault("prog_name", NAME)  # for `python -m fastq` too: shell completion uses this name
        as_click: Callable[..., Any] = super().main  # drops click's overloads
        if not extra.pop("standalone_mode", True):
            return as_click(*args, standalone_mode=False, **extra)
        streams.prepare()
        given = args[0] if args else extra.pop("args", None)

        def run() -> Any:
            streams.check_variables(os.environ, [name for name in os.environ if name.startswith(PREFIX)])
            arguments = streams.arguments_as_text(sys.argv[1:] if given is None else given)
            return as_click(arguments, standalone_mode=False, **extra)

        code = _exit_code(run)
        if code == Interrupted.exit_code and threading.active_count() > 1:
            os._exit(code)  # a thread that waits for the server would hold the process until it answers
        sys.exit(code)


def _exit_code(run: Callable[[], Any]) -> int:
    """Run a command and write what is left of its output. Return its exit code."""
    try:
        code = _outcome(run)
        sys.stdout.flush()
    except BrokenPipeError:
        streams.discard_output()
        return streams.EXIT_BROKEN_PIPE
    except OSError as error:
        if error.filename is None:  # of the output: the network's errors are the SDK's
            streams.discard_output()
        notice(f"fastq: {error.filename or 'standard output'}: {error.strerror or error}")
        return streams.EXIT_IO
    return code if isinstance(code, int) else 0


def _outcome(run: Callable[[], Any]) -> Any:
    """Run a command and print its error on one line. Return its exit code."""
    try:
        return run()
    except SystemExit as ended:
        return ended.code
    except click.exceptions.NoArgsIsHelpError as error:
        notice(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        notice(f"fastq: {_message(error)}")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        notice("fastq: interrupted")
        return Interrupted.exit_code


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
    failed; 2 wrong usage; 3 the server cannot be reached; 4 no job is ready, or the wait timed out; 74 input or output
    failed; 130 interrupted.
    """
