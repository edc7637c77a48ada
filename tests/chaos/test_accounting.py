"""The accounts of client processes' journals."""

from __future__ import annotations

import asyncio

import pytest

from fastq.chaos.accounting import Accounts, Kill, percentile
from fastq.chaos.journal import Acked, Acking, Leased, Resting, Sending, Submitted, TooLate, Unanswered
from fastq.chaos.ledger import Ledger
from fastq.chaos.plan import is_deferred

SEED = next(seed for seed in range(100) if is_deferred(1, seed) and not is_deferred(0, seed))
PATIENCE_S = 30.0


@pytest.fixture
def accounts() -> Accounts:
    """Jobs 0 and 1 are sent at time 0. Job 0 is submitted as `a`, leased and acked; job 1 is not answered."""
    made = Accounts(Ledger())
    for event in (
        Sending(0, 0), Sending(1, 0), Submitted(0, "a", 500), Leased("a", "0", 1, 100, 200), Acking("a", 1, False, 900),
        Acked("a", 1, False, 4000),
    ):  # fmt: skip
        made.take(0, event)
    return made


def test_a_correct_run_has_no_fault(accounts: Accounts) -> None:
    accounts.ledger.judge("a", 200, {"state": "ACKED", "attempts": 1, "result": "done 1"})
    accounts.ledger.judge_leases()
    assert not accounts.ledger.faults
    assert accounts.latencies_ms(SEED) == [4.0]
    assert accounts.rate() == pytest.approx(250)


def test_a_successor_sends_unanswered_jobs_again(accounts: Accounts) -> None:
    assert accounts.outstanding(1, 2) == [1]
    assert accounts.outstanding(0, 2) == []


def test_a_deferred_job_does_not_count_for_latency(accounts: Accounts) -> None:
    for event in (Submitted(1, "b", 500), Leased("b", "1", 1, 100, 200), Acked("b", 1, False, 9_000_000)):
        accounts.take(0, event)
    assert accounts.latencies_ms(SEED) == [4.0]


def test_the_journal_of_the_submitter_may_be_read_last() -> None:
    accounts = Accounts(Ledger())
    accounts.take(1, Leased("a", "0", 1, 100, 200))
    accounts.take(0, Sending(0, 0))
    accounts.take(0, Submitted(0, "a", 500))
    accounts.ledger.judge("a", 200, {"state": "RUNNING", "attempts": 1})
    assert not accounts.ledger.faults


def test_a_late_ack_has_no_effect(accounts: Accounts) -> None:
    accounts.take(0, Leased("a", "0", 2, 300, 400))
    accounts.take(0, Acking("a", 2, False, 350))
    accounts.take(0, TooLate("a", 2))
    assert accounts.ledger.books["a"].ending == {1: 900}


def test_requests_that_a_kill_interrupted_count_as_in_flight(accounts: Accounts) -> None:
    accounts.kills.append(Kill(1000, 1100, "x", "y"))
    cut_off = [Unanswered(900, 1200, waited=False), Unanswered(1050, 1060, waited=False)]
    others = [
        Unanswered(900, 1200, waited=True), Unanswered(1101, 1200, waited=False), Unanswered(800, 999, waited=False),
    ]  # fmt: skip
    for request in (*cut_off, *others):
        accounts.take(0, request)
    accounts.count_in_flight()
    assert accounts.kills[0].in_flight == len(cut_off)


async def test_until_returns_when_reached_or_stalled(accounts: Accounts) -> None:
    waiting = asyncio.create_task(accounts.until(lambda: 1 in accounts.submitted, PATIENCE_S))
    await asyncio.sleep(0)
    accounts.take(0, Submitted(1, "b", 1))
    assert await waiting
    for nothing in (Unanswered(0, 1, waited=False), None):
        still = asyncio.create_task(accounts.until(lambda: bool(accounts.resting), 0.05))
        await asyncio.sleep(0)
        if nothing is not None:
            accounts.take(0, nothing)
        assert not await still
    accounts.take(1, Resting())
    assert accounts.resting == {1}


def test_percentiles() -> None:
    ascending = [float(n) for n in range(1, 101)]
    assert [percentile(ascending, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.5) == 7
    assert percentile([], 0.5) == 0
