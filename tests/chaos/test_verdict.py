"""The verdict is ZERO LOSS only for a run that would have found a fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fastq.chaos.accounting import Accounts, Kill
from fastq.chaos.journal import Acked, Leased, Sending, Submitted
from fastq.chaos.ledger import Ledger
from fastq.chaos.plan import Plan
from fastq.chaos.report import html
from fastq.chaos.verdict import FAILED, MEANINGS, ZERO_LOSS, Outcome


@pytest.fixture
def outcome() -> Outcome:
    """One job, one kill, no fault."""
    accounts = Accounts(Ledger())
    for event in (
        Sending(0, 1000), Submitted(0, "a", 1500), Leased("a", "0", 1, 100, 200), Acked("a", 1, False, 2000),
    ):  # fmt: skip
        accounts.take(0, event)
    accounts.kills.append(Kill(1600, 1700, "one", "two", in_flight=1))
    plan = Plan(jobs=1, kills=1, kill_clients=True, cleaning=True)
    accounts.ledger.counts["segments freed"] = 1
    return Outcome(plan, accounts, Counter(ACKED=1), 1, 0, 1_000_000)


def failed(outcome: Outcome, why: str) -> bool:
    return any(why in problem for problem in outcome.problems) and outcome.text().endswith(FAILED)


def test_a_run_without_faults_is_zero_loss(outcome: Outcome) -> None:
    assert outcome.problems == []
    assert outcome.text().endswith(ZERO_LOSS)
    assert "submitted:  1\nacked:      1\nlost:       0\nduplicated: 0\n" in outcome.text()


@pytest.mark.parametrize("kind", MEANINGS)
def test_every_fault_fails(outcome: Outcome, kind: str) -> None:
    outcome.accounts.ledger.fault(kind, "job 17")
    assert failed(outcome, f"{kind} 1")
    assert "job 17" in outcome.text()


def test_a_run_without_acks_fails(outcome: Outcome) -> None:
    outcome.accounts.acked.clear()
    assert failed(outcome, "no work was done")


def test_a_kill_that_left_the_process_running_fails(outcome: Outcome) -> None:
    outcome.accounts.kills[0].instance_after = "one"
    assert failed(outcome, "same process")


def test_a_server_that_did_not_return_fails(outcome: Outcome) -> None:
    outcome.accounts.kills[0].instance_after = ""
    assert failed(outcome, "did not come back")


def test_a_kill_with_no_request_in_flight_fails(outcome: Outcome) -> None:
    outcome.accounts.kills[0].in_flight = 0
    assert failed(outcome, "no request was in flight")


@pytest.mark.parametrize(("changes", "why"), [({"kills": 2}, "only 1 of 2 kills"), ({"jobs": 2}, "only 1 of 2 jobs")])
def test_fewer_kills_or_jobs_than_planned_fail(outcome: Outcome, changes: dict[str, int], why: str) -> None:
    assert failed(replace(outcome, plan=replace(outcome.plan, **changes)), why)


def test_a_run_without_client_kills_fails(outcome: Outcome) -> None:
    assert failed(replace(outcome, client_kills=0), "no client was killed")


def test_a_cleaning_run_that_freed_nothing_fails(outcome: Outcome) -> None:
    outcome.accounts.ledger.counts["segments freed"] = 0
    assert failed(outcome, "nothing was cleaned")


# --- the report -------------------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Collects the text of a page. Raises AssertionError for a tag that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(outcome: Outcome) -> str:
    reader = Balanced()
    reader.feed(html(outcome))
    reader.close()
    assert reader.open == []
    return reader.text


def test_the_report_says_what_the_summary_says(outcome: Outcome) -> None:
    text = read(outcome)
    assert ZERO_LOSS in text
    assert "one → two" in text
    for shown in outcome.figures().values():
        assert shown in text


def test_the_report_says_what_is_wrong(outcome: Outcome) -> None:
    outcome.accounts.ledger.fault("lost", "<script>")
    text = read(outcome)
    assert FAILED in text
    assert "<script>" in text, "as text"


def test_a_report_without_acked_jobs(outcome: Outcome) -> None:
    empty = Outcome(outcome.plan, Accounts(Ledger()), Counter(), 0, 0, 0)
    assert "No job was acked." in read(empty)
