"""`fastq serve`."""

from __future__ import annotations

import os
import sys

import click

from fastq.cli.notices import notice
from fastq.cli.streams import check_variables
from fastq.errors import BadSetting
from fastq.server.settings import SETTINGS, load_settings


def _settings_epilog() -> str:
    shown = [f"{s.name} ({s.default})" if s.default else s.name for s in SETTINGS]
    return "Settings are environment variables: " + ", ".join(shown) + "."


@click.command(epilog=_settings_epilog())
def serve() -> None:
    """Start the server."""
    try:
        check_variables(os.environ, [setting.name for setting in SETTINGS])
        settings = load_settings(os.environ)
    except click.UsageError as error:
        notice(f"fastq: {error.message}")
        sys.exit(BadSetting.exit_code)
    except BadSetting as error:
        notice(f"fastq: {error}")
        sys.exit(error.exit_code)
    # Imported late: a bad setting is reported before the extensions load.
    from fastq.server.run import run  # noqa: PLC0415

    sys.exit(run(settings))
