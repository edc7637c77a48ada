"""A running server, as commands speak to it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from fastq.cli.errors import Failed, NotInTime, Unreachable
from fastq.cli.param_types import DURATION
from fastq.client import ClientError, NotFinished, Retries, ServerUnreachable
from fastq.client.sync_client import URL, Client

KEY_BYTES_MAX = 4096

Function = TypeVar("Function", bound=Callable[..., None])


def server_options(command: Function) -> Function:
    """The options `url` and `key_file` of a command that speaks to a server."""
    command = click.option(
        "--key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="FASTQ_KEY_FILE",
        help="Holds the key, else FASTQ_KEY does.",
    )(command)
    return click.option(
        "--server", "--url", "url", metavar="URL", default=URL, envvar="FASTQ_URL", show_default=True,
        help="Else FASTQ_URL.",
    )(command)  # fmt: skip


def asks(retry_for: str = "5s") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that gets a client of the server that its options name, and whose failures end as they should.

    Args:
        retry_for: how long a server that is away or busy is tried again, unless the option says so.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--retry-for", "retry_ms", type=DURATION, default=retry_for, envvar="FASTQ_RETRY_FOR", show_default=True,
            help="How long a server that is away or busy is tried again.",
        )  # fmt: skip
        @server_options
        @functools.wraps(command)
        def asking(url: str, key_file: Path | None, retry_ms: int, **arguments: object) -> None:
            with client_of(url, key_file, retry_ms) as client:
                command(client, **arguments)

        return asking

    return decorated


@contextlib.contextmanager
def client_of(url: str, key_file: Path | None, retry_ms: int = 5_000) -> Iterator[Client]:
    """Raises click.UsageError, Failed."""
    key = api_key(key_file)
    try:
        client = Client(url, key, retries=Retries(for_s=retry_ms / 1000))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with told(url), client:
        yield client


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
    """What the SDK raises as one line and an exit code."""
    try:
        yield
    except ServerUnreachable as error:
        raise Unreachable(f"{url}: {error}") from error
    except NotFinished as error:
        raise NotInTime(str(error)) from error
    except ClientError as error:
        raise Failed(str(error)) from error


def api_key(key_file: Path | None) -> str:
    """What the file holds, or FASTQ_KEY. Raises click.UsageError: neither is there."""
    if key_file is None:
        key = os.environ.get("FASTQ_KEY", "").strip()
    else:
        with key_file.open(encoding="ascii", errors="replace") as file:
            key = file.read(KEY_BYTES_MAX).strip()
    if not key:
        raise click.UsageError("a key is needed: in FASTQ_KEY, or in a file named by --key-file")
    return key
