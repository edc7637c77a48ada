"""Every crash point of a traced run: what the disk may hold there is recovered and held against what was told."""

from __future__ import annotations

import asyncio
import copy
import os
import random
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fastq.errors import LogDamaged
from fastq.log.files.recovery import read_log
from tests.log.files.disk import NOTE, Disk, Op, read_trace
from tests.log.files.life import log_of
from tests.log.files.writer import Writer


class Told(Protocol):
    """What clients were told up to some step of a trace; holds what a disk has against it."""

    acked_seq: int  # every frame up to this one may have been acknowledged

    def note(self, data: bytes) -> None:
        """A remark that the trace holds."""

    def verdict(self, directory: Path) -> str:
        """Recover what is in `directory`, without changing it: right, lost or wrong. Raises LogDamaged."""

    def go_on(self, directory: Path) -> None:
        """Recover for good, do some more, close and recover again. Asserts that nothing changed by that."""

    def fork(self) -> Told:
        """Another one that knows as much."""


@dataclass
class Ledger:
    """Documents: what was written, and what a client may have been told."""

    written: dict[int, set[bytes]] = field(default_factory=dict)  # records of the frames that had a sequence number
    last: dict[int, bytes] = field(default_factory=dict)  # the newest of them
    acked: list[bytes] = field(default_factory=list)  # records of each acknowledged frame, from frame 1 on

    @property
    def acked_seq(self) -> int:
        return len(self.acked)

    def note(self, data: bytes) -> None:
        kind, seq = struct.unpack_from("<cQ", data)
        if kind == b"B":
            self.last[seq] = data[9:]
            self.written.setdefault(seq, set()).add(data[9:])
        else:
            self.acked.extend(self.last[n] for n in range(len(self.acked) + 1, seq + 1))

    def verdict(self, directory: Path) -> str:
        recovered = recover(directory)
        if recovered[: len(self.acked)] != self.acked:
            return "lost" if len(recovered) < len(self.acked) else "wrong"
        for seq, records in enumerate(recovered[len(self.acked) :], len(self.acked) + 1):
            if records not in self.written.get(seq, ()):
                return "wrong"
        return "right"

    def go_on(self, directory: Path) -> None:
        before = recover(directory)
        assert go_on(directory) == before, "opening for good found something else than reading did"

    def fork(self) -> Ledger:
        return copy.deepcopy(self)


class Place:
    """A directory that is made to hold one state after another; only files that differ are written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._held: dict[str, bytes] = {}
        directory.mkdir()

    def hold(self, state: dict[str, bytes]) -> None:
        for name in self._held.keys() - state.keys():
            (self.directory / name).unlink()
        for name, content in state.items():
            if self._held.get(name) != content:
                (self.directory / name).write_bytes(content)
        self._held = state


def recover(directory: Path) -> list[bytes]:
    """The records of each frame, in order. Changes nothing."""
    frames: list[bytes] = []

    def replay(records: memoryview, _frame: int) -> int:
        frames.append(bytes(records))
        at = count = 0
        while at < len(records):
            at += int.from_bytes(records[at + 4 : at + 8], "little")
            count += 1
        return count

    found = read_log(directory, replay)
    return frames + [frame.records for frame in found.pending]


def go_on(directory: Path) -> list[bytes]:
    """Recover for good, write one more frame, and close: the records of each frame that the next opening finds."""

    async def live() -> list[bytes]:
        writer = await Writer(log_of(directory)).open().start()
        before = writer.places
        for place, records in before:
            assert await writer.log.read([place]) == [records], f"{place} is not where the records are"
        await writer.write("more", b"x" * 700)
        await writer.log.close()
        return [records for _, records in before]

    before = asyncio.run(live())
    after = recover(directory)
    assert after[: len(before)] == before, "an opening changed what it had found"
    assert len(after) == len(before) + 2, f"{len(after)} frames after {len(before)}"
    return before


@dataclass
class Enumerator:
    """Walks a trace and judges the states at each of its steps."""

    scratch: Path
    rng: random.Random
    draws: int = 2  # subsets of unsynced sectors at each set of names
    deep_share: float = 0.01  # of the states are opened for good, written to, and read again
    failures_max: int = 20  # then it stops
    counts: Counter[str] = field(default_factory=Counter)
    seen: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    on_deep: Callable[[dict[str, bytes], Told], None] | None = None

    def run(self, ops: Iterable[Op], disk: Disk | None = None, told: Told | None = None) -> None:
        disk, told = disk or Disk(), told or Ledger()
        place = Place(self.scratch / "state")
        for index, op in enumerate(ops):
            disk.apply(op)
            if op.kind == NOTE:
                told.note(op.data)
            self.counts["points"] += 1
            if len(self.failures) >= self.failures_max:
                break
            for state in disk.crashes(self.rng, self.draws):
                key = hash((told.acked_seq, frozenset(state.items())))
                if key not in self.seen:
                    self.seen.add(key)
                    self._judge(index, state, told, place)
        shutil.rmtree(place.directory)

    def _judge(self, index: int, state: dict[str, bytes], told: Told, place: Place) -> None:
        self.counts["states"] += 1
        place.hold(state)
        try:
            verdict = told.verdict(place.directory)
            if verdict == "right" and self.rng.random() < self.deep_share:
                self._judge_deep(state, told)
        except LogDamaged as refusal:
            verdict = f"refused: {refusal}"
        self.counts[verdict.split(":")[0]] += 1
        if verdict != "right":
            self.failures.append(f"step {index}: {verdict}, acknowledged {told.acked_seq}")

    def _judge_deep(self, state: dict[str, bytes], told: Told) -> None:
        copied = self.scratch / "copy"
        copied.mkdir()
        for name, content in state.items():
            (copied / name).write_bytes(content)
        told.go_on(copied)
        shutil.rmtree(copied)
        self.counts["opened and written to"] += 1
        if self.on_deep is not None:
            self.on_deep(state, told)


def trace_lives(shim: Path, scratch: Path, seed: int, lives: int, *how: str, check: bool = True) -> list[Op]:
    """Run lives on `scratch/data` in processes of their own; what they did to the disk. `check`: they must end well."""
    data, trace = scratch / "data", scratch / "trace"
    data.mkdir(exist_ok=True)
    trace.unlink(missing_ok=True)
    preload = f"{os.environ.get('LD_PRELOAD', '')} {shim}".strip()  # after a sanitizer's library, if there is one
    environment = os.environ | {"LD_PRELOAD": preload, "IOTRACE_DIR": str(data), "IOTRACE_FILE": str(trace)}
    command = [sys.executable, "-m", "tests.log.files.life", str(data), str(seed), str(lives), *how]
    subprocess.run(command, env=environment, check=check, timeout=120, capture_output=not check)
    return read_trace(trace)
