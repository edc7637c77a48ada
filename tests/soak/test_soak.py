"""Short soaks of a few kinds. `./dev soak` is the long form; tests/engine/test_space.py has all kinds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.soak import kinds
from tests.soak.kinds import Kind
from tests.soak.run import MIB, Soak

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "kind",
    [kinds.release, kinds.schedules, kinds.keyed_batches],
    ids=lambda kind: kind.__name__,
)
def test_disk_and_memory_stay_bounded(tmp_path: Path, kind: Kind) -> None:
    assert Soak(kind, "tiny", 60 * MIB, 2, tmp_path).whole().faults == []


def test_a_soak_notices_writes_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soak.run.REST_S", 3.0)
    writes = itertools.count(0, MIB // 10)
    monkeypatch.setattr(Soak, "_writes", lambda _soak: (next(writes), 0))
    faults = Soak(kinds.release, "tiny", MIB, 1, tmp_path).whole().faults
    assert len(faults) == 1 and "does not come to rest" in faults[0]


def test_a_soak_notices_a_log_that_is_not_cleaned(tmp_path: Path) -> None:
    soak = Soak(kinds.release, "tiny", 120 * MIB, 1, tmp_path)
    soak.server._environ["WAL_SLACK_BYTES"] = "1GiB"
    faults = soak.whole().faults
    assert len(faults) == 1 and "MiB live" in faults[0]
