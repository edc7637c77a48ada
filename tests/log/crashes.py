"""Every crash point of a traced run: what the disk may hold there is recovered and held against what was told."""

from __future__ import annotations

import asyncio
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

from fastq.errors import LogDamaged
from fastq.log.recovery import read_log
from tests.log.disk import NOTE, Disk, Op, read_trace
from tests.log.life import log_of
from tests.log.writer import Writer


@dataclass
class Ledger:
    """What was written, and what a client may have been told."""

    written: dict[int, set[bytes]] = field(default_factory=dict)  # records of the frames that had a sequence number
    last: dict[int, bytes] = field(default_factory=dict)  # the newest of them
    acked: list[bytes] = field(default_factory=list)  # records of each acknowledged frame, from frame 1 on

    def note(self, data: bytes) -> None:
        kind, seq = struct.unpack_from("<cQ", data)
        if kind == b"B":
            self.last[seq] = data[9:]
            self.written.setdefault(seq, set()).add(data[9:])
        else:
            self.acked.extend(self.last[n] for n in range(len(self.acked) + 1, seq + 1))

    def verdict(self, recovered: list[bytes]) -> str:
        if recovered[: len(self.acked)] != self.acked:
            return "lost" if len(recovered) < len(self.acked) else "wrong"
        for seq, records in enumerate(recovered[len(self.acked) :], len(self.acked) + 1):
            if records not in self.written.get(seq, ()):
                return "wrong"
        return "right"


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

    def replay(records: memoryview, _segment: int, _offset: int) -> int:
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
    on_deep: Callable[[dict[str, bytes], Ledger], None] | None = None

    def run(self, ops: Iterable[Op], disk: Disk | None = None, ledger: Ledger | None = None) -> None:
        disk, ledger = disk or Disk(), ledger or Ledger()
        place = Place(self.scratch / "state")
        for index, op in enumerate(ops):
            disk.apply(op)
            if op.kind == NOTE:
                ledger.note(op.data)
            self.counts["points"] += 1
            if len(self.failures) >= self.failures_max:
                break
            for state in disk.crashes(self.rng, self.draws):
                key = hash((len(ledger.acked), frozenset(state.items())))
                if key not in self.seen:
                    self.seen.add(key)
                    self._judge(index, state, ledger, place)
        shutil.rmtree(place.directory)

    def _judge(self, index: int, state: dict[str, bytes], ledger: Ledger, place: Place) -> None:
        self.counts["states"] += 1
        place.hold(state)
        deep = self.rng.random() < self.deep_share
        try:
            recovered = recover(place.directory)
            if deep:
                self._judge_deep(state, ledger, recovered)
            verdict = ledger.verdict(recovered)
        except LogDamaged as refusal:
            verdict = f"refused: {refusal}"
        self.counts[verdict.split(":")[0]] += 1
        if verdict != "right":
            self.failures.append(f"step {index}: {verdict}, acknowledged {len(ledger.acked)}")

    def _judge_deep(self, state: dict[str, bytes], ledger: Ledger, recovered: list[bytes]) -> None:
        copy = self.scratch / "copy"
        copy.mkdir()
        for name, content in state.items():
            (copy / name).write_bytes(content)
        assert go_on(copy) == recovered, "opening for good found something else than reading did"
        shutil.rmtree(copy)
        self.counts["opened and written to"] += 1
        if self.on_deep is not None:
            self.on_deep(state, ledger)


def trace_lives(shim: Path, scratch: Path, seed: int, lives: int, *how: str) -> list[Op]:
    """Run lives on `scratch/data` in processes of their own; what they did to the disk."""
    data, trace = scratch / "data", scratch / "trace"
    data.mkdir(exist_ok=True)
    trace.unlink(missing_ok=True)
    preload = f"{os.environ.get('LD_PRELOAD', '')} {shim}".strip()  # after a sanitizer's library, if there is one
    environment = os.environ | {"LD_PRELOAD": preload, "IOTRACE_DIR": str(data), "IOTRACE_FILE": str(trace)}
    command = [sys.executable, "-m", "tests.log.life", str(data), str(seed), str(lives), *how]
    subprocess.run(command, env=environment, check=True, timeout=120)
    return read_trace(trace)
