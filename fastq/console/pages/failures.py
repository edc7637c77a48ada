"""Failures in groups: what fails, how often, since when, and the jobs behind it."""

from __future__ import annotations

from fastq.console.guard import Page, Visit
from fastq.console.parts import Parts
from fastq.http.fields import queue_name

READ = "jobs:read"
GROUPS_SHOWN = 100
SPANS_H = {"1h": 1, "24h": 24, "7d": 168}


class Failures:
    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine

    async def groups(self, visit: Visit) -> None:
        engine, span = self._engine, visit.query("span")
        queue = queue_name(visit.query("queue"), "queue") if visit.query("queue") else None
        since_us = engine.now_us() - SPANS_H[span] * 3_600_000_000 if span in SPANS_H else 0
        groups = engine.failures(visit.who.sees, queue, since_us, GROUPS_SHOWN)
        visit.show("failures.html", groups=groups, queue=queue or "", span=span, spans=list(SPANS_H))

    def pages(self) -> list[Page]:
        return [Page("GET", "/console/failures", READ, self.groups)]
