"""Lease requests that wait for a job: woken by the event, first come first served, never by polling."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastq._core import Leased
from fastq.engine.commands import Lease, Principal


@dataclass(eq=False, slots=True)
class Waiter:
    """One request. `granted` gets its leases, or none when it is over."""

    who: Principal
    command: Lease
    granted: asyncio.Future[list[Leased]]


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
        if waiter.granted.done():
            return
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
