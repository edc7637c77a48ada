"""Figures about the whole queue: GET /stats."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq import __version__
from fastq._core import QueueView
from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.http.fields import Time
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import Answer, Route
from fastq.services.statistics import QUANTILES, WORST_MAX, Statistics, Totals, memory_bytes

PERIODS_S = (1, 10, 60)
ROLE = "single"
_UNSET = msgspec.UNSET


class Rates(msgspec.Struct, forbid_unknown_fields=True):
    """How many a second, over the last second, 10 seconds and minute."""

    submitted: dict[str, float]
    redriven: dict[str, float]
    leased: dict[str, float]
    acked: dict[str, float]
    failed: Annotated[dict[str, float], Meta(description="Attempts, those whose lease expired included.")]
    lease_expired: dict[str, float]
    dead: Annotated[dict[str, float], Meta(description="Jobs that became DEAD.")]


class Quantiles(msgspec.Struct, forbid_unknown_fields=True):
    """Of the last minute, milliseconds; null: there was nothing to measure."""

    p50: float | None
    p95: float | None
    p99: float | None


class LatencyShown(msgspec.Struct, forbid_unknown_fields=True):
    submit_to_durable: Annotated[Quantiles, Meta(description="From the first change of a batch until it is durable.")]
    submit_to_lease: Annotated[Quantiles, Meta(description="From when a job is due, again after a retry.")]
    lease_to_ack: Quantiles


class WalShown(msgspec.Struct, forbid_unknown_fields=True):
    """The write-ahead log, over the last minute. A batch is what one sync makes durable, an op a record in it."""

    bytes: int
    batches_per_s: float
    ops_per_batch: float
    fsync_ms: Quantiles


class MemoryShown(msgspec.Struct, forbid_unknown_fields=True):
    rss_bytes: int


class QueueCounts(msgspec.Struct, forbid_unknown_fields=True):
    """A queue, with rates of the last 10 seconds. A key that sees only its owner's jobs gets neither rates nor ages."""

    name: str
    runnable: int
    running: int
    scheduled: int
    dead: int
    oldest_ready_s: float | msgspec.UnsetType = _UNSET
    in_per_s: float | msgspec.UnsetType = _UNSET
    out_per_s: float | msgspec.UnsetType = _UNSET
    failed_per_s: float | msgspec.UnsetType = _UNSET


class StatsShown(msgspec.Struct, forbid_unknown_fields=True):
    """The jobs and queues that the caller sees counted. What is about the whole server, only a key that sees all gets.

    `queues` has at most 100 of `queue_count` queues: those with the oldest ready job first; to a key that sees only its
    owner's jobs those with the most ready jobs first. They and `oldest_ready_s` are at most two seconds old.
    """

    runnable: Annotated[int, Meta(description="Jobs that are due.")]
    running: int
    scheduled: Annotated[int, Meta(description="Jobs with a later run_at, retries included.")]
    dead: int
    states: Annotated[dict[str, int], Meta(description="Jobs by state; READY includes those that are scheduled.")]
    queues: list[QueueCounts]
    queue_count: int
    at: Time
    uptime_s: float
    version: str
    role: Literal["single"]
    oldest_ready_s: Annotated[
        float | msgspec.UnsetType, Meta(description="How long the job that waits the longest is due; 0: none is.")
    ] = _UNSET
    rates: Rates | msgspec.UnsetType = _UNSET
    latency_ms: LatencyShown | msgspec.UnsetType = _UNSET
    wal: WalShown | msgspec.UnsetType = _UNSET
    memory: MemoryShown | msgspec.UnsetType = _UNSET


class Stats:
    """The responder of GET /stats."""

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        self._engine, self._statistics = engine, statistics

    async def stats(self, req: Request, resp: Response) -> None:
        resp.content_type = JSON
        resp.set_header("Cache-Control", "no-store")
        resp.data = encode(await self.shown(req.context.principal))

    async def shown(self, who: Principal, queues_max: int = WORST_MAX) -> dict[str, Any]:
        """The answer for a caller: see `StatsShown`."""
        statistics, access = self._statistics, who.oversees
        overview = await statistics.overview(who)
        now_us = self._engine.now_us()
        sees_ages = access.owner_id is None
        answer: dict[str, Any] = {
            **_totals_shown(overview.totals),
            "queues": [_queue_shown(view, now_us, sees_ages) for view in overview.queues[:queues_max]],
            "queue_count": overview.totals.queues,
            "at": time_of(now_us),
            "uptime_s": round(statistics.uptime_s, 3),
            "version": __version__,
            "role": ROLE,
        }
        if sees_ages:
            answer["oldest_ready_s"] = _age_s(overview.oldest_ready_us, now_us)
        return answer | self._of_server() if access.is_all else answer

    def _of_server(self) -> dict[str, Any]:
        """What is about the whole server."""
        statistics = self._statistics
        log = statistics.log()
        by_period = {f"{seconds}s": statistics.rates(seconds) for seconds in PERIODS_S}
        return {
            "rates": {
                name: {period: round(rates[name], 3) for period, rates in by_period.items()}
                for name in Rates.__struct_fields__
            },
            "latency_ms": {
                "submit_to_durable": _quantiles(statistics.durations_us("durable")),
                "submit_to_lease": _quantiles(statistics.durations_us("wait")),
                "lease_to_ack": _quantiles(statistics.durations_us("run")),
            },
            "wal": {
                "bytes": log.bytes,
                "batches_per_s": round(log.batches_per_s, 3),
                "ops_per_batch": round(log.records_per_batch, 3),
                "fsync_ms": _quantiles(statistics.durations_us("sync")),
            },
            "memory": {"rss_bytes": memory_bytes()},
        }

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/stats",
                "jobs:read",
                self.stats,
                "Count the jobs, and tell how fast they move",
                (Answer(200, "the figures", StatsShown),),
            )
        ]


def _totals_shown(totals: Totals) -> dict[str, Any]:
    return {
        "runnable": totals.runnable,
        "running": totals.running,
        "scheduled": totals.scheduled,
        "dead": totals.dead,
        "states": totals.states,
    }


def _queue_shown(view: QueueView, now_us: int, sees_ages: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": view.name,
        "runnable": view.ready,
        "running": view.running,
        "scheduled": view.waiting,
        "dead": view.finished["DEAD"],
    }
    return shown | movement(view, now_us) if sees_ages else shown


def movement(view: QueueView, now_us: int) -> dict[str, float]:
    """How long a queue's oldest ready job is due, and how fast its jobs move."""
    return {
        "oldest_ready_s": _age_s(view.oldest_ready_us, now_us),
        "in_per_s": round(view.in_per_s, 3),
        "out_per_s": round(view.out_per_s, 3),
        "failed_per_s": round(view.failed_per_s, 3),
    }


def _age_s(since_us: int, now_us: int) -> float:
    return round(max(0, now_us - since_us) / 1e6, 3) if since_us else 0.0


def _quantiles(found_us: tuple[float | None, ...]) -> dict[str, float | None]:
    pairs = zip(QUANTILES, found_us, strict=True)
    return {f"p{share * 100:.0f}": None if us is None else round(us / 1000, 3) for share, us in pairs}
