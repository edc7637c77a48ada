"""When each worker was last seen."""

from __future__ import annotations

import pytest

import fastq.engine.workers
from fastq.engine.workers import LastSeen


def test_workers_are_listed_latest_first_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastq.engine.workers, "WORKERS_KEPT", 3)
    seen = LastSeen()
    for us, worker_id in enumerate(["a", "b", "", "a", "c", "d"]):
        seen.note(worker_id, us)
    assert list(seen.since(0).items()) == [("d", 5), ("c", 4), ("a", 3)]
    assert list(seen.since(4)) == ["d", "c"]
