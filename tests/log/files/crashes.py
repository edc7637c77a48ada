"""Every crash point of a traced run: recover each possible disk state there, and check it against the answers.

python -m tests.log.files.crashes --states 1000000 [--how walk] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fastq.errors import LogDamaged
from fastq.log.files.recovery import read_log
from fastq.log.files.segments import SEGMENT_MAGIC, unpack_head
from tests.log.files.accounts import Accounts
from tests.log.files.disk import NOTE, Disk, Op, build_shim, read_trace
from tests.log.files.life import log_of
from tests.log.files.oracle import Oracle
from tests.log.files.writer import Writer

LIVES = 12  # of one trace
SECOND_CRASHES = 0.2  # the share of full recoveries that are traced and crash again


class Told(Protocol):
    """The answers that clients got up to some step of a trace, and the check of a disk against them."""

    acked_seq: int  # every frame up to this one may have been acknowledged

    def note(self, data: bytes) -> None:
        """Take a remark of the trace."""

    def verdict(self, directory: Path) -> str:
        """Recover `directory` without changing it. Returns right, lost or wrong. Raises LogDamaged."""

    def go_on(self, directory: Path) -> None:
        """Open the log, do some work, close and recover again. Asserts that this changed nothing before it."""

    def hand_over(self, directory: Path) -> bool:
        """Let lives continue from `directory`. Returns False if they cannot."""

    def fork(self) -> Told:
        """A copy."""


@dataclass
class Ledger:
    """Documents: the frames that were written, and those that may have been acknowledged."""

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

    def hand_over(self, directory: Path) -> bool:
        return True

    def fork(self) -> Ledger:
        return copy.deepcopy(self)


class Place:
    """A directory that takes one disk state after another; writes only files that differ."""

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
    """Recover a log. Returns the records of each frame in order. Changes nothing."""
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
    """Open the log, write one more frame, close. Returns the records of each frame that the next opening finds."""

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
    """Walks a trace and checks the disk states at each step."""

    scratch: Path
    rng: random.Random
    draws: int = 2  # subsets of unsynced sectors at each set of names
    deep_share: float = 0.01  # of the states are opened for good, written to, and read again
    failures_max: int = 20  # it stops after these
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
        except (AssertionError, OSError) as failure:
            verdict = f"wrong: {failure!r:.300}"
        self.counts[verdict.split(":")[0]] += 1
        if verdict != "right":
            self.failures.append(f"step {index}: {verdict}, acknowledged {told.acked_seq}")

    def _judge_deep(self, state: dict[str, bytes], told: Told) -> None:
        copied = self.scratch / "copy"
        copied.mkdir()
        for name, content in state.items():
            (copied / name).write_bytes(content)
        try:
            told.go_on(copied)
        finally:
            shutil.rmtree(copied)
        self.counts["opened and written to"] += 1
        if self.on_deep is not None:
            self.on_deep(state, told)


def trace_lives(shim: Path, scratch: Path, seed: int, lives: int, *how: str, check: bool = True) -> list[Op]:
    """Run lives on `scratch/data` in their own processes. Returns their disk calls. `check`: they must end well."""
    data, trace = scratch / "data", scratch / "trace"
    data.mkdir(exist_ok=True)
    trace.unlink(missing_ok=True)
    preload = f"{os.environ.get('LD_PRELOAD', '')} {shim}".strip()  # after a sanitizer's library, if there is one
    environment = os.environ | {"LD_PRELOAD": preload, "IOTRACE_DIR": str(data), "IOTRACE_FILE": str(trace)}
    command = [sys.executable, "-m", "tests.log.files.life", str(data), str(seed), str(lives), *how]
    done = subprocess.run(command, env=environment, check=False, timeout=120, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"a life failed: {done.stderr[-2000:]}"
    return read_trace(trace)


# --- a search ---------------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """Traces of lives, one seed after the other, until enough states were checked."""

    shim: Path
    scratch: Path
    how: str  # documents, walk or jobs
    on_trace: Callable[[Counter[str]], None] = lambda _counts: None
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, states: int, seed: int) -> Counter[str]:
        """Check at least `states`. Raises AssertionError at the first trace with a wrong state."""
        while self.counts["states"] < states:
            self._trace(seed)
            self.counts["seeds"] += 1
            self.on_trace(self.counts)
            seed += 1
        return self.counts

    def _trace(self, seed: int) -> None:
        scratch, rng = self.scratch / str(seed), random.Random(seed)
        scratch.mkdir()
        told = new_told(self.how)
        enumerator = Enumerator(scratch, rng, on_deep=lambda state, told: self._crash_again(scratch, rng, state, told))
        ops = trace_lives(self.shim, scratch, seed, LIVES, self.how)
        enumerator.run(ops, told=told)
        assert not enumerator.failures, f"seed {seed}: {enumerator.failures[:5]}"
        self.counts.update(enumerator.counts)
        self.counts["lives whose segments grew"] += lives_that_grew(ops)
        if not isinstance(told, Ledger):
            self.counts.update({f"{name} records": count for name, count in told.records.items()})
        shutil.rmtree(scratch)

    def _crash_again(self, scratch: Path, rng: random.Random, state: dict[str, bytes], told: Told) -> None:
        """Sometimes crash also in a life that continues from a crash."""
        if rng.random() >= SECOND_CRASHES:
            return
        second = scratch / "second"
        (second / "data").mkdir(parents=True)
        for name, content in state.items():
            (second / "data" / name).write_bytes(content)
        if told.hand_over(second / "data"):
            disk = Disk.holding(second / "data")
            ops = trace_lives(self.shim, second, rng.randrange(1 << 30), 1, self.how)
            inner = Enumerator(second, rng, deep_share=0)
            inner.run(ops, disk, told.fork())
            self.counts.update({f"second-crash {what}": count for what, count in inner.counts.items()})
            assert not inner.failures, inner.failures[:5]
        shutil.rmtree(second)


def lives_that_grew(ops: list[Op]) -> int:
    """How many lives made segments of several sizes."""
    heads = [unpack_head(op.data, Path()) for op in ops if op.data[: len(SEGMENT_MAGIC)] == SEGMENT_MAGIC]
    return len({(head.epoch, head.file_bytes) for head in heads}) - len({head.epoch for head in heads})


def new_told(how: str) -> Ledger | Oracle | Accounts:
    return {"documents": Ledger, "walk": Oracle, "jobs": Accounts}[how]()


def figures(counts: Counter[str]) -> str:
    shown = {"lost": 0, **counts, "false refusals": counts["refused"]}
    return ", ".join(f"{what} {count:,}" for what, count in sorted(shown.items()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.log.files.crashes", description=__doc__.partition("\n")[0])
    parser.add_argument("--states", type=int, default=100_000, help="to judge, at least, of each kind of life")
    parser.add_argument("--how", choices=["documents", "walk", "jobs"], action="append", help="default: each of them")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        shim = build_shim(Path(directory))
        for how in asked.how or ["documents", "walk", "jobs"]:
            begun_s = time.monotonic()

            def show(counts: Counter[str], how: str = how, begun_s: float = begun_s) -> None:
                rate = counts["states"] / (time.monotonic() - begun_s)
                print(f"\r{how}: {counts['states']:,} states, {rate:,.0f}/s ", end="", file=sys.stderr, flush=True)

            scratch = Path(directory) / how
            scratch.mkdir()
            counts = Search(shim, scratch, how, show).run(asked.states, asked.seed)
            print(f"\r{how}: {figures(counts)}, in {time.monotonic() - begun_s:,.0f} s")


if __name__ == "__main__":
    main()
