"""What happened in the model since its start, as a plain list; every count is made from it anew."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from fastq._core import LATENCY_BOUNDS_US
from tests.core.model_jobs import Job

SECOND_US = 1_000_000
WINDOW_SECONDS = 10
CHANGES_A_SECOND, CHANGES_KEPT = 200, 1024
ENDS = {"ok": "acked", "error": "failed"}
"""An outcome -> what happened to the job; any other outcome has the same name."""
FAILURES = ("failed", "lease_expired", "discarded", "poisoned", "unreadable")
WINDOWS = {"in_per_s": ("submitted", "redriven"), "out_per_s": ("acked",), "failed_per_s": FAILURES}


@dataclass(frozen=True)
class Told:
    """Something that happened to a job, and the job after it."""

    at_us: int
    what: str
    job_id: str
    state: str
    queue: str
    group: str
    owner_id: str
    attempt: int
    took_us: int = 0  # of a lease: since the job was ready; of an ack: since its lease
    error: str = ""
    error_code: str = ""


class Traffic:
    def __init__(self) -> None:
        self.told: list[Told] = []
        self.emptied: dict[str, list[int]] = {}  # when a queue ended with its last job: the length of the list
        self.looked_at = 0  # the length of the list when the active queues were last asked for
        self.latest_us = 0  # the clock may go back: what happens then counts in the latest second so far

    def copy(self) -> Traffic:
        other = Traffic()
        other.told, other.latest_us = list(self.told), self.latest_us
        return other

    def tell(self, now_us: int, job: Job, what: str, took_us: int = 0, error: str = "", code: str = "") -> None:
        self.latest_us = max(self.latest_us, now_us)
        shown = (job.job_id, job.shown_state(now_us), job.queue, job.group, job.owner_id, job.attempts)
        self.told.append(Told(self.latest_us, what, *shown, max(0, took_us), error, code))

    def counts(self, queue: str | None, since: int) -> dict[str, int]:
        """The fields of the core's `Traffic`. since: how much of the list came before the queue did."""
        told = [one for one in self.told[since:] if queue in (None, one.queue)]
        counts = Counter(one.what for one in told)
        failed = [one for one in told if one.what in FAILURES]
        ended = [one for one in told if one.what in ("discarded", "cancelled", *ENDS.values(), *FAILURES)]
        return {
            "submitted": counts["submitted"],
            "redriven": counts["redriven"],
            "leased": counts["leased"],
            "acked": counts["acked"],
            "failed": len(failed),
            "lease_expired": counts["lease_expired"] + counts["poisoned"],
            "retried": sum(one.state == "RETRY" for one in failed),
            "dead": sum(one.state == "DEAD" for one in ended),
            "expired": counts["expired"],
            "cancelled": sum(one.state == "CANCELLED" and one.what != "deleted" for one in told),
            "snoozed": counts["snoozed"],
            "released": counts["released"],
            "deleted": counts["deleted"],
        }

    def rates(self, now_us: int, queue: str, since: int) -> dict[str, float]:
        """The rates in the core's `QueueView`."""
        now_us = max(now_us, self.latest_us // SECOND_US * SECOND_US)
        rates = dict.fromkeys(WINDOWS, 0.0)
        for one in self.told[since:]:
            age_s = now_us // SECOND_US - one.at_us // SECOND_US
            share = 1.0 if age_s < WINDOW_SECONDS else 1 - now_us % SECOND_US / SECOND_US
            for rate, counted in WINDOWS.items():
                if one.queue == queue and one.what in counted and age_s <= WINDOW_SECONDS:
                    rates[rate] += share / WINDOW_SECONDS
        return rates

    def durations(self, queue: str | None, what: str, since: int) -> tuple[tuple[int, ...], int]:
        """Counts by bucket, and the sum."""
        found = [one.took_us for one in self.told[since:] if queue in (None, one.queue) and one.what == what]
        counts = Counter(bisect_left(LATENCY_BOUNDS_US, took_us) for took_us in found)
        return tuple(counts[i] for i in range(len(LATENCY_BOUNDS_US) + 1)), sum(found)

    def kept(self) -> tuple[list[Told], int]:
        """What the feed keeps: so many of each second, the newest of these; and how many were left out."""
        in_second = Counter[int]()
        kept = []
        for one in self.told:
            in_second[one.at_us // SECOND_US] += 1
            if in_second[one.at_us // SECOND_US] <= CHANGES_A_SECOND:
                kept.append(one)
        return kept, len(self.told) - len(kept)

    def failures(self) -> list[dict[str, object]]:
        """The fields of each `FailureGroup`, the one seen last first."""
        groups: dict[tuple[str, ...], list[Told]] = {}
        for one in self.told:
            if one.what in FAILURES:
                line = one.error.strip().split("\n")[0].rstrip().encode()[:200].decode("utf-8", "ignore")
                key = (one.queue, one.owner_id, one.error_code, line or (one.what if one.what != "failed" else ""))
                groups[key] = [*groups.pop(key, []), one]
        names = ("queue", "owner_id", "error_code", "error")
        return [
            dict(zip(names, key, strict=True))
            | {"count": len(seen), "first_us": seen[0].at_us, "last_us": seen[-1].at_us, "job_id": seen[-1].job_id}
            for key, seen in reversed(groups.items())
        ]


def ready_us(job: Job) -> int:
    """Since when a job that is leased now was ready: it may have been released since it was due."""
    return max(job.run_at_us, job.ended_us)
