"""The worker: leases as many jobs as it has free slots, runs their handlers, and tells the server how they ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import uvloop

from fastq.client.async_client import AsyncClient
from fastq.client.async_transport import AsyncTransport
from fastq.client.codec import CODEC, Codec
from fastq.client.handlers import Function, Handler, Middleware
from fastq.client.job import Job
from fastq.client.protocol import Retries
from fastq.client.randomness import new_key
from fastq.client.worker_run import WorkerRun

__all__ = ["Job", "Worker"]

F = TypeVar("F", bound=Function)
LEASE_MS_MIN, LEASE_MS_MAX = 1_000, 12 * 3_600_000


class Worker:
    """Runs handlers on jobs.

    A handler is a function of a `Job`, async, or else run in a thread or process. What it returns is the result; it may
    return `Success`, `Failure` or `Snooze`; an exception fails the attempt. It runs at least once for each job, and may
    run again if a lease is lost: what it does elsewhere should bear that.

        worker = Worker()

        @worker.handles("video")
        async def encode(job: Job[Video]) -> str: ...

        worker.run()
    """

    def __init__(
        self, handler: Function | None = None, *, url: str | None = None, key: str | None = None,
        queues: Sequence[str] | Mapping[str, int] | None = None, concurrency: int = 10, lease_ms: int = 30_000,
        wait_ms: int = 20_000, time_limit_s: float | None = None, stop_s: float = 30.0, worker_id: str | None = None,
        middleware: Sequence[Middleware] = (), logger: logging.Logger | None = None, codec: Codec = CODEC,
        tls: ssl.SSLContext | None = None, transport: AsyncTransport | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            handler: for jobs of queues that have none of their own.
            url, key: else FASTQ_URL and FASTQ_KEY of the environment, when it runs.
            queues: in strict order, or by weight. Left out: those that have handlers, and `default` for `handler`.
            concurrency: how many jobs it has at a time.
            lease_ms: 1 s to 12 h. Leases are extended three times as often; a worker that vanishes loses its jobs
                after so long.
            wait_ms: how long the server holds a request for jobs while there are none; at most 60,000.
            time_limit_s: an attempt that takes longer fails.
            stop_s: how long a stop lets handlers finish; then their jobs are released.
        """
        if concurrency < 1:
            raise ValueError("concurrency must be >= 1")
        if not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
            raise ValueError(f"lease_ms must be {LEASE_MS_MIN} to {LEASE_MS_MAX}")
        if time_limit_s is not None and time_limit_s <= 0:
            raise ValueError("time_limit_s must be > 0")
        self.url, self.key, self.queues = url, key, queues
        self.concurrency, self.lease_ms, self.wait_ms = concurrency, lease_ms, wait_ms
        self.time_limit_s, self.stop_s = time_limit_s, stop_s
        self.worker_id = worker_id or f"{socket.gethostname()[:80]}-{os.getpid()}-{new_key()[:6]}"
        self.middleware, self.codec = list(middleware), codec
        self.logger = logger or logging.getLogger("fastq.worker")
        self.retries = Retries(for_s=None)
        self.tls, self.transport = tls, transport
        self.left_behind = 0
        """How many handlers the last stop had to leave in their threads: Python waits for these before it ends."""
        self._fallback = None if handler is None else Handler.of(handler)
        self._handlers: dict[str, Handler] = {}
        self._run: WorkerRun | None = None

    # --- handlers -----------------------------------------------------------------------------------------------------

    def handles(self, queue: str, payload_type: Any = None, *, in_process: bool = False) -> Callable[[F], F]:
        """A decorator: jobs of that queue go to this function.

        Args:
            payload_type: what the payload is decoded as. Left out: the T of the parameter's annotation `Job[T]`.
            in_process: run it in a process of its own, which is killed when the work is not wanted any more. The
                function must be one that another process can import, payload and result what it can pickle.
        """

        def register(function: F) -> F:
            if queue in self._handlers:
                raise ValueError(f"queue {queue!r} has a handler already")
            self._handlers[queue] = Handler.of(function, payload_type, in_process)
            return function

        return register

    def handler_of(self, queue: str) -> Handler | None:
        return self._handlers.get(queue, self._fallback)

    @property
    def asked_queues(self) -> Sequence[str] | Mapping[str, int]:
        """Raises ValueError if there is nothing to do."""
        if not self._handlers and self._fallback is None:
            raise ValueError("the worker has no handler")
        own = [*self._handlers, *(["default"] if self._fallback is not None else [])]
        queues = self.queues or list(dict.fromkeys(own))
        if missing := [queue for queue in queues if self.handler_of(queue) is None]:
            raise ValueError(f"no handler for queue {missing[0]!r}")
        return queues

    # --- life ---------------------------------------------------------------------------------------------------------

    def run(self, *, burst: bool = False) -> None:
        """Work until SIGINT or SIGTERM; a second one does not wait for handlers. Raises as `run_async`."""
        uvloop.run(self._until_signal(burst))

    async def run_async(self, *, burst: bool = False) -> None:
        """Work until `stop`; with `burst` until no job is ready and none runs.

        It goes on through whatever passes by itself. Raises Refused if the server does not take its key or its
        request, when its handlers have finished.
        """
        if self._run is not None:
            raise RuntimeError("the worker runs already")
        client = AsyncClient(
            self.url, self.key, retries=self.retries, codec=self.codec, tls=self.tls, transport=self.transport
        )
        try:
            self._run = WorkerRun(self, client, burst)
            await self._run.run()
        finally:
            self._run = None
            await client.close()

    def stop(self) -> None:
        """Lease no more, let handlers finish. Called again: release what they have not finished. In the loop's thread.

        Before it runs this does nothing.
        """
        if self._run is not None:
            self._run.stop()

    async def _until_signal(self, burst: bool) -> None:
        if threading.current_thread() is threading.main_thread():  # others get no signals
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.stop)
        await self.run_async(burst=burst)
