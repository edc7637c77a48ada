"""Revocations in the log: bounded by number and age, the oldest go first."""

from __future__ import annotations

import pytest

from fastq.engine.documents import DocumentKind
from fastq.errors import DiskFull
from fastq.services.keys import revocations
from fastq.services.keys.revocations import Revocations
from tests.services.keys.kept import Kept


def test_the_oldest_go_above_the_maximum(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "REVOKED_MAX", 3)
    known = Revocations(kept)
    times = [known.add(f"k{n}", "admin") for n in range(10)]
    for found in (known, Revocations(kept)):
        assert len(found) == 3
        assert [found.at_us(f"k{n}") for n in range(6, 10)] == [None, *times[7:]]


def test_old_ones_go_two_with_each_new_one(kept: Kept) -> None:
    known = Revocations(kept)
    for n in range(5):
        known.add(f"old{n}", "admin")
    kept.time_us += revocations.KEPT_US
    known.add("new1", "admin")
    assert len(known) == 4
    known.add("new2", "admin")
    known.add("new3", "admin")
    assert len(known) == len(kept.documents(DocumentKind.REVOKED_KEY)) == 3


def test_a_revocation_that_cannot_be_written_is_none(kept: Kept) -> None:
    known = Revocations(kept)
    kept.refuses = DiskFull()
    with pytest.raises(DiskFull):
        known.add("k", "admin")
    assert known.at_us("k") is None
