"""The worker: it leases jobs for its free slots, runs their handlers and acks the outcomes."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fastq.client.async_client import AsyncClient
from fastq.client.async_transport import AsyncTransport, LoopTransport
from fastq.client.child import is_importing
from fastq.client.codec import CODEC, Codec
from fastq.client.handlers import Function, Handler, Middleware
from fastq.client.job import Job
from fastq.client.logs import WorkerLog
from fastq.client.loops import Limits, Signals, run_to_end
from fastq.client.outages import Outages
from fastq.client.processes import check_importable
from fastq.client.protocol import Retries
from fastq.client.randomness import new_key
from fastq.client.sync_client import address_of
from fastq.client.worker_run import WorkerRun

__all__ = ["Job", "Worker"]

F = TypeVar("F", bound=Function)
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LEASE_MS_MIN, LEASE_MS_MAX = 1_000, 12 * 3_600_000


class Worker:
    """Runs handlers on jobs.

    A handler is a function of a `Job`. An async function runs in the event loop, a plain one in a thread or a child
    process. Its return value is the result; `Success`, `Failure` and `Snooze` say more; an exception fails the attempt.
    Delivery is at least once: a job runs again if its lease is lost, so make the effects of a handler idempotent.

        worker = Worker()

        @worker.handles("video")
        async def encode(job: Job[Video]) -> str: ...

        worker.run()
    """

    def __init__(
        self, handler: Function | None = None, *, url: str | None = None, key: str | None = None,
        queues: Sequence[str] | Mapping[str, int] | None = None, concurrency: int = 10, lease_ms: int = 30_000,
        wait_ms: int = 20_000, time_limit_s: float | None = None, stop_s: float = 30.0, worker_id: str | None = None,
        version: str = "",
        processes: int | None = None, middleware: Sequence[Middleware] = (), logger: logging.Logger | None = None,
        codec: Codec = CODEC, tls: ssl.SSLContext | None = None, transport: AsyncTransport | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            handler: for queues without a handler of their own.
            url, key: as for `Client`; read when the worker runs.
            queues: names in strict order, or weights by name. Default: the queues with handlers, and `default` if
                there is a `handler`.
            concurrency: slots: how many handlers run at once.
            lease_ms: milliseconds, 1,000 to 43,200,000. The worker extends its leases three times in that time. The
                jobs of a worker that died run again after it.
            wait_ms: the length of the long poll for jobs, 0 to 60,000 milliseconds.
            time_limit_s: seconds; a longer attempt fails. Default: no limit.
            processes: how many handlers run in processes at once, and so how many processes there are. Default: the
                number of cores that the worker may use, at most `concurrency`.
            stop_s: seconds that a stop waits for handlers before it releases their jobs.
            worker_id: default: host name, process id and a random part.
            version: of the program, shown in the list of workers; at most 64 bytes.
            middleware: called around each attempt; the first one is the outermost.
            codec, tls, transport: as for `AsyncClient`.
        Raises:
            ValueError: an argument is out of range.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency must be >= 1, not {concurrency}")
        if not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
            raise ValueError(f"lease_ms must be {LEASE_MS_MIN} to {LEASE_MS_MAX}, not {lease_ms}")
        if time_limit_s is not None and time_limit_s <= 0:
            raise ValueError(f"time_limit_s must be > 0, not {time_limit_s:g}")
        if processes is not None and processes < 1:
            raise ValueError(f"processes must be >= 1, not {processes}")
        self.url, self.key, self.queues = url, key, queues
        self.concurrency, self.lease_ms, self.wait_ms = concurrency, lease_ms, wait_ms
        self.time_limit_s, self.stop_s = time_limit_s, stop_s
        self.host, self.version = socket.gethostname()[:80], version
        self.worker_id = worker_id or f"{self.host}-{os.getpid()}-{new_key()[:6]}"
        self.middleware, self.codec = list(middleware), codec
        self.logger = logger or logging.getLogger("fastq.worker")
        self.log = WorkerLog(self.logger)
        self.retries = Retries(for_s=None)
        self.tls, self.transport = tls, transport
        self.left_behind = 0
        """How many handlers still ran after the last stop. They end with the process, which does not wait for them."""
        self._fallback = None if handler is None else Handler.of(handler, codec=codec)
        self._handlers: dict[str, Handler] = {}
        self._processes = processes
        self._run: WorkerRun | None = None
        self._signals: Signals | None = None
        self._limits: Limits | None = None
        self._outages: Outages | None = None

    # --- handlers -----------------------------------------------------------------------------------------------------

    def handles(self, queue: str, payload_type: Any = None, *, in_process: bool = False) -> Callable[[F], F]:
        """A decorator that registers a handler for a queue.

        Args:
            payload_type: the class to decode payloads to. Default: T of the parameter annotated `Job[T]`; without an
                annotation JSON types.
            in_process: run it in a child process, which is killed when the job is cancelled or its lease lost. The
                function must be importable, and payload and result picklable.
        Raises:
            ValueError: the queue has a handler, the payload type is not found or cannot be read, or an async function
                has `in_process`.
            TypeError: `queue` is not a name, as under a bare `@worker.handles`.
        """
        if not isinstance(queue, str):
            raise TypeError('handles needs the name of a queue, as in @worker.handles("mail")')

        def register(function: F) -> F:
            if queue in self._handlers:
                raise ValueError(f"queue {queue!r} already has a handler")
            self._handlers[queue] = Handler.of(function, payload_type, in_process, self.codec)
            return function

        return register

    def handler_of(self, queue: str) -> Handler | None:
        """The handler for jobs of the queue, or None."""
        return self._handlers.get(queue, self._fallback)

    @property
    def asked_queues(self) -> Sequence[str] | Mapping[str, int]:
        """The queues to lease from. Raises ValueError: there is no handler, or none for a queue."""
        if not self._handlers and self._fallback is None:
            raise ValueError("the worker has no handler: pass one, or register one with `handles`")
        own = [*self._handlers, *(["default"] if self._fallback is not None else [])]
        queues = self.queues or list(dict.fromkeys(own))
        if missing := [queue for queue in queues if self.handler_of(queue) is None]:
            raise ValueError(f"no handler for queue {missing[0]!r}")
        for queue in queues:
            if (handler := self.handler_of(queue)) is not None and handler.in_process:
                check_importable(queue, handler.function)
        return queues

    @property
    def queues_without_process(self) -> Sequence[str] | Mapping[str, int]:
        """Those of `asked_queues` whose handlers run in the worker itself."""
        asked = self.asked_queues
        handlers = {queue: self.handler_of(queue) for queue in asked}
        kept = [queue for queue, handler in handlers.items() if handler is not None and not handler.in_process]
        return {queue: asked[queue] for queue in kept} if isinstance(asked, Mapping) else kept

    @property
    def processes(self) -> int:
        """How many handlers run in processes at once."""
        return self._processes or min(self.concurrency, _cores())

    @processes.setter
    def processes(self, most: int | None) -> None:
        self._processes = most

    @property
    def description(self) -> str:
        """For people: the queues, slots and the server."""
        asked, alone = self.asked_queues, self.queues_without_process
        slots = self.concurrency if alone else min(self.concurrency, self.processes)
        processes = "" if len(alone) == len(asked) else f", {self.processes} processes"
        server = self._outages.server if self._outages is not None else "a server"
        return f"queues {', '.join(asked)}; {slots} slots{processes}; {server}"

    # --- run and stop -------------------------------------------------------------------------------------------------

    def run(self, *, burst: bool = False) -> None:
        """Work until SIGINT, SIGTERM or SIGHUP. Raises as `run_async`.

        A second signal releases the jobs of running handlers, a third one ends the process. If the program has not
        configured logging, the worker writes its log to stderr.
        """
        if is_importing():
            return
        shown = self._show_log()
        try:
            run_to_end(self._until_signal(burst), self.log)
        finally:
            if shown is not None:
                self.logger.removeHandler(shown)

    async def run_async(self, *, burst: bool = False) -> None:
        """Work until `stop`. Network errors and a busy or absent server are retried without limit.

        Args:
            burst: stop when no job is ready and none runs.
        Raises:
            Refused: the server rejects the key or the request. Raised after the handlers have finished.
            ValueError: a queue has no handler, or the URL or key is malformed.
        """
        if is_importing():
            return
        if self._run is not None:
            raise RuntimeError("the worker is already running")
        if (transport := self.transport) is None:
            address = address_of(self.url, self.key)
            transport, server = LoopTransport(address, self.tls), f"{address.host}:{address.port}"
        else:
            server = type(transport).__name__
        self._outages = Outages(transport, server, self.log)
        client = AsyncClient(retries=self.retries, codec=self.codec, transport=self._outages)
        try:
            self._run = WorkerRun(self, client, burst)
            await self._run.run()
        finally:
            self._run = None
            await client.close()

    def stop(self) -> None:
        """Stop leasing and let handlers finish. A second call releases the jobs of running handlers.

        Call it in the thread of the event loop. It does nothing while the worker is not running.
        """
        if self._run is not None:
            self._run.stop()

    def resize(self, concurrency: int) -> None:
        """Change the number of slots, in the thread of the event loop. Running handlers keep theirs."""
        self.concurrency = concurrency
        if self._run is not None:
            self._run.changed()

    def keep_process(self) -> None:
        """Take back signals and limits of the process that a handler changed. Called by the worker, in `run` only."""
        if self._signals is not None and self._limits is not None:
            self._signals.keep(self.log)
            self._limits.keep(self.log)

    def insist(self) -> None:
        """Interrupt a handler that blocks the event loop and the stop of the worker. Called by the worker."""
        if self._signals is not None:
            self._signals.insist(self.stop_s)

    @property
    def is_server_away(self) -> bool:
        return self._outages is not None and self._outages.is_away

    async def _until_signal(self, burst: bool) -> None:
        self._signals, self._limits = Signals(self.stop), Limits()
        try:
            with self._signals:
                await self.run_async(burst=burst)
        finally:
            self._signals = None

    def _show_log(self) -> logging.Handler | None:
        """Write the worker's log to stderr, unless the program has configured logging."""
        if self.logger.hasHandlers():
            return None
        shown = logging.StreamHandler(sys.stderr)
        shown.setFormatter(logging.Formatter(LOG_FORMAT))
        self.logger.addHandler(shown)
        if self.logger.getEffectiveLevel() > logging.INFO and self.logger.level == logging.NOTSET:
            self.logger.setLevel(logging.INFO)
        return shown


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
