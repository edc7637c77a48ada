"""The crash enumerator: a power failure at every step of traced runs, and during the recoveries after it.

FASTQ_CRASH_STATES sets how many states are checked at least (default 2,000; `./dev crashes` is the long form),
FASTQ_CRASH_SEED the first seed.
"""

from __future__ import annotations

import os
import pickle
import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from fastq._core import RECORD_NAMES
from tests.log.files.accounts import Accounts
from tests.log.files.crashes import LIVES, Enumerator, Ledger, Search, Told, figures, trace_lives
from tests.log.files.disk import DATASYNC, DIRSYNC, SYNC
from tests.log.files.oracle import Oracle
from tests.log.files.walk import Saved
from tests.log.files.work import MUTANTS

pytestmark = pytest.mark.slow

STATES = int(os.environ.get("FASTQ_CRASH_STATES", "2000"))
SEED = int(os.environ.get("FASTQ_CRASH_SEED", "1"))


def report(capsys: pytest.CaptureFixture[str], title: str, counts: Counter[str]) -> None:
    with capsys.disabled():
        print(f"\n{title}: {figures(counts)}")


@pytest.mark.parametrize("how", ["documents", "walk", "jobs"])
def test_no_crash_state_is_lost_or_refused(
    how: str, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Search(shim, memory_path, how).run(STATES, SEED)
    report(capsys, f"crash states, {how}", counts)
    assert counts["right"] == counts["states"]
    assert counts["opened and written to"] > 0
    if how == "jobs":
        assert min(counts[f"{name} records"] for name in ("TRIM", "JOB", "FORGET")) > 0
    elif how == "walk":
        assert not (missing := [name for name in RECORD_NAMES.values() if not counts[f"{name} records"]]), missing


def test_the_oracle_does_not_mix_up_lives() -> None:
    """A frame that a crash took is written again with other records, by a step that wrote several frames."""
    oracle, seq = Oracle(), struct.pack("<Q", 1)
    oracle.note(b"M" + seq + pickle.dumps(Saved.new()))
    oracle.note(b"B" + seq)
    assert oracle.saved(1) is not None
    oracle.note(b"B" + seq)
    assert oracle.saved(1) is None, "what held after the frame that is gone"


def test_a_crash_before_there_is_a_database_is_judged(tmp_path: Path) -> None:
    Accounts().go_on(tmp_path)


def mutant(shim: Path, scratch: Path, how: str, change: str, told: Told, seed: int = SEED) -> Counter[str]:
    """Check a run of a faulty log."""
    without: dict[str, set[int]] = {"no fdatasync": {DATASYNC}, "no fsync": {SYNC}, "no directory sync": {DIRSYNC}}
    ops = trace_lives(shim, scratch, seed, LIVES, how, *([] if change in without else [change]), check=False)
    enumerator = Enumerator(scratch, random.Random(SEED), deep_share=0, failures_max=1000)
    enumerator.run((op for op in ops if op.kind not in without.get(change, ())), told=told)
    return enumerator.counts


@pytest.mark.parametrize("change", ["no fdatasync", "answers early", "no fsync", "no directory sync"])
def test_a_faulty_log_is_detected(
    change: str, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = mutant(shim, memory_path, "documents", change, Ledger())
    report(capsys, f"mutant: {change}", counts)
    assert counts["right"] < counts["states"]
    if change in ("no fdatasync", "answers early"):
        assert counts["lost"] > 0


@pytest.mark.parametrize("change", [*MUTANTS, "no directory sync"])
def test_a_faulty_cleaner_is_detected(
    change: str, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(SEED, SEED + 4):  # how often a life cleans depends on the disk's speed too
        (memory_path / str(seed)).mkdir()
        counts = mutant(shim, memory_path / str(seed), "jobs", change, Accounts(), seed)
        report(capsys, f"mutant: {change}", counts)
        if counts["right"] < counts["states"]:
            return
    raise AssertionError("nobody noticed")
