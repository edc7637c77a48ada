"""Restore a backup's archive into a data directory.

The identity file comes first, then the segments, the first segment last: until the last step a server refuses the
directory.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO

from fastq._core import Core
from fastq.errors import BackupDamaged, LogDamaged, WouldOverwrite
from fastq.log.files.fence import FENCE_FILE, fence_at, write_fence
from fastq.log.files.segments import (
    IDENTITY_FILE,
    LOCK_FILE,
    lock_directory,
    make_directory,
    sync_directory,
    write_all,
)
from fastq.log.files.tools.backup import Manifest, unpack
from fastq.log.files.tools.check import empty_core, read_whole

STAGING = "restoring"  # a directory below the restored one


def restore(file: IO[bytes], directory: Path, now_us: int) -> tuple[Manifest, Core]:
    """Restore a backup into `directory`. Returns the manifest and the restored state, replayed and checked.

    Args:
        file: the archive; need not be seekable.
        now_us: the wall clock, for the fence: tokens of leases after the backup become invalid.
    Raises:
        WouldOverwrite: `directory` is not empty. DirectoryLocked, BackupDamaged, OSError. Then the directory is as it
        was; after a kill it holds `database`, STAGING and perhaps the fence, and no server starts on it.
    """
    make_directory(directory)
    lock = lock_directory(directory)
    staging, identity, fence = (directory / name for name in (STAGING, IDENTITY_FILE, FENCE_FILE))
    try:
        there = sorted(entry.name for entry in os.scandir(directory) if entry.name != LOCK_FILE)
        if there:
            raise WouldOverwrite(f"{directory} is not empty: it holds {there[0]!r}")
        try:
            manifest, core = _fill(file, directory, staging)
            write_fence(directory, fence_at(max(now_us, core.last_us)))
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            fence.unlink(missing_ok=True)
            identity.unlink(missing_ok=True)
            raise
        for segment in reversed(manifest.segments[1:]):
            os.rename(staging / segment.name, directory / segment.name)
        sync_directory(directory)
        os.rename(staging / manifest.segments[0].name, directory / manifest.segments[0].name)
        sync_directory(directory)
        shutil.rmtree(staging)
    finally:
        os.close(lock)
    return manifest, core


def _fill(file: IO[bytes], directory: Path, staging: Path) -> tuple[Manifest, Core]:
    """Unpack the archive into the staging directory, durably, and replay it."""
    staging.mkdir(mode=0o700)

    def keep(name: str, data: memoryview) -> None:
        _write(staging / name, data)
        if name == IDENTITY_FILE:  # from here on no server takes the directory for an empty one
            _write(directory / name, data)
            sync_directory(directory)

    manifest = unpack(file, keep)
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


def _write(path: Path, data: memoryview) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
