"""A node, put together from its parts: here, and nowhere else.

The server, `fastq.testing` and the worlds of the tests differ in what they give it: the log, the clock, where keys are
kept, and what happens when the log fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastq.clock import Clock
from fastq.engine import EngineOptions, assemble
from fastq.http.app import Api, HttpOptions, create_app
from fastq.http.resources.schedules import read_job
from fastq.log.protocol import Log, Opened
from fastq.services.audit import Audit, AuditedDocuments
from fastq.services.auth import Authenticator
from fastq.services.keys import KeyStore
from fastq.services.keys.opening import opened_keys
from fastq.services.queues import Queues
from fastq.services.schedules import Schedules

REDIS_GRACE_MS = 60_000


class Node:
    """Call `open`, then be within `running`, then `serve`. What one makes is there from then on."""

    audit: Audit
    queues: Queues
    keys: KeyStore
    schedules: Schedules
    app: Api

    def __init__(self, log: Log, options: EngineOptions, jitter: Callable[[], float]) -> None:
        """
        Args:
            jitter: draws from [0, 1): the share of the retry wait's upper bound.
        """
        self.log = log
        self.engine, self.core = assemble(log, options, jitter)

    def open(self) -> Opened:
        """Recover the log. Blocking; the event loop need not run yet. Raises what `Log.open` raises."""
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
    ) -> AsyncIterator[KeyStore]:
        """The engine works, and keys can be found. At the end all is committed, and the log closed.

        Args:
            on_failed: called once if the log fails. Nothing is answered from then on; the process must end.
            redis_url, redis_grace_ms: see `opened_keys`.
        """
        self.queues.configure(clock.now_us())
        await self.engine.start(clock, on_failed)
        try:
            documents = AuditedDocuments(self.engine, self.audit)
            async with opened_keys(redis_url, redis_grace_ms, documents) as self.keys:
                yield self.keys
        finally:
            await self.engine.stop()

    @asynccontextmanager
    async def serving(self, instance: str) -> AsyncIterator[Api]:
        """The API answers and schedules fire.

        Args:
            instance: begins every request id that is made here.
        """
        engine, keys = self.engine, self.keys
        self.schedules = Schedules(engine, self.audit, read_job)
        options = HttpOptions(keys, self.queues, self.schedules, self.audit, instance)
        self.app = create_app(engine, self.core, Authenticator(keys, engine.now_us), options)
        self.schedules.start()
        try:
            yield self.app
        finally:
            self.schedules.stop()
