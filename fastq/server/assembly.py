"""Builds a node from its parts. This is the only place that does.

The server, `fastq.testing` and the tests pass different parts: the log, the clock, the key store, and the reaction to a
failed log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastq.clock import Clock
from fastq.console.parts import Parts, Start
from fastq.console.site import Site
from fastq.engine import EngineOptions, assemble
from fastq.http.app import Api, HttpOptions, create_app
from fastq.http.resources.schedules import read_job
from fastq.log.protocol import Log, Opened
from fastq.services.audit import Audit, AuditedDocuments
from fastq.services.auth import Authenticator
from fastq.services.bulk import Bulk
from fastq.services.keys import KeyStore
from fastq.services.keys.opening import opened_keys
from fastq.services.operations import Operations
from fastq.services.queues import Queues
from fastq.services.schedules import Schedules
from fastq.services.statistics import Statistics
from fastq.services.trends import Trends

REDIS_GRACE_MS = 60_000
NO_START = Start()


class Node:
    """An engine with its services and API. Call `open`, enter `running`, then `serving`; each sets its attributes."""

    audit: Audit
    queues: Queues
    keys: KeyStore
    schedules: Schedules
    statistics: Statistics
    trends: Trends
    app: Api

    def __init__(self, log: Log, options: EngineOptions, jitter: Callable[[], float]) -> None:
        """
        Args:
            jitter: returns a number in [0, 1), the fraction of the upper bound of a retry wait.
        """
        self.log = log
        self.engine, self.core = assemble(log, options, jitter)

    def open(self) -> Opened:
        """Recover the log. Blocking; needs no event loop. Raises as `Log.open`."""
        opened = self.engine.open()
        self.audit = Audit(self.engine)
        self.queues = Queues(self.engine, self.audit)
        return opened

    @asynccontextmanager
    async def running(
        self,
        clock: Clock,
        on_failed: Callable[[BaseException], None],
        redis_url: str | None = None,
        redis_grace_ms: int = REDIS_GRACE_MS,
        *,
        is_idle: bool = False,
    ) -> AsyncIterator[KeyStore]:
        """Run the engine and open the key store. On exit everything is committed and the log closed.

        Args:
            on_failed: called once if the log fails. The node answers nothing from then on; end the process.
            redis_url, redis_grace_ms: see `opened_keys`.
            is_idle: see `Engine.start`.
        """
        self.queues.configure(clock.now_us())
        await self.engine.start(clock, on_failed, is_idle=is_idle)
        try:
            documents = AuditedDocuments(self.engine, self.audit)
            async with opened_keys(redis_url, redis_grace_ms, documents) as self.keys:
                yield self.keys
        finally:
            await self.engine.stop()

    @asynccontextmanager
    async def serving(
        self, instance: str, root_path: str = "", start: Start = NO_START, trends_path: Path | None = None
    ) -> AsyncIterator[Api]:
        """Create the API and the console, fire schedules and resume queues.

        Args:
            instance: prefix of the request ids that this node makes.
            root_path: see `Site`.
            start: for the console.
            trends_path: see `Trends`.
        """
        engine, keys = self.engine, self.keys
        self.schedules = Schedules(engine, self.audit, read_job)
        self.statistics = Statistics(engine)
        self.trends = Trends(engine, self.statistics, trends_path)
        options = HttpOptions(keys, self.queues, self.schedules, self.audit, self.statistics, instance)
        auth = Authenticator(keys, engine.now_us, engine.options.owner_isolation)
        keys.watch(engine.end_waits)
        bulk = Bulk(engine, self.audit)
        operations = Operations(engine, bulk)
        parts = Parts(
            engine, self.queues, self.schedules, keys, self.audit, bulk, operations, self.statistics, start, self.trends
        )
        self.app = create_app(engine, self.core, auth, options, Site(parts, auth, root_path))
        self.schedules.start()
        self.statistics.start()
        await self.trends.start()
        self.queues.start()
        try:
            yield self.app
        finally:
            await self.trends.stop()
            await operations.close()
            self.queues.stop()
            self.app.streams.stop()
            self.statistics.stop()
            self.schedules.stop()
