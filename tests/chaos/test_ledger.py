"""The ledger by itself: each kind of fault once."""

from __future__ import annotations

import pytest

from fastq.chaos.ledger import Lease, Ledger


@pytest.fixture
def ledger() -> Ledger:
    """One job, `a`, submitted; leased at attempt 1 from 100 to 200."""
    made = Ledger()
    made.sending("p")
    made.submitted("a", "p")
    made.leased("a", "p", 1, Lease(100, 200))
    assert not made.faults
    return made


def job(state: str, attempts: int = 1, **fields: str) -> dict[str, object]:
    return {"state": state, "attempts": attempts, **fields}


def test_a_correct_run_has_no_fault(ledger: Ledger) -> None:
    ledger.books["a"].leases[1].closing = True
    ledger.failed("a", 1)
    ledger.judge("a", 200, job("RETRY"))
    ledger.leased("a", "p", 2, Lease(150, 250))
    ledger.acked("a", 2, "r")
    ledger.judge("a", 200, job("ACKED", 2, result="r"))
    ledger.judge_leases()
    assert not ledger.faults


def test_a_new_lease_after_an_expiry_is_no_fault(ledger: Ledger) -> None:
    ledger.leased("a", "p", 2, Lease(200, 300))
    ledger.judge_leases()
    assert not ledger.faults


def test_lost(ledger: Ledger) -> None:
    ledger.judge("a", 404, {})
    assert ledger.faults == {"lost": 1}


def test_retention_may_remove_acked_jobs() -> None:
    made = Ledger(retention_us=1000)
    for job_id in "abc":
        made.sending(job_id)
        made.submitted(job_id, job_id)
        made.leased(job_id, job_id, 1, Lease(100, 200))
    made.acking("a", 1, 150)
    made.acking("b", 1, 150)
    made.refused("b", 1)
    made.judge("a", 404, {}, 1149)
    assert made.faults == {"lost": 1}, "too early"
    made.judge("a", 404, {}, 1150)
    assert made.faults == {"lost": 1}, "it may have been ACKED since 150"
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


def test_a_lease_after_the_ack_is_a_fault(ledger: Ledger) -> None:
    ledger.books["a"].leases[1].closing = True
    ledger.acked("a", 1, "r")
    ledger.leased("a", "p", 2, Lease(300, 400))
    ledger.judge_leases()
    assert ledger.faults == {"undone": 1}


def test_one_attempt_leased_twice_is_a_fault(ledger: Ledger) -> None:
    ledger.leased("a", "p", 1, Lease(300, 400))
    assert ledger.faults == {"doubled": 1}


def test_two_live_leases_are_a_fault(ledger: Ledger) -> None:
    ledger.leased("a", "p", 2, Lease(199, 299))
    ledger.judge_leases()
    assert ledger.faults == {"doubled": 1}


def test_one_submit_with_two_jobs_is_a_fault(ledger: Ledger) -> None:
    ledger.leased("b", "p", 1, Lease(100, 200))
    assert ledger.faults == {"duplicated": 1}


def test_a_changed_payload_is_a_fault(ledger: Ledger) -> None:
    ledger.sending("q")
    ledger.leased("a", "q", 2, Lease(300, 400))
    assert ledger.faults == {"wrong": 1}


def test_an_unknown_payload_is_a_fault(ledger: Ledger) -> None:
    ledger.leased("b", "r", 1, Lease(300, 400))
    ledger.judge("b", 200, job("RUNNING"))
    assert ledger.faults == {"wrong": 1}


def test_two_acks_of_one_job_are_a_fault(ledger: Ledger) -> None:
    ledger.acked("a", 1, "r")
    ledger.acked("a", 2, "r")
    assert ledger.faults == {"undone": 1}
