"""The command line: one module for each group of commands, put together here."""

from __future__ import annotations

import click

from fastq import __version__
from fastq.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastq")
def main() -> None:
    """A durable job queue."""


main.add_command(serve)
