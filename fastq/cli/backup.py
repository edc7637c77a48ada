"""`fastq backup` and `fastq restore`."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from fastq.cli.errors import Failed, Unreachable
from fastq.cli.log import DIRECTORY, exits_on_error, viewed
from fastq.cli.notices import notice
from fastq.cli.remote import address_of, api_key, plain, server_options
from fastq.cli.streams import say
from fastq.client.protocol import Answer, refusal
from fastq.client.wire import Address
from fastq.clock import wall_us
from fastq.log.files.tools.backup import LogCopy, Manifest, archive, write_archive
from fastq.log.files.tools.check import empty_core, read_whole
from fastq.log.files.tools.restore import restore as restore_archive
from fastq.log.files.tools.rotation import next_path, remove_old
from fastq.server.logs import counted, jobs_counted

READ_BYTES = 1 << 20
SILENCE_S = 60.0  # socket timeout


@click.command()
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--offline", "directory", type=DIRECTORY, help="The data directory of a stopped server.")
@click.option("--keep", type=click.IntRange(1), help="Remove older backups of this server until so many are left.")
@server_options
def backup(destination: Path, directory: Path | None, keep: int | None, url: str, key_file: Path | None) -> None:
    """Write a backup of a running server to the file DESTINATION, or into the directory DESTINATION.

    In a directory the file is named by the time: fastq-20261128T023000Z.tar.

    The backup contains everything that was answered before it began. The server continues to work. DESTINATION appears
    when the file is complete, read back and on stable storage. Needs an admin key.
    """
    into = destination.is_dir()
    if keep is not None and not into:
        raise click.UsageError(f"--keep: {destination} is no directory")
    if into:
        destination = next_path(destination, wall_us())
    with exits_on_error():
        if directory is not None:
            manifest = _offline(directory, destination)
        else:
            manifest = _from_server(url, api_key(key_file), destination)
    files = f"{counted(len(manifest.segments), 'segment')}, {counted(manifest.segment_bytes, 'byte')}"
    say(f"{destination}: everything up to frame {manifest.last_seq:,}, {files}")
    if keep is not None:
        for old in remove_old(destination, keep):
            say(f"{old}: removed")


def _offline(directory: Path, destination: Path) -> Manifest:
    """Back up a directory that no server uses. A torn tail is not copied. Raises StartError: the log is damaged."""
    with viewed(directory):
        found = read_whole(directory, empty_core())
        copy = LogCopy(directory, found.first_segment, found.next_seq - 1)
        return write_archive(archive(copy, found.next_seq - 1), destination)


def _from_server(url: str, key: str, destination: Path) -> Manifest:
    """Back up a running server. A backup is as large as the log, so it is streamed; the SDK would buffer it."""
    address = address_of(url, key)
    with _connected(address) as connection:
        try:
            connection.request("POST", f"{address.prefix}/admin/backup", headers={"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise Unreachable(f"{url}: {str(error) or type(error).__name__}") from error
        if answer.status != 200:
            refused = refusal(Answer(answer.status, answer.read(READ_BYTES)))
            raise Failed(plain(str(refused)))
        try:
            return write_archive(_pieces(answer), destination)
        except http.client.HTTPException as error:
            raise Failed(f"{url}: the backup ended early: {error!r}; nothing was kept; see the server's log") from error
        except OSError as error:
            if error.filename is not None:  # the file, not the connection
                raise
            raise Failed(f"{url}: {error}; nothing was kept") from error


@contextlib.contextmanager
def _connected(address: Address) -> Iterator[http.client.HTTPConnection]:
    kind = http.client.HTTPSConnection if address.is_tls else http.client.HTTPConnection
    with contextlib.closing(kind(address.host, address.port, timeout=SILENCE_S)) as connection:
        yield connection


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := answer.read(READ_BYTES):
        yield piece


@click.command()
@click.argument("source", metavar="BACKUP", type=click.File("rb"))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def restore(source: IO[bytes], directory: Path) -> None:
    """Restore BACKUP (- for standard input) into DIRECTORY, which must be empty or missing.

    The whole backup is checked first. Exit codes: 65 the backup is damaged or incomplete; 73 DIRECTORY is not empty.
    """
    with exits_on_error():
        manifest, core = restore_archive(source, directory, wall_us())
    say(f"{directory}: {jobs_counted(core.counts())}")
    everything = f"everything up to frame {manifest.last_seq:,}, {manifest.segment_bytes:,} bytes"
    say(f"{everything}; start it with WAL_DIR={directory}")
    notice("Stop the original server first if it is still running: see docs/operations.md")
