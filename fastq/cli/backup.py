"""`fastq backup` and `fastq restore`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import click

from fastq.cli.log import DIRECTORY, ends_with_its_code, viewed
from fastq.log.backup import LogCopy, Manifest, archive, write_archive
from fastq.log.check import empty_core, read_whole
from fastq.log.restore import restore as restore_archive

READ_BYTES = 1 << 20
SILENCE_S = 60.0  # how long a server may send nothing


@click.command()
@click.argument("destination", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--offline", "directory", type=DIRECTORY, help="The data directory of a stopped server.")
@click.option("--server", "url", default="http://127.0.0.1:8080", envvar="FASTQ_URL", show_default=True)
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Holds an admin key.")
def backup(destination: Path, directory: Path | None, url: str, key_file: Path | None) -> None:
    """Write a backup of a running server to the file DESTINATION.

    It holds everything that was answered before it began; the server goes on meanwhile. The file appears under its
    name when it is whole, read back and durable. FASTQ_KEY, or the file, has an admin key; FASTQ_URL the server.
    """
    with ends_with_its_code():
        if directory is not None:
            manifest = _offline(directory, destination)
        else:
            key = key_file.read_text().strip() if key_file is not None else os.environ.get("FASTQ_KEY", "")
            if not key:
                raise click.UsageError("an admin key is needed: in FASTQ_KEY, or a file named by --key-file")
            manifest = _from_server(url, key, destination)
    files = f"{len(manifest.segments)} segments, {manifest.segment_bytes:,} bytes"
    print(f"{destination}: everything up to frame {manifest.last_seq:,}, {files}")


def _offline(directory: Path, destination: Path) -> Manifest:
    """Of a directory that no server uses; what a start would cut off or refuse is not copied."""
    with viewed(directory):
        found = read_whole(directory, empty_core())
        copy = LogCopy(directory, found.first_segment, found.next_seq - 1)
        return write_archive(archive(copy, found.next_seq - 1), destination)


def _from_server(url: str, key: str, destination: Path) -> Manifest:
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
        try:
            connection.request("POST", "/admin/backup", headers={"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise click.ClickException(f"{url} answered {answer.status}: {_message(answer.read(READ_BYTES))}")
            return write_archive(_pieces(answer), destination)
        except http.client.HTTPException as error:
            raise click.ClickException(f"{url}: the backup ended early: {error!r}; nothing was kept") from error
        except OSError as error:
            if error.filename is not None:  # ours, not the connection
                raise
            raise click.ClickException(f"{url}: {error}; nothing was kept") from error


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := answer.read(READ_BYTES):
        yield piece


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "no fastq server"


@click.command()
@click.argument("source", metavar="BACKUP", type=click.File("rb"))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def restore(source: IO[bytes], directory: Path) -> None:
    """Make DIRECTORY, which is empty or not there, a data directory from BACKUP (- for standard input).

    Everything is checked first. Exit codes: 65 the backup is damaged or was not finished; 73 DIRECTORY is not empty.
    """
    with ends_with_its_code():
        manifest, core = restore_archive(source, directory)
    counts = core.counts()
    states = ", ".join(f"{n:,} {state}" for state, n in counts.items() if n and state.isupper())
    print(f"{directory}: {counts['jobs']:,} jobs" + (f" ({states})" if states else ""))
    everything = f"everything up to frame {manifest.last_seq:,}, {manifest.segment_bytes:,} bytes"
    print(f"{everything}; start it with WAL_DIR={directory}")
    print("If the server that it is a backup of still runs, stop it first: see docs/operations.md", file=sys.stderr)
