"""The files of a log: their names, the head of a segment, the database's identity, the lock.

Each function makes one change on disk, in the order that docs/log-format.md explains.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastq.drafts import sync_directory
from fastq.errors import DirectoryFailed, DirectoryLocked, LogDamaged, UnsupportedFormat
from fastq.log.files._flusher import crc32c, send_to_device

FORMAT = 3
HEAD_BYTES = 4096
FIRST_SEGMENT = 1  # of a new log
SEGMENT_MAGIC = b"FASTQSEG"
IDENTITY_MAGIC = b"FASTQDBI"
IDENTITY_FILE = "database"
LOCK_FILE = "LOCK"
RESTORING = "restoring"  # a directory below: while it exists, a restore has not ended and the rest is not whole
FILL_STEP = bytes(256 << 10)  # a spare is filled in steps of these zeros; a commit may have to wait for one step

# magic, format, align, database_id, epoch, number, reserved, bytes, first_seq, synced_seq, salt; then their CRC32C
_HEAD = struct.Struct("<8sII16sQIIQQQQ")
_IDENTITY = struct.Struct("<8sI16s")
_CRC = struct.Struct("<I")
_SEGMENT_NAME = re.compile(r"segment-(\d{8,})")
_SPARE_NAME = re.compile(r"spare-\d+")
_CLEANED_NAME = re.compile(r"cleaned-\d{8,}")


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """The first block of a segment file. Sequence numbers count frames."""

    database_id: bytes  # 16 bytes
    epoch: int  # rises at every opening of the log
    number: int
    align: int  # bytes; its frames begin and end at multiples of it
    file_bytes: int  # until a later opening shortens it
    first_seq: int  # of an opening's first segment: frames from here on in earlier ones are copies. 0: a later segment
    synced_seq: int  # every frame up to here was durable when the file got its name, frames in it included
    salt: int  # 64 random bits, in each frame's head too

    @property
    def first_offset(self) -> int:
        """The offset of the first frame."""
        return max(HEAD_BYTES, self.align)

    def pack(self) -> bytes:
        """The head as `HEAD_BYTES` bytes. The first 512 hold every value, so a device writes all of them or none."""
        packed = _HEAD.pack(
            SEGMENT_MAGIC, FORMAT, self.align, self.database_id, self.epoch, self.number, 0, self.file_bytes,
            self.first_seq, self.synced_seq, self.salt,
        )  # fmt: skip
        return (packed + _CRC.pack(crc32c(packed))).ljust(HEAD_BYTES, b"\0")


def unpack_head(data: bytes, path: Path) -> SegmentHead:
    """Read a segment's head from the first bytes of its file.

    Raises:
        LogDamaged: the bytes are no segment head. UnsupportedFormat: a later version wrote it.
    """
    if len(data) < _HEAD.size + _CRC.size or data[:8] != SEGMENT_MAGIC:
        raise LogDamaged(f"{path}: offset 0: not the head of a segment; see `fastq log check`")
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    if crc32c(data[: _HEAD.size]) != crc:
        raise LogDamaged(f"{path}: offset 0: the segment's head is damaged; see `fastq log check`")
    _, version, align, database_id, epoch, number, _, size, first_seq, synced_seq, salt = _HEAD.unpack_from(data)
    if version != FORMAT:
        raise UnsupportedFormat(f"{path}: written in log format {version}; this version of fastq reads {FORMAT}")
    return SegmentHead(database_id, epoch, number, align, size, first_seq, synced_seq, salt)


# --- names ------------------------------------------------------------------------------------------------------------


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"segment-{number:08d}"


def is_segment_name(name: str) -> bool:
    return _SEGMENT_NAME.fullmatch(name) is not None


def segment_numbers(directory: Path) -> list[int]:
    """The numbers of the segment files in a directory, ascending."""
    names = [_SEGMENT_NAME.fullmatch(entry.name) for entry in os.scandir(directory)]
    return sorted(int(name[1]) for name in names if name)


def spare_paths(directory: Path) -> list[Path]:
    return sorted(directory / entry.name for entry in os.scandir(directory) if _SPARE_NAME.fullmatch(entry.name))


def cleaned_paths(directory: Path) -> list[Path]:
    """Dropped segments that are still to be overwritten and deleted."""
    return sorted(directory / entry.name for entry in os.scandir(directory) if _CLEANED_NAME.fullmatch(entry.name))


def new_spare_path(directory: Path) -> Path:
    """An unused name for a spare."""
    taken = {path.name for path in spare_paths(directory)}
    return next(directory / name for n in range(1, len(taken) + 2) if (name := f"spare-{n}") not in taken)


class SegmentReader:
    """Reads whole segment files, one at a time, into one buffer, which is freed with this object."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._buffer = _memory(1)

    def read(self, number: int, size: int | None = None) -> memoryview:
        """Read the first `size` bytes of the file, or all of it; fewer if it is shorter. Valid until the next call.

        Raises:
            OSError.
        """
        done = 0
        with segment_path(self._directory, number).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size if size is None else size
            if len(self._buffer) < size:
                self._buffer = _memory(size)
            view = memoryview(self._buffer)[:size]
            while done < size and (n := file.readinto(view[done:])):
                done += n
        return view[:done]


def _memory(size: int) -> mmap.mmap:
    """Anonymous memory. It returns to the system with its last reference."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def announce_segment(directory: Path, number: int) -> None:
    """Let the device fetch a segment that is read next. Ignores errors: the read reports them."""
    try:
        with segment_path(directory, number).open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    except OSError:
        pass


def read_head(directory: Path, number: int) -> SegmentHead:
    """Read a segment's head. Raises LogDamaged, UnsupportedFormat, OSError."""
    path = segment_path(directory, number)
    with path.open("rb", buffering=0) as file:
        return unpack_head(file.read(HEAD_BYTES), path)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, with as many pwrite calls as it takes."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        if written == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, offset = view[written:], offset + written


def fill_spare(directory: Path, size: int, break_off: Callable[[], bool] = lambda: False) -> Path | None:
    """Make a file of `size` bytes with all its blocks written, so that no later write allocates blocks.

    Args:
        break_off: called before each step; it may pause. If it returns True, the fill ends.
    Returns:
        The spare's path; None if `break_off` ended the fill: then no file is left.
    Raises:
        OSError: ENOSPC among others; then no file is left either.
    """
    space = os.statvfs(directory)
    if space.f_bavail * space.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    path = new_spare_path(directory)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if not _fill(fd, size, break_off):
            path.unlink()
            return None
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(fd)
    return path


def _fill(fd: int, size: int, break_off: Callable[[], bool]) -> bool:
    """Fill a file with zeros, durably. Returns False if `break_off` ended it."""
    for offset in range(0, size, len(FILL_STEP)):
        if break_off():
            return False
        step = memoryview(FILL_STEP)[: size - offset]
        write_all(fd, step, offset)
        send_to_device(fd, offset, len(step))
    os.fsync(fd)
    return True


def name_segment(spare: Path, head: SegmentHead, frames: bytes = b"") -> int:
    """Turn a spare into the segment that `head` describes, with `frames` after the head. Durable when this returns.

    Returns:
        A descriptor open for reading and writing.
    """
    fd = os.open(spare, os.O_RDWR)
    named = False
    try:
        write_all(fd, head.pack(), 0)
        write_all(fd, frames, head.first_offset)
        os.fsync(fd)
        os.rename(spare, segment_path(spare.parent, head.number))
        named = True
        sync_directory(spare.parent)
    except OSError as error:
        os.close(fd)
        if named:
            # The name may or may not be durable, and a retry could not tell: report EIO, not a full disk.
            raise OSError(errno.EIO, f"the directory could not be synced: {error.strerror}") from error
        spare.unlink()  # its sync may have failed, and a second sync would not report the loss
        raise
    return fd


def recycle_segment(directory: Path, number: int) -> None:
    """Turn an empty segment into a spare."""
    os.rename(segment_path(directory, number), new_spare_path(directory))
    sync_directory(directory)


def drop_segments(directory: Path, first: int, before: int, *, keep_files: bool = False) -> None:
    """Delete segments, oldest first: a crash in between leaves the log whole from some segment on.

    Args:
        keep_files: rename them only, for `erase_cleaned`.
    """
    for number in range(first, before):
        path = segment_path(directory, number)
        if not keep_files:
            path.unlink(missing_ok=True)
        elif path.exists():
            path.rename(directory / f"cleaned-{number:08d}")
    sync_directory(directory)


def erase_cleaned(directory: Path, break_off: Callable[[], bool]) -> None:
    """Overwrite the files that `drop_segments` kept with zeros, and delete them. An interrupted file stays for later.

    Raises:
        OSError.
    """
    for path in cleaned_paths(directory):
        fd = os.open(path, os.O_RDWR)
        try:
            if not _fill(fd, os.fstat(fd).st_size, break_off):
                return
        except OSError as error:
            # Zeros need space only on a file system that copies on write; there they would overwrite nothing.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        finally:
            os.close(fd)
        path.unlink()
    sync_directory(directory)


# --- identity and lock ------------------------------------------------------------------------------------------------


def read_identity(directory: Path) -> bytes | None:
    """The id of the database in this directory; None if there is none.

    Raises:
        LogDamaged, UnsupportedFormat.
    """
    path = directory / IDENTITY_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    head, crc = data[: _IDENTITY.size], data[_IDENTITY.size :]
    if head[:8] != IDENTITY_MAGIC or crc != _CRC.pack(crc32c(head)):
        raise LogDamaged(f"{path}: the file that names the database is damaged; restore it from a backup")
    _, version, database_id = _IDENTITY.unpack(head)
    if version != FORMAT:
        raise UnsupportedFormat(f"{path}: written in log format {version}; this version of fastq reads {FORMAT}")
    return bytes(database_id)


def pack_identity(database_id: bytes) -> bytes:
    """The content of the identity file."""
    packed = _IDENTITY.pack(IDENTITY_MAGIC, FORMAT, database_id)
    return packed + _CRC.pack(crc32c(packed))


def write_identity(directory: Path, database_id: bytes) -> None:
    """Write the identity file of a database. Durable when this returns."""
    draft = directory / f"{IDENTITY_FILE}.new"
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, pack_identity(database_id), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, directory / IDENTITY_FILE)
    sync_directory(directory)


def refuse_unfinished_restore(directory: Path) -> None:
    """Raises DirectoryFailed: a restore into the directory was killed."""
    if (directory / RESTORING).exists():
        raise DirectoryFailed(f"{directory}: a restore has not ended; run it again: fastq restore BACKUP {directory}")


def make_directory(directory: Path) -> None:
    """Make a directory and its parents, if they do not exist. Durable when this returns."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)


def lock_directory(directory: Path) -> int:
    """Keep every other server out of `directory` until the descriptor returned is closed.

    Raises:
        DirectoryLocked: another process uses it.
    """
    fd = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        by = _who_locks(fd)
        os.close(fd)
        raise DirectoryLocked(f"{directory} is in use{by}: one server at a time on a data directory") from None
    except BaseException:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def view_directory(directory: Path) -> int:
    """Keep every server out of `directory` until the returned descriptor is closed. Other readers may share it.

    Writes nothing. Returns -1 if no server ever used the directory: there is nothing to lock.

    Raises:
        DirectoryLocked: a server uses it. OSError.
    """
    try:
        fd = os.open(directory / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        by = _who_locks(fd)
        os.close(fd)
        raise DirectoryLocked(f"{directory} is in use{by}: stop the server first") from None
    return fd


def _who_locks(fd: int) -> str:
    """Who holds the lock, if that is known, for a message."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        return f" by process {pid}" if pid else ""
    return " by a command that reads it"
