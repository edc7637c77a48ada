"""A running server, as commands speak to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

READ_BYTES = 1 << 20
SILENCE_S = 60.0  # how long a server may send nothing

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """The options `url` and `key_file` of a command that speaks to a server."""
    command = click.option(
        "--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Holds an admin key."
    )(command)
    return click.option(
        "--server", "--url", "url", default="http://127.0.0.1:8080", envvar="FASTQ_URL", show_default=True
    )(command)


def admin_key(key_file: Path | None) -> str:
    """What the file holds, or FASTQ_KEY. Raises click.UsageError: neither is there."""
    key = key_file.read_text().strip() if key_file is not None else os.environ.get("FASTQ_KEY", "").strip()
    if not key:
        raise click.UsageError("an admin key is needed: in FASTQ_KEY, or a file named by --key-file")
    return key


@contextlib.contextmanager
def connected(url: str) -> Iterator[http.client.HTTPConnection]:
    """Raises click.BadParameter."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"'{url}' is no http or https URL", param_hint="--server")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=SILENCE_S, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SILENCE_S)
    with contextlib.closing(connection):
        yield connection


def ask(url: str, key: str, method: str, path: str, body: Any = None) -> Any:
    """One request, its answer decoded. Raises click.ClickException with what the server says is wrong."""
    headers = {"Authorization": f"Bearer {key}"}
    try:
        with connected(url) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise click.ClickException(f"{url}: {str(error) or type(error).__name__}") from error
    if answer.status >= 300:
        raise click.ClickException(f"{url} answered {answer.status}: {message_of(content)}")
    try:
        return json.loads(content)
    except ValueError:
        raise click.ClickException(f"{url} is no fastq server") from None


def message_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "no fastq server"
