"""A file that gets its name when it is complete and durable. Until then the name stays with the old file, or with none.

A draft is `NAME.partial-PID` beside it, locked while its writer lives. A kill leaves it; the next writer removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

_DRAFT = re.compile(r"(.+)\.partial-\d+")


@contextlib.contextmanager
def draft(destination: Path, *, mode: int = 0o600, beginning: bytes = b"") -> Iterator[int]:
    """Yield the descriptor of a new file, for reading and writing. It becomes `destination` at the end of the block.

    If the block raises an error, no file is left.

    Args:
        mode: of the file; the umask applies.
        beginning: abandoned drafts of other destinations are removed too if they begin so, or are empty.
    Raises:
        OSError.
    """
    directory = destination.absolute().parent
    _remove_abandoned(directory, destination.name, beginning)
    path = directory / f"{destination.name}.partial-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it fails if a process of another container has the same number
        try:
            os.ftruncate(fd, 0)
            yield fd
            with naming(destination):
                os.fsync(fd)
            os.rename(path, destination)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        sync_directory(directory)
    finally:
        os.close(fd)


def _remove_abandoned(directory: Path, name: str, beginning: bytes) -> None:
    """Remove the drafts that killed processes left: those of `name`, and those of other names that begin so."""
    for entry in os.scandir(directory):
        found = _DRAFT.fullmatch(entry.name)
        if found is None or not entry.is_file(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):  # it is another user's, or the directory cannot be written
            fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if found[1] == name or (beginning and os.pread(fd, len(beginning), 0) in (b"", beginning)):
                    os.unlink(entry.path)
            finally:
                os.close(fd)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError of the block, such as a full disk, the path if it has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
