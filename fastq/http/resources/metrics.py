"""The metrics for Prometheus: GET /metrics."""

from __future__ import annotations

import asyncio
from importlib import import_module

from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.http.authentication import confirmed
from fastq.http.event_streams import EventStreams
from fastq.http.lane._lane import ShortWay
from fastq.http.routes import Answer, Route
from fastq.services.keys import KeyStore
from fastq.services.queues import Queues
from fastq.services.statistics import Statistics

TEXT = "text/plain"


class Metrics:
    """The responder of GET /metrics. Set `streams` and `answers` before the first request."""

    streams: EventStreams
    answers: dict[tuple[str, int], int]
    """by route and status class"""

    def __init__(
        self, engine: Engine, statistics: Statistics, keys: KeyStore, queues: Queues, short_way: ShortWay
    ) -> None:
        self._engine, self._statistics, self._keys, self._queues = engine, statistics, keys, queues
        self._short_way = short_way

    async def metrics(self, req: Request, resp: Response) -> None:
        """prometheus-client is imported with the first request: a server without one needs no memory for it."""
        exposition = await asyncio.to_thread(import_module, "fastq.http.exposition")
        sources = exposition.Sources(
            self._engine,
            self._statistics,
            self.answers,
            short_requests=lambda: self._short_way.answered_count,
            streams=lambda: self.streams.count,
            key_store_up=lambda: self._keys.trusted_until_us > self._engine.now_us(),
            paused=self._queues.paused,
        )
        async with self._engine.turns.of(req.context.principal.key_id) as turn:

            async def pause() -> None:
                await turn.pause()
                await confirmed(req)

            resp.data, resp.content_type = await exposition.exposed(sources, req.get_header("Accept") or "", pause)
        resp.set_header("Cache-Control", "no-store")

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/metrics",
                "metrics:read",
                self.metrics,
                "The metrics, for Prometheus",
                (Answer(200, "as text or OpenMetrics, as the header Accept asks", media_type=TEXT),),
            )
        ]
