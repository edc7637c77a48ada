"""Accounts of the events of all client processes: the ledger, requests in flight, figures for the summary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from fastq.chaos import journal
from fastq.chaos.ledger import Lease, Ledger
from fastq.chaos.plan import is_deferred, result_of


@dataclass
class Kill:
    """One kill of the server. Times are monotonic microseconds; `instance` names a server process."""

    begun_us: int
    done_us: int
    instance_before: str
    instance_after: str = ""
    in_flight: int = 0  # requests that the kill left without an answer

    def cut_off(self, request: journal.Unanswered) -> bool:
        return not request.waited and request.asked_us <= self.done_us and request.at_us >= self.begun_us


@dataclass
class Accounts:
    """`submitted`, `acked`: when each job's first answer came. No entry is ever removed."""

    ledger: Ledger
    sent: dict[int, int] = field(default_factory=dict)  # number -> time of its first submit
    numbers: dict[str, int] = field(default_factory=dict)  # job_id -> number
    submitted: dict[int, int] = field(default_factory=dict)
    acked: dict[int, int] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    unanswered: list[journal.Unanswered] = field(default_factory=list)
    resting: set[int] = field(default_factory=set)  # processes
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, reached: Callable[[], bool], stall_s: float) -> bool:
        """Wait until `reached()`. Returns False if no answer at all came for `stall_s`."""
        while not reached():
            self._moved.clear()
            try:
                async with asyncio.timeout(stall_s):
                    await self._moved.wait()
            except TimeoutError:
                return False
        return True

    def outstanding(self, process: int, processes: int) -> list[int]:
        """Jobs that this process sent and that were not answered."""
        return [n for n in self.sent if n % processes == process and n not in self.submitted]

    def take(self, process: int, event: journal.Event) -> None:
        """Take the next event of that process's journal."""
        match event:
            case journal.Sending():
                self.sent.setdefault(event.number, event.at_us)
                self.ledger.sending(str(event.number))
            case journal.Submitted():
                self.ledger.submitted(event.job_id, str(event.number))
                self.numbers[event.job_id] = event.number
                self.submitted.setdefault(event.number, event.at_us)
            case journal.Leased():
                lease = Lease(event.granted_us, event.until_us)
                self.ledger.leased(event.job_id, event.payload, event.attempt, lease)
                if event.payload.isdigit():
                    self.numbers.setdefault(event.job_id, int(event.payload))
            case journal.Acking():
                self.ledger.books[event.job_id].leases[event.attempt].closing = True
                if not event.fails:
                    self.ledger.acking(event.job_id, event.attempt, event.at_us)
            case journal.Acked() if event.fails:
                self.ledger.failed(event.job_id, event.attempt)
            case journal.Acked():
                self.ledger.acked(event.job_id, event.attempt, result_of(event.attempt))
                self.acked.setdefault(self.numbers.get(event.job_id, -1), event.at_us)
            case _:
                self._take_other(process, event)
        if not isinstance(event, journal.Unanswered | journal.Busy):
            self._moved.set()

    def _take_other(self, process: int, event: journal.Event) -> None:
        ledger = self.ledger
        match event:
            case journal.TooLate():
                ledger.refused(event.job_id, event.attempt)
                ledger.counts["acks too late"] += 1
            case journal.Gone():
                ledger.judge(event.job_id, 404, {}, event.at_us)
            case journal.Unanswered():
                ledger.counts["unanswered"] += 1
                self.unanswered.append(event)
            case journal.Busy():
                ledger.counts[f"answered {event.status}"] += 1
            case journal.Wrong():
                ledger.fault(event.kind, event.what)
            case journal.Resting():
                self.resting.add(process)

    def count_in_flight(self) -> None:
        """Count each kill's requests in flight. Call it when all journals have been read."""
        for kill in self.kills:
            kill.in_flight = sum(kill.cut_off(request) for request in self.unanswered)

    def latencies_ms(self, seed: int) -> list[float]:
        """Times from a job's first submit to the answer of its ack, ascending; without deferred jobs."""
        took = (
            (at_us - self.sent[number]) / 1000 for number, at_us in self.acked.items()
            if number in self.sent and not is_deferred(number, seed)
        )  # fmt: skip
        return sorted(took)

    def rate(self) -> float:
        """Jobs acked a second, from the first submit to the last ack; downtime counts."""
        if not self.acked:
            return 0.0
        return len(self.acked) / max(1e-6, (max(self.acked.values()) - min(self.sent.values())) / 1e6)


def percentile(ascending: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 if there are none."""
    if not ascending:
        return 0.0
    return ascending[max(0, ceil(share * len(ascending)) - 1)]
