"""Queues: how each stands and why, its settings, pause and resume."""

from __future__ import annotations

import msgspec
import orjson

from fastq.console.forms import Form
from fastq.console.guard import Page, Visit
from fastq.console.parts import Parts
from fastq.console.trends import DEFAULT, SPANS_H, charts_of
from fastq.engine.commands import MANAGE
from fastq.errors import InvalidRequest
from fastq.http.fields import queue_name
from fastq.http.resources.queues import pause_of, settings_of
from fastq.services.queue_reasons import reason_of
from fastq.services.queues import QueueSettings, Retention, Shown

READ = "jobs:read"
QUEUES, ONE = "/console/queues", "/console/queues/{queue}"
PAGE_QUEUES = 100
ENTRIES_SHOWN = 10
HOUR_MS = 3_600_000
LIMITS = ("concurrency", "group_concurrency", "max_depth", "lease_ms")


class QueuePages:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._queues, self._audit = parts.engine, parts.queues, parts.audit
        self._trends = parts.trends

    async def queues(self, visit: Visit) -> None:
        """All queues by name."""
        found: list[Shown] = []
        after = ""
        async with self._engine.turns.of(visit.who.key_id) as turn:
            async for page in self._queues.pages(visit.who, visit.query("after"), PAGE_QUEUES):
                found += page.queues
                after = page.after
                await turn.pause()
        reasons = {view.name: reason_of(self._engine, view, settings) for view, settings in found}
        visit.show("queues.html", queues=found, reasons=reasons, after=after)

    async def queue(self, visit: Visit, queue: str) -> None:
        view, settings = self._queues.show(visit.who, queue)
        entries = []
        if visit.may("admin"):
            entries = self._audit.about("queue", queue, ENTRIES_SHOWN)
        charts = None
        if visit.who.oversees.is_all:
            charts = await charts_of(self._trends, queue, visit.query("span"), self._engine.now_us())
        visit.show(
            "queue.html",
            view=view,
            settings=settings,
            reason=reason_of(self._engine, view, settings),
            charts=charts,
            span=visit.query("span") or DEFAULT,
            spans=list(SPANS_H),
            entries=entries,
            manage=MANAGE,
        )

    # --- changes ------------------------------------------------------------------------------------------------------

    async def pause(self, visit: Visit, queue: str) -> None:
        form = await visit.form()
        body = {name: form.text(name) for name in ("reason", "until") if form.text(name)}
        reason, until = pause_of(orjson.dumps(body), self._engine.now_us())
        self._queues.pause(visit.who, queue_name(queue, "queue"), reason=reason, until=until)
        visit.go(f"{QUEUES}/{queue}", f"{queue} is paused: no job of it is leased. Running jobs go on.")

    async def resume(self, visit: Visit, queue: str) -> None:
        self._queues.resume(visit.who, queue)
        visit.go(f"{QUEUES}/{queue}", f"{queue} goes on.")

    async def put(self, visit: Visit, queue: str) -> None:
        form = await visit.form()
        known = self._queues.show(visit.who, queue)[1]
        settings = settings_of(orjson.dumps(_settings_of(form, known)), self._engine.now_us())
        self._queues.put(visit.who, queue_name(queue, "queue"), settings)
        visit.go(f"{QUEUES}/{queue}", "Saved. The settings hold from now on.")

    def pages(self) -> list[Page]:
        return [
            Page("GET", QUEUES, READ, self.queues),
            Page("GET", ONE, READ, self.queue),
            Page("POST", f"{ONE}/pause", MANAGE, self.pause),
            Page("POST", f"{ONE}/resume", MANAGE, self.resume),
            Page("POST", f"{ONE}/settings", MANAGE, self.put),
        ]


def _settings_of(form: Form, known: QueueSettings) -> dict[str, object]:
    """The settings as the API takes them: those of the form, and those that it does not have as they were.

    Raises:
        InvalidRequest.
    """
    settings: dict[str, object] = {
        name: value for name, value in msgspec.to_builtins(known).items() if value is not None
    }
    settings["fair"] = form.has("fair")
    for name in LIMITS:
        settings[name] = form.number(name)
    n, per_ms = form.number("rate_n"), form.number("rate_per_ms")
    if (n is None) != (per_ms is None):
        raise InvalidRequest("rate_limit needs both: so many leases, in so many milliseconds")
    settings["rate_limit"] = None if n is None else {"n": n, "per_ms": per_ms}
    before = known.retention or Retention()
    kept = {
        "acked_ms": _ms(form, "kept_acked_h", before.acked_ms),
        "dead_ms": _ms(form, "kept_dead_h", before.dead_ms),
        "max": form.number("kept_max"),
    }
    settings["retention"] = kept if any(value is not None for value in kept.values()) else None
    return settings


def _ms(form: Form, name: str, known_ms: int | None) -> int | None:
    """A field in hours. One that was not touched keeps what the hours do not show."""
    given_ms = form.number(name, HOUR_MS)
    if given_ms is None:
        return None
    return known_ms if known_ms is not None and known_ms - known_ms % HOUR_MS == given_ms else given_ms
