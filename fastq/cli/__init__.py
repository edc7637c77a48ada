"""The command line: one module for each group of commands, put together here."""

from __future__ import annotations

from importlib import import_module

import click

from fastq import __version__

COMMANDS = {
    "serve": "serve", "keys": "keys", "log": "log", "backup": "backup", "restore": "backup", "worker": "worker",
    "chaos": "chaos", "import-wal": "import_wal:import_wal",
}  # fmt: skip
"""name -> module below fastq.cli that has it, under that name or the one behind the colon"""


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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastq")
def main() -> None:
    """A durable job queue."""
