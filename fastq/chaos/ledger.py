"""The ledger keeps the server's answers, and checks the server's state against them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

EXAMPLES_KEPT = 5


@dataclass
class Lease:
    """One answered lease. `granted_us` and `until_us` are the server's own times."""

    granted_us: int
    until_us: int
    closing: bool = False  # an ack was sent: from then on the job may be leased again


@dataclass
class Book:
    """All answers about one job."""

    payload: str
    leases: dict[int, Lease] = field(default_factory=dict)  # by attempt
    acked: tuple[int, str] | None = None  # attempt and result of the ack that was answered
    failed: int = 0  # the highest attempt whose error ack was answered
    ending: dict[int, int] = field(default_factory=dict)  # attempt -> when its first ok ack went out, if not refused
    gone: bool = False  # an answer said that it does not exist any more


class Ledger:
    """Takes answers, those of one client in order; `judge` checks the server's state against them."""

    def __init__(self, retention_us: int | None = None) -> None:
        """
        Args:
            retention_us: how long an ACKED job must be kept; None: for ever.
        """
        self._retention_us = retention_us
        self.books: dict[str, Book] = {}
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._sent: set[str] = set()
        self._job_of: dict[str, str] = {}

    def fault(self, kind: str, what: str) -> None:
        self.faults[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES_KEPT:
            kept.append(what)

    # --- answers ------------------------------------------------------------------------------------------------------

    def sending(self, payload: str) -> None:
        """A submit with this unique payload goes out."""
        self._sent.add(payload)

    def submitted(self, job_id: str, payload: str) -> None:
        self.counts["submitted"] += 1
        self._book(job_id, payload)

    def leased(self, job_id: str, payload: str, attempt: int, lease: Lease) -> None:
        self.counts["leased"] += 1
        leases = self._book(job_id, payload).leases
        if attempt in leases:
            self.fault("doubled", f"{job_id}: attempt {attempt} was leased twice")
        leases[attempt] = lease

    def acking(self, job_id: str, attempt: int, now_us: int) -> None:
        """An ok ack goes out, perhaps again. From now on the job may be ACKED."""
        self.books[job_id].ending.setdefault(attempt, now_us)

    def refused(self, job_id: str, attempt: int) -> None:
        """The ack of that attempt was refused and has no effect."""
        self.books[job_id].ending.pop(attempt, None)

    def acked(self, job_id: str, attempt: int, result: str) -> None:
        self.counts["acks"] += 1
        book = self.books[job_id]
        if book.acked is not None:
            self.fault("undone", f"{job_id} was acked at attempt {book.acked[0]} and again at {attempt}")
        book.acked = (attempt, result)

    def failed(self, job_id: str, attempt: int) -> None:
        self.counts["error acks"] += 1
        book = self.books[job_id]
        book.failed = max(book.failed, attempt)

    def gone(self, job_id: str) -> None:
        """An answer said that the job does not exist. It must not come back."""
        self.books[job_id].gone = True

    def _book(self, job_id: str, payload: str) -> Book:
        if (first := self._job_of.setdefault(payload, job_id)) != job_id:
            self.fault("duplicated", f"one submit created two jobs: {first} and {job_id}")
        book = self.books.setdefault(job_id, Book(payload))
        if book.payload != payload:
            self.fault("wrong", f"{job_id} was leased with two different payloads")
        return book

    # --- judgement ----------------------------------------------------------------------------------------------------

    def judge(self, job_id: str, status: int, job: dict[str, Any], now_us: int = 0) -> None:
        """Check the answer of GET /jobs/{id}, given at `now_us` after all other answers, against the job's book."""
        book = self.books[job_id]
        if book.payload not in self._sent:
            self.fault("wrong", f"{job_id} has a payload that no client sent: {book.payload}")
        if status == 404:
            if not self._may_be_gone(book, now_us):
                self.fault("lost", f"{job_id} was acknowledged and does not exist")
            return
        if book.gone:
            self.fault("undone", f"{job_id} was removed and exists again")
        if status != 200:
            self.fault("unexpected", f"GET of {job_id} answered {status}")
            return
        state, attempts = job["state"], job["attempts"]
        seen = f"{job_id} is {state} at attempt {attempts}"
        if book.acked is not None:
            if state != "ACKED" or job.get("result") != book.acked[1]:
                self.fault("undone", f"{seen}, and attempt {book.acked[0]} was acked with {book.acked[1]!r}")
        elif book.failed and attempts <= book.failed and state not in ("RETRY", "DEAD"):
            self.fault("undone", f"{seen}, and attempt {book.failed} was acked with an error")
        if book.leases and attempts < max(book.leases):
            self.fault("undone", f"{seen}, and attempt {max(book.leases)} was leased")

    def _may_be_gone(self, book: Book, now_us: int) -> bool:
        """Retention may remove only acked jobs that are old enough."""
        if self._retention_us is None:
            return False
        ended_us = [at_us for attempt, at_us in book.ending.items() if book.acked is None or book.acked[0] == attempt]
        return any(now_us - at_us >= self._retention_us for at_us in ended_us)

    def judge_leases(self) -> None:
        """Check that no job had two live leases, or a lease after its ack."""
        for job_id, book in self.books.items():
            attempts = sorted(book.leases)
            for earlier, later in pairwise(attempts):
                first, second = book.leases[earlier], book.leases[later]
                if not first.closing and second.granted_us < first.until_us:
                    early_us = first.until_us - second.granted_us
                    self.fault("doubled", f"{job_id}: attempt {later} began {early_us} us before {earlier} expired")
            if book.acked is not None and attempts[-1] > book.acked[0]:
                self.fault("undone", f"{job_id} was acked at attempt {book.acked[0]} and leased again")
