"""Gives commands a client of a running server."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from fastq.cli.errors import Failed, TimedOut, Unreachable
from fastq.cli.param_types import DURATION
from fastq.client import ClientError, NotFinished, Retries, ServerUnreachable
from fastq.client.sync_client import URL, Client

KEY_BYTES_MAX = 4096

Function = TypeVar("Function", bound=Callable[..., None])


def server_options(command: Function) -> Function:
    """Add the options `url` and `key_file`."""
    command = click.option(
        "--key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="FASTQ_KEY_FILE",
        help="File with the API key. Default: FASTQ_KEY.",
    )(command)
    return click.option(
        "--server", "--url", "url", metavar="URL", default=URL, envvar="FASTQ_URL", show_default=True,
        help="URL of the server, or FASTQ_URL.",
    )(command)  # fmt: skip


def with_client(retry_for: str = "5s") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the server options and pass a client to the command. Errors of the SDK become errors of the command line.

    Args:
        retry_for: default of --retry-for.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--retry-for", "retry_ms", type=DURATION, default=retry_for, envvar="FASTQ_RETRY_FOR", show_default=True,
            help="How long to retry while the server is away or busy.",
        )  # fmt: skip
        @server_options
        @functools.wraps(command)
        def wrapper(url: str, key_file: Path | None, retry_ms: int, **arguments: object) -> None:
            with client_of(url, key_file, retry_ms) as client:
                command(client, **arguments)

        return wrapper

    return decorated


@contextlib.contextmanager
def client_of(url: str, key_file: Path | None, retry_ms: int = 5_000) -> Iterator[Client]:
    """A client of the server. Raises click.UsageError, and `Failed` for errors of the SDK."""
    key = api_key(key_file)
    try:
        client = Client(url, key, retries=Retries(for_s=retry_ms / 1000))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with cli_errors(url), client:
        yield client


@contextlib.contextmanager
def cli_errors(url: str) -> Iterator[None]:
    """Turn errors of the SDK into errors with an exit code."""
    try:
        yield
    except ServerUnreachable as error:
        raise Unreachable(f"{url}: {error}") from error
    except NotFinished as error:
        raise TimedOut(str(error)) from error
    except ClientError as error:
        raise Failed(str(error)) from error


def api_key(key_file: Path | None) -> str:
    """The key in the file, else FASTQ_KEY. Raises click.UsageError: there is none."""
    if key_file is None:
        key = os.environ.get("FASTQ_KEY", "").strip()
    else:
        with key_file.open(encoding="ascii", errors="replace") as file:
            key = file.read(KEY_BYTES_MAX).strip()
    if not key:
        raise click.UsageError("no API key: set FASTQ_KEY, or name a file with --key-file")
    return key
