"""A disk after crashes: reads the calls that iotrace.c recorded, and lists the possible states after each call.

The model: a file is made of 512-byte sectors, each written whole or not at all; a sync of the file makes durable what
was written before it; names are made durable, in order, by a sync of the directory. Whatever is not durable may be
there or not, sector by sector, and so may a change of length.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
HERE = Path(__file__).parent
_RECORD = struct.Struct("<IIQQQ")
CREATE, WRITE, SYNC, DIRSYNC, RENAME, UNLINK, TRUNCATE, NOTE, DATASYNC = range(1, 10)
FEW = 5  # dirty sectors of a file whose every subset is tried


def build_shim(directory: Path) -> Path:
    """Compile iotrace.c; the library to preload."""
    library = directory / "iotrace.so"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(HERE / "iotrace.c"), "-ldl"]
    subprocess.run([*command, "-lpthread"], check=True)
    return library


@dataclass(frozen=True, slots=True)
class Op:
    """One recorded call. `file` is an inode."""

    kind: int
    file: int
    offset: int
    name: str
    data: bytes


def read_trace(path: Path) -> list[Op]:
    data, at, ops = path.read_bytes(), 0, []
    while at < len(data):
        kind, name_bytes, file, offset, data_bytes = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        name = data[at : at + name_bytes].decode()
        at += name_bytes
        ops.append(Op(kind, file, offset, name, data[at : at + data_bytes]))
        at += data_bytes
    return ops


@dataclass
class File:
    """A file: its content for programs, and its durable content."""

    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    dirty: set[int] = field(default_factory=set)  # sectors written since the last sync

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.now):
            self.now.extend(bytes(end - len(self.now)))
        self.now[offset:end] = data
        self.dirty.update(range(offset // SECTOR, (end + SECTOR - 1) // SECTOR))

    def truncate(self, size: int) -> None:
        grown = bytes(max(0, size - len(self.now)))
        self.now[size:] = grown

    def sync(self) -> None:
        if not self.settled:
            self.durable = bytes(self.now)
        self.dirty.clear()

    @property
    def settled(self) -> bool:
        return not self.dirty and len(self.now) == len(self.durable)

    def crashed(self, sectors: set[int], *, resized: bool) -> bytes:
        """The file after a crash that keeps these dirty sectors, and the new length or the old."""
        size = len(self.now) if resized else len(self.durable)
        content = bytearray(self.durable[:size].ljust(size, b"\0"))
        for sector in sectors:
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, size)
            if start < end:
                content[start:end] = self.now[start:end].ljust(end - start, b"\0")
        return bytes(content)


class Disk:
    """One directory."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}  # by inode: the newest file with it
        self.names: dict[str, File] = {}
        self.durable_names: dict[str, File] = {}
        self.pending: list[tuple[str, str, File | None]] = []  # changes of names since the directory was synced

    @classmethod
    def holding(cls, directory: Path) -> Disk:
        """A disk with the files that are in `directory`, all durable."""
        disk = cls()
        for entry in os.scandir(directory):
            file = File()
            file.write(0, Path(entry.path).read_bytes())
            file.sync()
            disk.files[entry.inode()] = file
            disk.names[entry.name] = disk.durable_names[entry.name] = file
        return disk

    def apply(self, op: Op) -> None:
        if op.kind == CREATE:
            self.files[op.file] = self.names[op.name] = file = File()
            self.pending.append(("set", op.name, file))
        elif op.kind == WRITE:
            self.files[op.file].write(op.offset, op.data)
        elif op.kind in (SYNC, DATASYNC):
            self.files[op.file].sync()
        elif op.kind == TRUNCATE:
            self.files[op.file].truncate(op.offset)
        elif op.kind == RENAME:
            new = op.data.decode()
            self.names[new] = file = self.names.pop(op.name)
            self.pending.append((f"move {op.name}", new, file))
        elif op.kind == UNLINK:
            del self.names[op.name]
            self.pending.append(("drop", op.name, None))
        elif op.kind == DIRSYNC:
            self.durable_names = dict(self.names)
            self.pending.clear()

    def names_after(self, kept: int) -> dict[str, File]:
        """The names if a crash keeps the first `kept` of the pending changes."""
        names = dict(self.durable_names)
        for what, name, file in self.pending[:kept]:
            if file is None:
                names.pop(name, None)
            else:
                names.pop(what.removeprefix("move "), None)
                names[name] = file
        return names

    def crashes(self, rng: random.Random, draws: int) -> Iterator[dict[str, bytes]]:
        """The possible states after a power failure now: names and contents.

        Args:
            draws: how many subsets of the unsynced sectors to draw for each set of names, beside the extremes.
        """
        for kept in {0, len(self.pending), rng.randint(0, len(self.pending))}:
            names = self.names_after(kept)
            loose = {name: file for name, file in names.items() if not file.settled}
            fixed = {name: file.durable for name, file in names.items() if file.settled}
            yield fixed | {name: file.crashed(set(), resized=False) for name, file in loose.items()}
            if not loose:
                continue
            yield fixed | {name: bytes(file.now) for name, file in loose.items()}
            for _ in range(draws):
                share = rng.choice([0.1, 0.5, 0.9])
                yield fixed | {
                    name: file.crashed(
                        {s for s in sorted(file.dirty) if rng.random() < share}, resized=rng.random() < 0.7
                    )
                    for name, file in loose.items()
                }
            yield from self._every_subset(fixed, loose)

    def _every_subset(self, fixed: dict[str, bytes], loose: dict[str, File]) -> Iterator[dict[str, bytes]]:
        """Every subset of a file's dirty sectors if they are few; else each sector alone, and all but each."""
        for name, file in loose.items():
            others = {other: bytes(each.now) for other, each in loose.items() if other != name}
            dirty = sorted(file.dirty)
            subsets: list[set[int]] = []
            if len(dirty) <= FEW:
                subsets = [{s for n, s in enumerate(dirty) if mask >> n & 1} for mask in range(1 << len(dirty))]
            elif len(dirty) <= 4 * FEW:
                subsets = [{s} for s in dirty] + [file.dirty - {s} for s in dirty]
            for subset in subsets:
                yield fixed | others | {name: file.crashed(subset, resized=True)}
