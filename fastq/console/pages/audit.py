"""The audit log: who changed what."""

from __future__ import annotations

import orjson

from fastq.console.forms import whole_number
from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.http.routes import ADMIN

PAGE_ENTRIES = 100
EXAMINED_MAX = 10_000  # with a target


class AuditPages:
    def __init__(self, parts: Parts) -> None:
        self._audit = parts.audit

    async def entries(self, visit: Visit) -> None:
        before, target = whole_number(visit.query("before") or "0", "before"), visit.query("target")
        need(before >= 0, "before must be of a page of entries")
        if target:
            found, _ = self._audit.page(before, EXAMINED_MAX)
            matching = [entry for entry in found if entry.target == target]
            entries, more = (
                matching[:PAGE_ENTRIES],
                matching[PAGE_ENTRIES - 1].number if len(matching) > PAGE_ENTRIES else 0,
            )
        else:
            entries, more = self._audit.page(before, PAGE_ENTRIES)
        details = {entry.number: orjson.dumps(entry.details).decode() if entry.details else "" for entry in entries}
        visit.show("audit.html", entries=entries, details=details, before=more, target=target)

    def pages(self) -> list[Page]:
        return [Page("GET", "/console/audit", ADMIN, self.entries)]
