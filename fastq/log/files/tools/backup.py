"""A backup copies a log up to one frame into a tar archive. The log may be stopped, or be written meanwhile.

A plain `tar x` makes a data directory, as of a server that stopped right after that frame: the last segment is cut
after it and ends with a closing frame. docs/log-format.md describes the archive.
"""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from fastq.drafts import draft, naming
from fastq.errors import BackupDamaged, LogDamaged, WouldOverwrite
from fastq.log.files._flusher import CLOSED, SEAL, crc32c, fill_head, scan_frames
from fastq.log.files.recovery import beginning, named_at
from fastq.log.files.segments import (
    HEAD_BYTES,
    IDENTITY_FILE,
    SegmentHead,
    SegmentReader,
    is_segment_name,
    pack_identity,
    read_head,
    segment_numbers,
    segment_path,
    write_all,
)

ARCHIVE_FORMAT = 1
MANIFEST = "backup.json"  # the last file of an archive: without it the archive is incomplete
SEGMENT_BYTES_MAX = 1 << 32
PIECE_BYTES = 256 << 10
COPY_BYTES = 1 << 20
NOT_FINISHED = "this is no whole backup: it ends before it is complete"


@dataclass(frozen=True, slots=True)
class Copied:
    """One file of an archive."""

    name: str
    bytes: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest: the last file of an archive, which describes it."""

    last_seq: int
    segments: tuple[Copied, ...]

    @property
    def segment_bytes(self) -> int:
        return sum(segment.bytes for segment in self.segments)

    def pack(self) -> bytes:
        return json.dumps({"format": ARCHIVE_FORMAT, **asdict(self)}, indent=1).encode()


def unpack_manifest(data: bytes) -> Manifest:
    """Raises BackupDamaged."""
    try:
        told = json.loads(data)
        if told["format"] != ARCHIVE_FORMAT:
            raise BackupDamaged(f"the backup has format {told['format']}; this version of fastq reads {ARCHIVE_FORMAT}")
        segments = tuple(Copied(str(one["name"]), int(one["bytes"]), int(one["crc32c"])) for one in told["segments"])
        return Manifest(int(told["last_seq"]), segments)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupDamaged(f"the backup's manifest cannot be read: {error!r}") from error


class LogCopy:
    """Reads the segments of a log up to a frame, one at a time, and checks each frame. Blocking.

    The log may be written meanwhile, and segments of earlier openings shortened; but segments from `next_segment` on
    must not be deleted.
    """

    def __init__(self, directory: Path, first_segment: int, last_seq: int) -> None:
        self.next_segment = first_segment
        self.is_done = False
        self._directory, self._last_seq = directory, last_seq
        self._reader = SegmentReader(directory)
        self._next_seq = self._prev_crc = 0
        numbers = [number for number in segment_numbers(directory) if number >= first_segment]
        self._heads = {number: read_head(directory, number) for number in numbers}
        self.database_id = self._heads[first_segment].database_id

    def read(self) -> memoryview:
        """The next segment in the form to archive. Valid until the next call.

        Raises:
            LogDamaged: a frame is missing or not sound. OSError.
        """
        number = self.next_segment
        data, head = self._reader.read(number), self._heads[number]
        if not self._next_seq:
            self._next_seq, self._prev_crc = beginning(data, head)
        elif head.first_seq:
            self._prev_crc = 0
        begins_anew = next((n for n in sorted(self._heads) if n > number and self._heads[n].first_seq), 0)
        stop_seq = self._last_seq + 1
        if begins_anew:
            stop_seq = min(stop_seq, self._heads[begins_anew].first_seq)
        scanned = scan_frames(
            data, start=head.first_offset, align=head.align, segment=number, epoch=head.epoch, salt=head.salt,
            next_seq=self._next_seq, prev_crc=self._prev_crc, stop_seq=stop_seq, listed=False,
        )  # fmt: skip
        end, why = scanned.end, scanned.why
        self._next_seq, self._prev_crc = scanned.next_seq, scanned.prev_crc
        self.is_done = self._next_seq > self._last_seq
        if not self.is_done and why != "seal" and self._next_seq != stop_seq:
            path = segment_path(self._directory, number)
            raise LogDamaged(f"{path}: offset {end}: frame {self._next_seq} is not sound; see `fastq log check`")
        kept = data[: end + head.align]
        last_crc = named_at(kept, end)[1] if why == "seal" else self._prev_crc
        if self.is_done:
            kept[:HEAD_BYTES] = replace(head, file_bytes=len(kept)).pack()
            write_end(kept[end:], head, self._last_seq, last_crc, CLOSED)
        elif why != "seal" or scanned.proven_seq > self._last_seq:
            # It is unsealed, or its seal knows of later frames: write a new seal. The next segment is a new opening's.
            write_end(kept[end:], head, self._next_seq - 1, last_crc, SEAL)
        self.next_segment += 1
        return kept


def write_end(block: memoryview, head: SegmentHead, last_seq: int, last_crc: int, flags: int) -> None:
    """Write the seal of a segment, or the closing frame of a log, into `block`: the `align` bytes after the last frame.

    Args:
        last_seq, last_crc: that frame's sequence number and head_crc.
    """
    block[:] = bytes(len(block))
    fill_head(
        block, seq=last_seq, durable_seq=last_seq, epoch=head.epoch, salt=head.salt, segment=head.number,
        record_bytes=0, count=0, prev_crc=last_crc, flags=flags,
    )  # fmt: skip


def archive(copy: LogCopy, last_seq: int) -> Iterator[bytes]:
    """Yield the archive in pieces of at most PIECE_BYTES and a header. Blocking. Raises what `LogCopy.read` raises."""
    segments: list[Copied] = []
    yield from _member(IDENTITY_FILE, memoryview(pack_identity(copy.database_id)))
    while not copy.is_done:
        number = copy.next_segment
        kept = copy.read()
        name = segment_path(Path(), number).name
        segments.append(Copied(name, len(kept), crc32c(kept)))
        yield from _member(name, kept)
    yield from _member(MANIFEST, memoryview(Manifest(last_seq, tuple(segments)).pack()))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, data: memoryview) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    yield entry.tobuf(tarfile.USTAR_FORMAT)
    for at in range(0, len(data), PIECE_BYTES):
        yield bytes(data[at : at + PIECE_BYTES])
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


class LiveBackup:
    """An archive of the log of a running server, made off the loop. See `fastq.log.protocol.Backup`."""

    def __init__(
        self,
        start: Callable[[], LogCopy],
        last_seq: int,
        readers: Executor,
        hold: Callable[[int | None], None],
        must_end: Callable[[], str],
    ) -> None:
        """
        Args:
            start: makes the copy; blocking.
            hold: keeps segments from this one on from deletion; None releases them.
            must_end: why the backup must end now; an empty string: it may go on.
        """
        self.is_closed = False
        self._start, self._last_seq = start, last_seq
        self._readers, self._hold, self._must_end = readers, hold, must_end
        self._copy: LogCopy | None = None
        self._pieces: Iterator[bytes] = iter(())

    def __aiter__(self) -> LiveBackup:
        return self

    async def __anext__(self) -> bytes:
        if self.is_closed:
            raise StopAsyncIteration
        if reason := self._must_end():
            await self.close()
            raise OSError(reason)
        try:
            piece = await asyncio.get_running_loop().run_in_executor(self._readers, self._next)
        except BaseException:
            await self.close()
            raise
        if piece is None or self._copy is None:
            await self.close()
            raise StopAsyncIteration
        if not self.is_closed:
            self._hold(self._copy.next_segment)
        return piece

    def _next(self) -> bytes | None:
        if self._copy is None:
            self._copy = self._start()
            self._pieces = archive(self._copy, self._last_seq)
        return next(self._pieces, None)

    async def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._copy, self._pieces = None, iter(())  # frees the buffer of a segment
            self._hold(None)


# --- archives as files ------------------------------------------------------------------------------------------------


def write_archive(pieces: Iterator[bytes], destination: Path) -> Manifest:
    """Write an archive to a new file. The file gets its name once it is complete, verified and durable.

    Raises:
        WouldOverwrite, BackupDamaged, OSError; what `pieces` raises.
    """
    if destination.exists():
        raise WouldOverwrite(f"{destination} exists: a backup overwrites no file")
    with draft(destination, beginning=IDENTITY_FILE.encode() + b"\0") as fd:
        offset = 0
        for piece in pieces:
            with naming(destination):  # and not the connection that the pieces come from
                write_all(fd, piece, offset)
            offset += len(piece)
        os.fsync(fd)
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            manifest = verify(file)
    return manifest


def verify(file: IO[bytes]) -> Manifest:
    """Read an archive to its end and check it. Raises BackupDamaged."""
    return unpack(file, lambda _name, _data: None)


def unpack(file: IO[bytes], keep: Callable[[str, memoryview], None]) -> Manifest:
    """Read an archive in one pass, with one segment in memory at a time.

    Args:
        file: need not be seekable.
        keep: gets each file's name, `database` or a segment's, and its bytes, valid until it returns.
    Raises:
        BackupDamaged: it is no backup, is incomplete, or has changed. What `keep` raises.
    """
    found: list[Copied] = []
    identified = False
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for entry in tar:
                if not entry.isreg() or entry.size > SEGMENT_BYTES_MAX:
                    raise BackupDamaged(f"the archive holds {entry.name!r}, which is no file of a backup")
                data = _read_entry(tar, entry)
                if entry.name == MANIFEST:
                    manifest = unpack_manifest(bytes(data))
                    if tuple(found) != manifest.segments or not identified:
                        raise BackupDamaged("the backup's files differ from its manifest")
                    return manifest
                if entry.name == IDENTITY_FILE and not identified and not found:
                    identified = True
                elif identified and is_segment_name(entry.name):
                    found.append(Copied(entry.name, len(data), crc32c(data)))
                else:
                    raise BackupDamaged(f"the archive holds {entry.name!r} out of order")
                keep(entry.name, data)
    except tarfile.TarError as error:
        raise BackupDamaged(f"this is no whole backup: {error}") from error
    raise BackupDamaged(NOT_FINISHED)


def _read_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> memoryview:
    content = tar.extractfile(entry)
    assert content is not None, "it is a regular file"
    data, done = memoryview(bytearray(entry.size)), 0
    while done < entry.size:
        piece = content.read(min(COPY_BYTES, entry.size - done))
        if not piece:
            raise BackupDamaged(NOT_FINISHED)
        data[done : done + len(piece)] = piece
        done += len(piece)
    return data
