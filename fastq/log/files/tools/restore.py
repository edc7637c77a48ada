"""Restore a backup's archive into a data directory.

The files are unpacked into a directory below it, RESTORING, and move up when they are complete and checked. While that
directory exists, servers and commands refuse the data directory, and a restore begins anew. It is removed last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import IO

from fastq._core import Core
from fastq.drafts import sync_directory
from fastq.errors import BackupDamaged, LogDamaged, WouldOverwrite
from fastq.log.files.fence import FENCE_DRAFT, FENCE_FILE, fence_at, write_fence
from fastq.log.files.segments import (
    IDENTITY_FILE,
    LOCK_FILE,
    RESTORING,
    is_segment_name,
    lock_directory,
    make_directory,
    write_all,
)
from fastq.log.files.tools.backup import Manifest, unpack
from fastq.log.files.tools.check import empty_core, read_whole

_OURS = frozenset((RESTORING, IDENTITY_FILE, FENCE_FILE, FENCE_DRAFT))  # beside segments


def restore(file: IO[bytes], directory: Path, now_us: int) -> tuple[Manifest, Core]:
    """Restore a backup into `directory`. Returns the manifest and the restored state, replayed and checked.

    Args:
        file: the archive; need not be seekable.
        now_us: the wall clock, for the fence: tokens of leases after the backup become invalid.
    Raises:
        WouldOverwrite: `directory` is not empty. DirectoryLocked, BackupDamaged, OSError. Then the directory is as it
        was; after a kill no server starts on it, and a second restore begins anew.
    """
    make_directory(directory)
    lock = lock_directory(directory)
    try:
        _clear(directory)
        try:
            manifest, core = _fill(file, directory)
            write_fence(directory, fence_at(max(now_us, core.last_us)))
            _move_up(directory)
        except BaseException:
            with contextlib.suppress(OSError, WouldOverwrite):  # the first error is the one to report
                _clear(directory)
            raise
    finally:
        os.close(lock)
    return manifest, core


def _clear(directory: Path) -> None:
    """Remove what a restore that did not end has left. Raises WouldOverwrite: the directory holds something else."""
    there = {entry.name for entry in os.scandir(directory)} - {LOCK_FILE}
    ours = {name for name in there if name in _OURS or is_segment_name(name)} if RESTORING in there else set()
    if there > ours:
        raise WouldOverwrite(f"{directory} is not empty: it holds {min(there - ours)!r}")
    if ours:
        for name in ours - {RESTORING}:
            (directory / name).unlink()
        sync_directory(directory)  # only then a server may take the directory for an empty one
        shutil.rmtree(directory / RESTORING)
        sync_directory(directory)


def _fill(file: IO[bytes], directory: Path) -> tuple[Manifest, Core]:
    """Unpack the archive into RESTORING, durably, and replay it."""
    staging = directory / RESTORING
    staging.mkdir(mode=0o700)
    sync_directory(directory)
    manifest = unpack(file, lambda name, data: _write(staging / name, data))
    sync_directory(staging)
    core = empty_core()
    try:
        found = read_whole(staging, core)
    except LogDamaged as error:
        raise BackupDamaged(f"the log in the backup is damaged: {error}") from error
    if found.next_seq - 1 != manifest.last_seq or found.pending or found.torn:
        raise BackupDamaged(f"the log in the backup ends at frame {found.next_seq - 1}, not at {manifest.last_seq}")
    core.check()
    return manifest, core


def _move_up(directory: Path) -> None:
    """Move the files out of RESTORING and remove it."""
    staging = directory / RESTORING
    for name in sorted(entry.name for entry in os.scandir(staging)):
        os.rename(staging / name, directory / name)
    sync_directory(staging)
    sync_directory(directory)
    staging.rmdir()
    sync_directory(directory)


def _write(path: Path, data: memoryview) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
