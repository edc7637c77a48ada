"""Backups in a directory: the name of the next one, and the old ones that are removed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from fastq.drafts import sync_directory
from fastq.log.files.segments import IDENTITY_FILE

BLOCK_BYTES = 512  # of a tar archive: the first one names the file, the second one has what is in it
_NAME = re.compile(r"fastq-\d{8}T\d{6}Z\.tar")


def next_path(directory: Path, now_us: int) -> Path:
    """The path of a backup that begins now. Names of later ones sort behind it."""
    return directory / f"fastq-{datetime.fromtimestamp(now_us // 1_000_000, UTC):%Y%m%dT%H%M%SZ}.tar"


def remove_old(newest: Path, keep: int) -> list[Path]:
    """Remove the oldest backups beside `newest` until `keep` are left with it. Returns what was removed, oldest first.

    Other files stay: those with other names, and backups of another database or in another log format.

    Raises:
        OSError: a file could not be read or removed.
    """
    database = _database_of(newest)
    earlier = sorted(
        path
        for path in newest.parent.iterdir()
        if path != newest and _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink()
    )
    own = [path for path in earlier if _database_of(path) == database]
    old = own[: max(0, len(own) - keep + 1)]
    for path in old:
        path.unlink()
    if old:
        sync_directory(newest.parent)
    return old


def _database_of(path: Path) -> bytes:
    """The archive's first file: it identifies the database and the log format. Empty if it is no backup."""
    with path.open("rb") as file:
        begun = file.read(2 * BLOCK_BYTES)
    return begun[BLOCK_BYTES:] if begun.startswith(IDENTITY_FILE.encode() + b"\0") else b""
