"""Gives commands a client of a running server."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from fastq.cli.errors import Failed, TimedOut, Unreachable
from fastq.cli.param_types import DURATION
from fastq.cli.streams import InputFailed, decoded
from fastq.client import ClientError, NotFinished, Retries, ServerUnreachable
from fastq.client.sync_client import URL, Client
from fastq.client.wire import Address

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
    address_of(url, key)
    with cli_errors(url), Client(url, key, retries=Retries(for_s=retry_ms / 1000)) as client:
        yield client


def address_of(url: str, key: str) -> Address:
    """Where the server is. Raises click.UsageError: the URL is malformed."""
    try:
        address = Address.of(url, key)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        address.host.encode("idna")
    except UnicodeError:
        raise click.UsageError(f"url: {address.host!r} is not a host name") from None
    return address


@contextlib.contextmanager
def cli_errors(url: str) -> Iterator[None]:
    """Turn errors of the SDK into errors with an exit code."""
    try:
        yield
    except ServerUnreachable as error:
        raise Unreachable(f"{url}: {plain(str(error))}") from error
    except NotFinished as error:
        raise TimedOut(str(error)) from error
    except ClientError as error:
        raise Failed(plain(str(error))) from error


def plain(message: str) -> str:
    """A message of the API or the system for people: without a repeated beginning, and without numbers of C errors.

    The API answers `job not found: job not found: …`, as the original server did.
    """
    first, colon, rest = message.partition(": ")
    if colon and rest.startswith(first):
        return plain(rest)
    return re.sub(r"\[Errno -?\d+\] ", "", message)


def api_key(key_file: Path | None) -> str:
    """The key in the file, else FASTQ_KEY. Raises click.UsageError: there is none, or it is not a key. InputFailed."""
    if key_file is None:
        source, key = "FASTQ_KEY", os.environ.get("FASTQ_KEY", "").strip()
        if not key:
            raise click.UsageError("no API key: set FASTQ_KEY, or name a file with --key-file")
    else:
        source = str(key_file)
        try:
            with key_file.open("rb") as file:
                key = decoded(file.read(KEY_BYTES_MAX), source).strip()
        except OSError as error:
            raise InputFailed(f"{source}: {error.strerror}") from None
        if not key:
            raise click.UsageError(f"{source} holds no API key")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.UsageError(f"{source} holds no API key: a key is printable ASCII without spaces")
    return key
