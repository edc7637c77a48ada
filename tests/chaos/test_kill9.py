"""A short run of the harness, and proof that it notices what it is for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.kill9 import Plan, report, run
from tests.chaos.ledger import Lease, Ledger

CLIENTS = 16


async def test_a_server_that_is_killed_keeps_its_word(tmp_path: Path) -> None:
    ledger = await run(Plan(kills=6, clients=CLIENTS, seconds=4), tmp_path)
    assert not ledger.faults, report(ledger)
    assert ledger.counts["kills"] == 6
    assert ledger.counts["acks"] > 100
    assert ledger.counts["in flight when killed"] > 0


async def test_a_server_that_is_killed_while_it_cleans_keeps_its_word(tmp_path: Path) -> None:
    ledger = await run(Plan(kills=6, clients=CLIENTS, seconds=6, seed=3, cleaning=True), tmp_path)
    assert not ledger.faults, report(ledger)
    assert ledger.counts["segments given back"] >= 3


@pytest.mark.parametrize("mutant", ["careless", "impatient"])
async def test_a_server_that_cleans_too_much_is_caught(mutant: str, tmp_path: Path) -> None:
    command = (sys.executable, "-m", f"tests.chaos.{mutant}", "serve")
    ledger = await run(Plan(kills=2, clients=CLIENTS, seconds=5, seed=2, command=command, cleaning=True), tmp_path)
    assert ledger.faults["lost"] + ledger.faults["unexpected"] > 0, report(ledger)


async def test_a_server_that_answers_too_early_is_caught(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.chaos.hasty", "serve")
    ledger = await run(Plan(kills=5, clients=CLIENTS, seconds=3, seed=2, command=command), tmp_path)
    assert ledger.faults["lost"] + ledger.faults["undone"] > 0, report(ledger)


async def test_a_server_that_forgets_is_caught(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.chaos.forgetful", "serve")
    ledger = await run(Plan(kills=1, clients=CLIENTS, seconds=1, seed=2, command=command), tmp_path)
    assert ledger.faults["lost"] > 0, report(ledger)


async def test_bytes_that_go_missing_are_caught(tmp_path: Path) -> None:
    """After a kill the newest part of the log is made to vanish, as by a disk that lied."""

    def shorten(directory: Path) -> None:
        for path in directory.iterdir():
            if path.suffix == ".key" or not path.is_file():
                continue
            content = path.read_bytes()
            written = len(content.rstrip(b"\0"))
            if written > 200_000:
                path.write_bytes(content[: written - 100_000] + bytes(len(content) - written + 100_000))

    ledger = await run(Plan(kills=2, clients=CLIENTS, seconds=2, seed=2, after_kill=shorten), tmp_path)
    caught = ledger.faults["lost"] + ledger.faults["undone"] + ledger.faults["not started"]
    assert caught > 0, report(ledger)


# --- the ledger by itself: each fault once, made by hand --------------------------------------------------------------


@pytest.fixture
def ledger() -> Ledger:
    """One job, `a`, submitted; leased at attempt 1 from 100 to 200."""
    made = Ledger()
    made.sending("p")
    made.submitted("a", "p")
    made.leased("a", "p", 1, Lease(100, 200, "t1"))
    assert not made.faults
    return made


def job(state: str, attempts: int = 1, **fields: str) -> dict[str, object]:
    return {"state": state, "attempts": attempts, **fields}


def test_an_honest_life(ledger: Ledger) -> None:
    ledger.books["a"].leases[1].closing = True
    ledger.failed("a", 1)
    ledger.judge("a", 200, job("RETRY"))
    ledger.leased("a", "p", 2, Lease(150, 250, "t2"))
    ledger.acked("a", 2, "r")
    ledger.judge("a", 200, job("ACKED", 2, result="r"))
    ledger.judge_leases()
    assert not ledger.faults


def test_a_lease_that_ran_out_may_be_followed_by_another(ledger: Ledger) -> None:
    ledger.leased("a", "p", 2, Lease(200, 300, "t2"))
    ledger.judge_leases()
    assert not ledger.faults


def test_lost(ledger: Ledger) -> None:
    ledger.judge("a", 404, {})
    assert ledger.faults == {"lost": 1}


def test_what_was_acked_may_go_when_it_is_old_enough() -> None:
    made = Ledger(retention_us=1000)
    for job_id in "abc":
        made.sending(job_id)
        made.submitted(job_id, job_id)
        made.leased(job_id, job_id, 1, Lease(100, 200, "t1"))
    made.acking("a", 1, 150)
    made.acking("b", 1, 150)
    made.refused("b", 1)
    made.judge("a", 404, {}, 1149)
    assert made.faults == {"lost": 1}, "too early"
    made.judge("a", 404, {}, 1150)
    assert made.faults == {"lost": 1}, "its ack may have been in force since 150"
    made.judge("b", 404, {}, 5000)
    made.judge("c", 404, {}, 5000)
    assert made.faults == {"lost": 3}, "none of these was acked"
    made.gone("a")
    made.judge("a", 200, job("ACKED"))
    assert made.faults["undone"] == 1, "it came back"


@pytest.mark.parametrize(
    "seen", [job("RUNNING"), job("READY", 0), job("RETRY"), job("ACKED", result="other"), job("ACKED"), job("DEAD")]
)
def test_an_ack_undone(ledger: Ledger, seen: dict[str, object]) -> None:
    ledger.acked("a", 1, "r")
    ledger.judge("a", 200, seen)
    assert ledger.faults["undone"] > 0


@pytest.mark.parametrize("seen", [job("RUNNING"), job("READY", 0), job("ACKED", result="r")])
def test_an_error_ack_undone(ledger: Ledger, seen: dict[str, object]) -> None:
    ledger.failed("a", 1)
    ledger.judge("a", 200, seen)
    assert ledger.faults["undone"] > 0


def test_a_lease_undone(ledger: Ledger) -> None:
    ledger.judge("a", 200, job("READY", 0))
    assert ledger.faults == {"undone": 1}


def test_leased_again_after_its_ack(ledger: Ledger) -> None:
    ledger.books["a"].leases[1].closing = True
    ledger.acked("a", 1, "r")
    ledger.leased("a", "p", 2, Lease(300, 400, "t2"))
    ledger.judge_leases()
    assert ledger.faults == {"undone": 1}


def test_one_attempt_given_out_twice(ledger: Ledger) -> None:
    ledger.leased("a", "p", 1, Lease(300, 400, "t2"))
    assert ledger.faults == {"doubled": 1}


def test_two_live_leases(ledger: Ledger) -> None:
    ledger.leased("a", "p", 2, Lease(199, 299, "t2"))
    ledger.judge_leases()
    assert ledger.faults == {"doubled": 1}


def test_one_submit_that_became_two(ledger: Ledger) -> None:
    ledger.leased("b", "p", 1, Lease(100, 200, "t1"))
    assert ledger.faults == {"duplicated": 1}


def test_a_payload_that_changed(ledger: Ledger) -> None:
    ledger.sending("q")
    ledger.leased("a", "q", 2, Lease(300, 400, "t2"))
    ledger.leased("a", "r", 3, Lease(400, 500, "t3"))
    assert ledger.faults == {"wrong": 2}


def test_the_report_says_failed_or_not(ledger: Ledger) -> None:
    assert report(ledger).endswith("nothing that was acknowledged is missing")
    ledger.judge("a", 404, {})
    assert report(ledger).endswith("FAILED")
    assert "lost 1" in report(ledger)
