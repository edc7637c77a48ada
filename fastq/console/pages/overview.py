"""The first screen: whether work is moving, the worst queue first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from fastq._core import Filter, QueueView
from fastq.console.charts import spark
from fastq.console.guard import Page, Visit
from fastq.console.parts import Parts
from fastq.console.trends import DEFAULT, SPANS_H, charts_of
from fastq.engine.commands import Principal
from fastq.http.event_streams import Sight, sight_of
from fastq.services.queue_reasons import Reason, reason_of

READ = "jobs:read"
QUEUES_SHOWN = 20
RECENT_SHOWN = 10
STALE_US = 60_000_000  # a ready job that waits longer makes its queue the headline
SHARED_US = 900_000  # visitors that see the same get the same piece for so long
SHARED_MAX = 100
PREFIXES_MAX = 10
_ANY = Filter()
HELD = frozenset({"paused", "no_worker", "concurrency", "rate_limit", "group_concurrency"})


@dataclass(slots=True)
class Screen:
    """What a first screen shows. `pieces`: its live part as HTML, by the prefix of its links."""

    begun_us: int
    values: asyncio.Task[dict[str, Any]]
    pieces: dict[str, str] = field(default_factory=dict)


class Overview:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._queues, self._statistics = parts.engine, parts.queues, parts.statistics
        self._trends = parts.trends
        self._shared: OrderedDict[Sight, Screen] = OrderedDict()

    async def show(self, visit: Visit) -> None:
        screen = self._screen(visit.who)
        values = await asyncio.shield(screen.values)
        if visit.query("part") == "live":
            piece = screen.pieces.get(visit.prefix)
            if piece is None:
                piece = visit.render("overview_live.html", **values)
                if len(screen.pieces) < PREFIXES_MAX:
                    screen.pieces[visit.prefix] = piece
            visit.send(piece)
            return
        span = visit.query("span")
        charts = await charts_of(self._trends, None, span, self._engine.now_us()) if visit.who.oversees.is_all else None
        visit.show("overview.html", charts=charts, span=span or DEFAULT, spans=list(SPANS_H), **values)

    def _screen(self, who: Principal) -> Screen:
        """What the page shows, made once for all visitors that see the same jobs at the same time."""
        key, now_us = sight_of(who), self._engine.now_us()
        screen = self._shared.get(key)
        if screen is None or now_us - screen.begun_us > SHARED_US:
            screen = self._shared[key] = Screen(now_us, asyncio.create_task(self._made(who)))
            self._shared.move_to_end(key)
            if len(self._shared) > SHARED_MAX:
                self._shared.popitem(last=False)
        return screen

    async def _made(self, who: Principal) -> dict[str, Any]:
        engine, statistics = self._engine, self._statistics
        found = await statistics.overview(who)
        queues = []
        for view in found.queues[:QUEUES_SHOWN]:
            settings = self._queues.settings_of(view.name)
            queues.append((view, settings, reason_of(engine, view, settings)))
        worst = [(view, reason) for view, _, reason in queues if _is_stuck(view, reason, engine.now_us())]
        recent, _ = engine.views(who.sees, _ANY, 0, RECENT_SHOWN, RECENT_SHOWN * 20)
        by_second = statistics.by_second()
        return {
            "totals": found.totals,
            "oldest_ready_us": found.oldest_ready_us,
            "queues": queues,
            "stuck": worst,
            "recent": recent,
            "is_all": who.oversees.is_all,
            "rates": statistics.rates(10),
            "dead_per_min": round(sum(one["dead"] for one in by_second)),
            "submits": spark([one["submitted"] for one in by_second], "submits in each of the last 60 seconds"),
            "acks": spark([one["acked"] for one in by_second], "acks in each of the last 60 seconds"),
            "wait_us": statistics.durations_us("wait"),
            "run_us": statistics.durations_us("run"),
            "sync_us": statistics.durations_us("sync"),
            "log_bytes": engine.log_bytes,
            "disk_full": engine.disk_full,
            "draining": engine.draining,
        }

    def pages(self) -> list[Page]:
        return [Page("GET", "/", READ, self.show)]


def _is_stuck(view: QueueView, reason: Reason, now_us: int) -> bool:
    return bool(view.ready) and reason.code in HELD and now_us - (view.oldest_ready_us or now_us) > STALE_US
