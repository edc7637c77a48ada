"""Short runs of the harness against the real server, and against faulty servers that it must detect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.runs import ran

pytestmark = pytest.mark.alone  # kills must hit requests in flight, which takes a full load


async def test_a_run_with_kills_finds_no_fault(tmp_path: Path) -> None:
    outcome = await ran(tmp_path, jobs=1500, kills=6)
    assert outcome.is_zero_loss, outcome.text()
    accounts = outcome.accounts
    assert len(accounts.submitted) == 1500
    assert len(accounts.acked) > 1400
    assert set(outcome.states) <= {"ACKED", "DEAD"}
    assert len(accounts.kills) == 6
    assert len({kill.instance_before for kill in accounts.kills}) == 6
    assert all(kill.in_flight for kill in accounts.kills)


async def test_a_run_that_kills_clients_finds_no_fault(tmp_path: Path) -> None:
    outcome = await ran(tmp_path, jobs=1500, kills=5, kill_clients=True, seed=4)
    assert outcome.is_zero_loss, outcome.text()
    assert outcome.client_kills == 5
    assert sum(outcome.states.values()) == len(outcome.accounts.submitted) == 1500


async def test_a_run_with_kills_while_cleaning_finds_no_fault(tmp_path: Path) -> None:
    outcome = await ran(tmp_path, jobs=2000, kills=4, kill_interval_s=1.2, cleaning=True, seed=3)
    assert outcome.is_zero_loss, outcome.text()
    assert outcome.states["none"] > 100


@pytest.mark.parametrize("mutant", ["careless", "impatient"])
async def test_a_cleaner_that_drops_live_records_is_detected(mutant: str, tmp_path: Path) -> None:
    changes = {"jobs": 2000, "kills": 2, "kill_interval_s": 2.5, "cleaning": True, "seed": 2}
    outcome = await ran(tmp_path, f"tests.chaos.{mutant}", **changes)
    assert outcome.faults["lost"] + outcome.faults["unexpected"] + outcome.faults["not there"] > 0, outcome.text()


@pytest.mark.parametrize(
    ("mutant", "faults"),
    [
        ("hasty", {"lost", "undone"}),
        ("forgetful", {"lost", "unexpected"}),
        ("losing", {"lost"}),
        ("undoing", {"undone"}),
        ("shortened", {"lost", "undone", "not there"}),
    ],
)
async def test_a_faulty_server_is_detected(mutant: str, faults: set[str], tmp_path: Path) -> None:
    outcome = await ran(tmp_path, f"tests.chaos.{mutant}", jobs=1500, seed=2)
    assert faults & outcome.faults.keys(), outcome.text()
    assert not outcome.is_zero_loss


async def test_a_server_that_never_leases_is_detected(tmp_path: Path) -> None:
    outcome = await ran(tmp_path, "tests.chaos.lazy", jobs=50, kills=1)
    assert "no work was done: no job was acked" in outcome.problems
    assert outcome.faults["stuck"], outcome.text()


async def test_a_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    outcome = await ran(tmp_path, "tests.chaos.nothing-there")
    assert "No module named" in outcome.text()
    assert not outcome.is_zero_loss
