"""The first screen: whether work is moving, the worst queue first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from fastq._core import Filter, QueueView
from fastq.console.charts import spark
from fastq.console.guard import Page, Visit
from fastq.console.parts import Parts
from fastq.console.trends import DEFAULT, SPANS_H, charts_of
from fastq.services.queue_reasons import Reason, reason_of

READ = "jobs:read"
QUEUES_SHOWN = 20
RECENT_SHOWN = 10
STALE_US = 60_000_000  # a ready job that waits longer makes its queue the headline
SHARED_US = 900_000  # visitors that see the same get the same piece for so long
SHARED_MAX = 100
_ANY = Filter()
HELD = frozenset({"paused", "no_worker", "concurrency", "rate_limit", "group_concurrency"})


class Overview:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._queues, self._statistics = parts.engine, parts.queues, parts.statistics
        self._trends = parts.trends
        self._shared: OrderedDict[tuple[Any, ...], tuple[int, dict[str, Any]]] = OrderedDict()

    async def show(self, visit: Visit) -> None:
        values = await self._values(visit)
        if visit.query("part") == "live":
            visit.show("overview_live.html", **values)
            return
        span = visit.query("span")
        charts = await charts_of(self._trends, None, span, self._engine.now_us()) if visit.who.oversees.is_all else None
        visit.show("overview.html", charts=charts, span=span or DEFAULT, spans=list(SPANS_H), **values)

    async def _values(self, visit: Visit) -> dict[str, Any]:
        """What the page shows, made once for all visitors that see the same jobs at the same time."""
        who, now_us = visit.who, self._engine.now_us()
        key = (who.sees.owner_id, who.sees.queues, who.oversees.owner_id, who.oversees.queues)
        made_us, values = self._shared.get(key, (0, {}))
        if now_us - made_us > SHARED_US:
            values = await self._made(visit)
            self._shared[key] = self._engine.now_us(), values
            self._shared.move_to_end(key)
            if len(self._shared) > SHARED_MAX:
                self._shared.popitem(last=False)
        return values

    async def _made(self, visit: Visit) -> dict[str, Any]:
        who, engine, statistics = visit.who, self._engine, self._statistics
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
