"""A fastq server for tests: it runs in the test's process, and the test moves its clock.

    def test_mail() -> None:
        with fastq.testing.Server() as server, server.client() as client:
            job_id = client.submit(Mail("ann"), delay_ms=60_000).job_id
            server.advance(60)
            server.work(app.worker)
            assert client.get(job_id).is_successful

It runs the engine, the API and the keys of `fastq serve`; but it keeps the log in memory and listens on no port. Time
stands still between calls of `advance`: no lease expires and no retry becomes due. A request with `wait_ms` waits in
real time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote

from fastq.client.async_client import AsyncClient
from fastq.client.errors import ServerUnreachable
from fastq.client.protocol import Answer, Call
from fastq.client.sync_client import Client
from fastq.client.wire import Reply
from fastq.client.worker import Worker
from fastq.clock import Clock
from fastq.engine import EngineOptions
from fastq.log.memory import MemoryLog
from fastq.server.assembly import Node
from fastq.services.keys import Grants

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)
URL = "http://in-process"
PASSES_MAX = 10_000


class Server:
    """Use it as `with Server() as server:`. It runs in a thread of its own; call it from any other thread."""

    def __init__(
        self, *, start: datetime = START, retry_share: float = 1.0, options: EngineOptions | None = None
    ) -> None:
        """
        Args:
            start: the clock's first time.
            retry_share: 0 to 1: each retry waits this share of its upper bound. `fastq serve` draws it at random.
            options: the engine's options.
        """
        self._now_us = _us(start)
        self._jitter = min(retry_share, 1.0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fastq-testing", daemon=True)
        self._failures: list[BaseException] = []
        self._node = Node(MemoryLog(), options or EngineOptions(), lambda: self._jitter)
        self._running: AsyncExitStack

    def __enter__(self) -> Self:
        self._thread.start()
        self._await(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._await(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # --- clients and workers ------------------------------------------------------------------------------------------

    def key(self, kind: str = "admin", owner_id: str = "test") -> str:
        """Create a key and return its secret. `kind`: `client`, `worker`, or `admin`, which may do everything."""
        made = self._node.keys.create(f"{kind} of {owner_id}", owner_id, kind, self._now_us, grants=Grants())
        secret, _ = self._await(made)
        return secret

    def client(self, kind: str = "admin", owner_id: str = "test") -> Client:
        key = self.key(kind, owner_id)
        return Client(URL, key, transport=_Transport(self, key))

    def async_client(self, kind: str = "admin", owner_id: str = "test") -> AsyncClient:
        return AsyncClient(URL, "-", transport=_AsyncTransport(self, self.key(kind, owner_id)))

    def work(self, worker: Worker) -> None:
        """Run the worker until no job is ready and none runs. Within an event loop use `work_async`."""
        asyncio.run(self.work_async(worker))

    async def work_async(self, worker: Worker) -> None:
        before, worker.transport = worker.transport, _AsyncTransport(self, self.key("worker"))
        try:
            await worker.run_async(burst=True)
        finally:
            worker.transport = before

    # --- clock --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self._now_us)

    def advance(self, by: float | timedelta) -> None:
        """Move the clock forward. Everything that becomes due on the way happens at its own time.

        Args:
            by: a duration; a number is seconds.
        Raises:
            ValueError: it is negative.
        """
        by_us = int((by if isinstance(by, timedelta) else timedelta(seconds=by)) / timedelta(microseconds=1))
        if by_us < 0:
            raise ValueError(f"the clock only moves forward, not by {by}")
        self._await(self._advance(self._now_us + by_us))

    async def _advance(self, until_us: int) -> None:
        passes = 0  # at one time: due work may take many, and work that cannot be done must not stop the clock
        while (next_us := self._next_due_us()) <= until_us and passes < PASSES_MAX:
            passes = passes + 1 if next_us <= self._now_us else 0
            self._now_us = max(self._now_us, next_us)
            await self._run_due()
        self._now_us = until_us
        await self._run_due()

    def _next_due_us(self) -> int:
        engine_us, schedule_us = self._node.engine.due_us, self._node.schedules.due_us
        return engine_us if schedule_us is None else min(engine_us, schedule_us)

    async def _run_due(self) -> None:
        self._node.engine.run_due()
        self._node.queues.resume_due()
        await self._node.schedules.fire_due()
        await self._node.engine.durable()

    # --- start and stop -----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._node.open()
        clock = Clock(self._now_us, lambda: self._now_us, lambda: self._now_us)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._node.running(clock, self._failures.append))
            await self._node.keys.claim()
            await stack.enter_async_context(self._node.serving("testing"))
            self._running = stack.pop_all()

    async def _stop(self) -> None:
        await self._running.aclose()
        if self._failures:
            raise self._failures[0]

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self.hand_over(work).result()

    def hand_over(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def answer(self, call: Call[object], key: str) -> Answer:
        """Answer a request through the API. Runs in the server's event loop."""
        path, _, query = call.path.partition("?")
        headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-length", b"%d" % len(call.body))]
        if call.idempotency_key:
            headers.append((b"idempotency-key", call.idempotency_key.encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": call.method, "scheme": "http", "path": unquote(path), "raw_path": path.encode(),
            "query_string": query.encode(), "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        events = [{"type": "http.request", "body": call.body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if events:
                return events.pop()
            await self._loop.create_future()  # the client stays connected
            return {"type": "http.disconnect"}

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        await self._node.app(scope, receive, send)
        return _answer_of(sent)


def _answer_of(sent: list[dict[str, Any]]) -> Answer:
    """Read the answer with the SDK's own parser: headers get the same meaning."""
    body = b"".join(event.get("body", b"") for event in sent[1:])
    head = [b"HTTP/1.1 %d -" % sent[0]["status"]]
    head += [name + b": " + value for name, value in sent[0].get("headers", []) if name != b"content-length"]
    reply = Reply()
    reply.feed(b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body]))
    assert reply.answer is not None, "a whole answer"
    return reply.answer


class _Transport:
    def __init__(self, server: Server, key: str) -> None:
        self._server, self._key = server, key

    def send(self, call: Call[object], timeout_s: float) -> Answer:
        answering = self._server.hand_over(self._server.answer(call, self._key))
        try:
            return answering.result(timeout_s)
        except TimeoutError as error:
            answering.cancel()
            raise ServerUnreachable(f"no answer within {timeout_s:g} s", sent=True) from error

    def close(self) -> None:
        pass


class _AsyncTransport:
    def __init__(self, server: Server, key: str) -> None:
        self._server, self._key = server, key

    async def send(self, call: Call[object], timeout_s: float) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(self._server.hand_over(self._server.answer(call, self._key)))
        except TimeoutError as error:
            raise ServerUnreachable(f"no answer within {timeout_s:g} s", sent=True) from error

    async def close(self) -> None:
        pass


def _us(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
