"""Who waits: lease requests for a job, readers for a job's end. Woken by the event, never by polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fastq import _core
from fastq._core import Leased
from fastq.engine.commands import Connection, Lease, Principal
from fastq.errors import ApiError

NEVER_US = 1 << 62

Grant = Callable[[Principal, Lease], list[Leased]]
"""What is ready now for a request. Raises ApiError."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One request. `granted` gets its leases, or none when it is over."""

    who: Principal
    command: Lease
    granted: asyncio.Future[list[Leased]]
    is_over: bool = False


@dataclass(slots=True)
class WaitList:
    """Who waits, by queue, in the order in which they came. A dict is an ordered set that forgets in O(1)."""

    _by_queue: dict[str, dict[Waiter, None]] = field(default_factory=dict)
    _by_request: dict[tuple[str, str], Waiter] = field(default_factory=dict)
    count: int = 0

    def add(self, waiter: Waiter) -> None:
        """The same request_id once more takes the place of the request before it, whose client has given up."""
        if request_id := waiter.command.request_id:
            key = (waiter.who.key_id, request_id)
            if (before := self._by_request.get(key)) is not None:
                self.end(before, [])
            self._by_request[key] = waiter
        for queue in waiter.command.queues:
            self._by_queue.setdefault(queue, {})[waiter] = None
        self.count += 1

    def first(self, queue: str) -> Waiter | None:
        """Who has waited longest for a job of this queue."""
        return next(iter(self._by_queue.get(queue, ())), None)

    def waiting_for(self, queue: str) -> int:
        """How many wait for a job of this queue."""
        return len(self._by_queue.get(queue, ()))

    def end(self, waiter: Waiter, leased: list[Leased]) -> None:
        """Its wait is over, if it is not already."""
        if waiter.is_over:
            return
        waiter.is_over = True
        if not waiter.granted.done():  # else its task was cancelled
            waiter.granted.set_result(leased)
        for queue in waiter.command.queues:
            waiting = self._by_queue[queue]
            waiting.pop(waiter, None)
            if not waiting:
                del self._by_queue[queue]
        if request_id := waiter.command.request_id:
            self._by_request.pop((waiter.who.key_id, request_id), None)
        self.count -= 1

    def end_all(self) -> None:
        """The server stops: everybody gets nothing."""
        for waiting in list(self._by_queue.values()):
            for waiter in list(waiting):
                self.end(waiter, [])


class LeaseWaiters:
    """Lease requests that wait. Jobs that become ready are offered to them before each commit, first come first served.

    What a rate limit holds back is offered again when it lets the next lease go: see `next_due_us`.
    """

    def __init__(self, core: _core.Core, grant: Grant, look_at_time: Callable[[], None]) -> None:
        """
        Args:
            look_at_time: called when `next_due_us` may have become earlier.
        """
        self._core, self._grant, self._look_at_time = core, grant, look_at_time
        self._list = WaitList()
        self._touched: set[str] = set()  # queues in which jobs are ready that nobody who waits was offered yet
        self._rate_due: dict[str, int] = {}  # queues somebody waits for: when their rate limit lets the next lease go
        self.next_due_us = NEVER_US  # the first of these

    @property
    def count(self) -> int:
        return self._list.count

    def waiting_for(self, queue: str) -> int:
        """How many wait for a job of this queue."""
        return self._list.waiting_for(queue)

    async def wait(self, who: Principal, command: Lease, connection: Connection | None) -> list[Leased]:
        """The leases, as soon as there are some; none after `wait_ms`, when the connection closes, or at a drain."""
        loop = asyncio.get_running_loop()
        waiter = Waiter(who, command, loop.create_future())
        self._list.add(waiter)
        self._core.watching = True
        over = loop.call_later(command.wait_ms / 1000, self._list.end, waiter, [])
        forget = connection.on_close(lambda: self._list.end(waiter, [])) if connection is not None else None
        for queue in command.queues:
            self._note_rate(queue)
        self._look_at_time()
        try:
            return await waiter.granted
        finally:
            over.cancel()
            self._list.end(waiter, [])
            if forget is not None:
                forget()

    def serve(self) -> None:
        """Offer the jobs that became ready to those who wait, in the order in which they came."""
        if not self._core.watching:
            return
        self._touched |= self._core.take_touched()
        while self._touched:
            queue = next(iter(self._touched))
            waiter = self._list.first(queue)
            if waiter is None:
                self._touched.discard(queue)
                continue
            if waiter.granted.done():  # cancelled: it has not left the list yet
                self._list.end(waiter, [])
                continue
            try:
                leased = self._grant(waiter.who, waiter.command)
            except ApiError:
                return  # no room now: they are offered again with the next frame
            if leased:
                self._list.end(waiter, leased)
            else:
                self._touched.discard(queue)
                self._note_rate(queue)
        self._core.watching = self._list.count > 0

    def end_all(self) -> None:
        """The server stops: everybody gets nothing."""
        self._list.end_all()

    def look_at_rates(self, now_us: int) -> None:
        """Have the queues served next whose rate limit lets a lease go by now."""
        for queue in [queue for queue, due_us in self._rate_due.items() if due_us <= now_us]:
            del self._rate_due[queue]
            self._touched.add(queue)
        self.next_due_us = min(self._rate_due.values(), default=NEVER_US)

    def _note_rate(self, queue: str) -> None:
        if due_us := self._core.rate_due_us(queue):
            self._rate_due[queue] = due_us
            self.next_due_us = min(self._rate_due.values())


class EndWaiters:
    """Readers that wait for a job's end: told before each commit."""

    def __init__(self, core: _core.Core) -> None:
        self._core = core
        self._ends: dict[str, set[asyncio.Future[None]]] = {}

    @property
    def count(self) -> int:
        """Of jobs whose end somebody waits for."""
        return len(self._ends)

    async def wait(self, job_id: str, wait_ms: int, connection: Connection | None) -> None:
        """Return when the job has ended or is removed, after `wait_ms`, when the connection closes, or at a drain.

        Raises:
            JobNotFound.
        """
        loop = asyncio.get_running_loop()
        self._core.watch_end(job_id)
        ended: asyncio.Future[None] = loop.create_future()
        waiting = self._ends.setdefault(job_id, set())
        waiting.add(ended)
        over = loop.call_later(wait_ms / 1000, _finish, ended)
        forget = None if connection is None else connection.on_close(lambda: _finish(ended))
        try:
            await ended
        finally:
            over.cancel()
            if forget is not None:
                forget()
            waiting.discard(ended)
            if not waiting and self._ends.get(job_id) is waiting:
                del self._ends[job_id]
                self._core.unwatch_end(job_id)

    def tell(self) -> None:
        """Wake those whose job has ended."""
        if self._ends:
            for job_id in self._core.take_ended():
                for ended in self._ends.pop(job_id, ()):
                    _finish(ended)

    def end_all(self) -> None:
        """The server stops: everybody looks at the job as it is now."""
        for waiting in self._ends.values():
            for ended in waiting:
                _finish(ended)


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
