"""The crash enumerator: the power goes at every step of traced runs, and in the middle of the recoveries after it.

FASTQ_CRASH_STATES sets how many states are judged at least (default 2,000; `./dev crashes` takes 100,000);
FASTQ_CRASH_SEED where to begin.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.log.files.accounts import Accounts
from tests.log.files.crashes import Enumerator, Ledger, Told, trace_lives
from tests.log.files.disk import DATASYNC, DIRSYNC, SYNC, Disk
from tests.log.files.work import MUTANTS

pytestmark = pytest.mark.slow

STATES = int(os.environ.get("FASTQ_CRASH_STATES", "2000"))
SEED = int(os.environ.get("FASTQ_CRASH_SEED", "1"))
LIVES = 12
SECOND_CRASHES = 0.2  # the share of the recoveries for good that are traced and crash again


def report(capsys: pytest.CaptureFixture[str], title: str, counts: Counter[str]) -> None:
    with capsys.disabled():
        print(f"\n{title}: " + ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items())))


def again_and_again(shim: Path, scratch: Path, rng: random.Random, total: Counter[str], how: str) -> Enumerator:
    """An enumerator that, at some of the states, crashes in the recovery from them as well."""

    def crash_again(state: dict[str, bytes], told: Told) -> None:
        if rng.random() >= SECOND_CRASHES:
            return
        second = scratch / "second"
        (second / "data").mkdir(parents=True)
        for name, content in state.items():
            (second / "data" / name).write_bytes(content)
        disk = Disk.holding(second / "data")
        ops = trace_lives(shim, second, rng.randrange(1 << 30), 1, how)
        inner = Enumerator(second, rng, deep_share=0)
        inner.run(ops, disk, told.fork())
        total.update({f"second-crash {what}": count for what, count in inner.counts.items()})
        assert not inner.failures, inner.failures[:5]
        shutil.rmtree(second)

    return Enumerator(scratch, rng, on_deep=crash_again)


@pytest.mark.parametrize("how", ["documents", "jobs"])
def test_no_crash_loses_or_refuses_anything(
    how: str, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total: Counter[str] = Counter()
    seed = SEED
    while total["states"] < STATES:
        scratch = memory_path / str(seed)
        scratch.mkdir()
        enumerator = again_and_again(shim, scratch, random.Random(seed), total, how)
        told = Ledger() if how == "documents" else Accounts()
        enumerator.run(trace_lives(shim, scratch, seed, LIVES, how), told=told)
        assert not enumerator.failures, f"seed {seed}: {enumerator.failures[:5]}"
        total.update(enumerator.counts)
        if isinstance(told, Accounts):
            total.update({f"{name} records": count for name, count in told.records.items()})
        shutil.rmtree(scratch)
        seed += 1
    total.update({"lost": 0, "false refusals": total["refused"], "seeds": seed - SEED})
    report(capsys, f"crash states, {how}", total)
    assert total["right"] == total["states"]
    assert total["opened and written to"] > 0
    assert how == "documents" or min(total[f"{name} records"] for name in ("TRIM", "JOB", "FORGET")) > 0


def mutant(shim: Path, scratch: Path, how: str, change: str, told: Told, seed: int = SEED) -> Counter[str]:
    """Judge a run of a broken log."""
    without: dict[str, set[int]] = {"no fdatasync": {DATASYNC}, "no fsync": {SYNC}, "no directory sync": {DIRSYNC}}
    ops = trace_lives(shim, scratch, seed, LIVES, how, *([] if change in without else [change]), check=False)
    enumerator = Enumerator(scratch, random.Random(SEED), deep_share=0, failures_max=1000)
    enumerator.run((op for op in ops if op.kind not in without.get(change, ())), told=told)
    return enumerator.counts


@pytest.mark.parametrize("change", ["no fdatasync", "answers early", "no fsync", "no directory sync"])
def test_a_broken_log_is_caught(change: str, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = mutant(shim, memory_path, "documents", change, Ledger())
    report(capsys, f"mutant: {change}", counts)
    assert counts["right"] < counts["states"]
    if change in ("no fdatasync", "answers early"):
        assert counts["lost"] > 0


@pytest.mark.parametrize("change", [*MUTANTS, "no directory sync"])
def test_a_broken_cleaner_is_caught(
    change: str, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(SEED, SEED + 4):  # how often a life cleans depends on the disk's speed too
        (memory_path / str(seed)).mkdir()
        counts = mutant(shim, memory_path / str(seed), "jobs", change, Accounts(), seed)
        report(capsys, f"mutant: {change}", counts)
        if counts["right"] < counts["states"]:
            return
    raise AssertionError("nobody noticed")
