"""The crash enumerator: the power goes at every step of traced runs, and in the middle of the recoveries after it.

FASTQ_CRASH_STATES sets how many states are judged at least (default a few thousand); FASTQ_CRASH_SEED where to begin.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.log.crashes import Enumerator, Ledger, trace_lives
from tests.log.disk import DATASYNC, DIRSYNC, SYNC, Disk

STATES = int(os.environ.get("FASTQ_CRASH_STATES", "5000"))
SEED = int(os.environ.get("FASTQ_CRASH_SEED", "1"))
LIVES = 12
SECOND_CRASHES = 0.2  # the share of the recoveries for good that are traced and crash again


def report(capsys: pytest.CaptureFixture[str], title: str, counts: Counter[str]) -> None:
    with capsys.disabled():
        print(f"\n{title}: " + ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items())))


def again_and_again(shim: Path, scratch: Path, rng: random.Random, total: Counter[str]) -> Enumerator:
    """An enumerator that, at some of the states, crashes in the recovery from them as well."""

    def crash_again(state: dict[str, bytes], ledger: Ledger) -> None:
        if rng.random() >= SECOND_CRASHES:
            return
        second = scratch / "second"
        (second / "data").mkdir(parents=True)
        for name, content in state.items():
            (second / "data" / name).write_bytes(content)
        disk = Disk.holding(second / "data")
        ops = trace_lives(shim, second, rng.randrange(1 << 30), 1)
        inner = Enumerator(second, rng, deep_share=0)
        inner.run(ops, disk, copy.deepcopy(ledger))
        total.update({f"second-crash {what}": count for what, count in inner.counts.items()})
        assert not inner.failures, inner.failures[:5]
        shutil.rmtree(second)

    return Enumerator(scratch, rng, on_deep=crash_again)


def test_no_crash_loses_or_refuses_anything(shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total: Counter[str] = Counter()
    seed = SEED
    while total["states"] < STATES:
        scratch = memory_path / str(seed)
        scratch.mkdir()
        enumerator = again_and_again(shim, scratch, random.Random(seed), total)
        enumerator.run(trace_lives(shim, scratch, seed, LIVES))
        assert not enumerator.failures, f"seed {seed}: {enumerator.failures[:5]}"
        total.update(enumerator.counts)
        shutil.rmtree(scratch)
        seed += 1
    total.update({"lost": 0, "false refusals": total["refused"], "seeds": seed - SEED})
    report(capsys, "crash states", total)
    assert total["right"] == total["states"]
    assert total["opened and written to"] > 0


def mutant(shim: Path, scratch: Path, change: str) -> Counter[str]:
    """Judge a run of a broken log."""
    ops = trace_lives(shim, scratch, SEED, LIVES, *(["hasty"] if change == "answers early" else []))
    without: dict[str, set[int]] = {"no fdatasync": {DATASYNC}, "no fsync": {SYNC}, "no directory sync": {DIRSYNC}}
    enumerator = Enumerator(scratch, random.Random(SEED), deep_share=0, failures_max=1000)
    enumerator.run(op for op in ops if op.kind not in without.get(change, ()))
    return enumerator.counts


@pytest.mark.parametrize("change", ["no fdatasync", "answers early", "no fsync", "no directory sync"])
def test_a_broken_log_is_caught(change: str, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = mutant(shim, memory_path, change)
    report(capsys, f"mutant: {change}", counts)
    assert counts["right"] < counts["states"]
    if change in ("no fdatasync", "answers early"):
        assert counts["lost"] > 0
