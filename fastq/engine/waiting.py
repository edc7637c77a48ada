"""Requests that wait: leases for a job, readers for a job's end. An event wakes them; nothing polls.

A wait also ends when its key changes or expires: the next request of the client learns why.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from heapq import heappop, heappush

from fastq import _core
from fastq._core import JobView, Leased
from fastq.engine.commands import NEVER_US, Connection, Lease, Principal
from fastq.errors import ApiError

LATE_US, LATE_MAX = 5_000_000, 10_000  # see `EndWaiters`; the core keeps only ends that are as young
SERVED_AT_ONCE = 100  # leases for waiting requests before the loop does other work

Grant = Callable[[Principal, Lease], list[Leased]]
"""Leases jobs that are ready now for a request. Raises ApiError."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One lease request. `granted` is set to its leases, or to none when its wait ends."""

    who: Principal
    command: Lease
    granted: asyncio.Future[list[Leased]]
    is_over: bool = False


@dataclass(slots=True)
class WaitList:
    """Waiting lease requests by queue, in order of arrival. An OrderedDict finds and removes its first in O(1)."""

    _by_queue: dict[str, OrderedDict[Waiter, None]] = field(default_factory=dict)
    _by_request: dict[tuple[str, str], Waiter] = field(default_factory=dict)
    count: int = 0

    def add(self, waiter: Waiter) -> None:
        """Add a request. It ends an earlier one with the same request_id: that client has given up and asks again."""
        if request_id := waiter.command.request_id:
            key = (waiter.who.key_id, request_id)
            if (before := self._by_request.get(key)) is not None:
                self.end(before, [])
            self._by_request[key] = waiter
        for queue in waiter.command.queues:
            self._by_queue.setdefault(queue, OrderedDict())[waiter] = None
        self.count += 1

    def first(self, queue: str) -> Waiter | None:
        """The request that has waited longest for a job of this queue."""
        return next(iter(self._by_queue.get(queue, ())), None)

    def waiting_for(self, queue: str) -> int:
        """How many requests wait for a job of this queue."""
        return len(self._by_queue.get(queue, ()))

    def end(self, waiter: Waiter, leased: list[Leased]) -> None:
        """End a request's wait, unless it has ended."""
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

    def end_of(self, key_ids: Collection[str] | None) -> None:
        """End the waits of these keys without a lease; None: all waits."""
        for waiting in list(self._by_queue.values()):
            for waiter in list(waiting):
                if key_ids is None or waiter.who.key_id in key_ids:
                    self.end(waiter, [])


class LeaseWaiters:
    """Lease requests that wait. Jobs that became ready are offered to them before each commit, oldest first.

    Jobs that a rate limit holds back are offered again when it allows the next lease: see `next_due_us`. No call takes
    longer when more requests wait.
    """

    def __init__(
        self,
        core: _core.Core,
        grant: Grant,
        take_back: Callable[[list[Leased]], None],
        now_us: Callable[[], int],
        on_due_changed: Callable[[], None],
    ) -> None:
        """
        Args:
            take_back: gives leases back whose request was cancelled before it learned of them.
            on_due_changed: called when `next_due_us` may have become earlier.
        """
        self._core, self._grant, self._take_back = core, grant, take_back
        self._now_us, self._on_due_changed = now_us, on_due_changed
        self._list = WaitList()
        self._touched: set[str] = set()  # queues with ready jobs that no waiting request was offered yet
        self._rate_due: dict[str, int] = {}  # when the rate limit of a waited-for queue allows the next lease
        self._rate_heap: list[tuple[int, str]] = []  # the same, the earliest first; other entries are outdated
        self._next_slice: asyncio.Handle | None = None
        self.next_due_us = NEVER_US  # when the first rate limit allows a lease that a request waits for

    @property
    def count(self) -> int:
        return self._list.count

    def waiting_for(self, queue: str) -> int:
        """How many requests wait for a job of this queue."""
        return self._list.waiting_for(queue)

    async def wait(self, who: Principal, command: Lease, connection: Connection | None) -> list[Leased]:
        """Return leases as soon as a job is ready.

        Returns none after `wait_ms`, when the connection closes or the key changes or expires, or at a drain.
        """
        loop = asyncio.get_running_loop()
        waiter = Waiter(who, command, loop.create_future())
        self._list.add(waiter)
        self._core.watching = True
        over = loop.call_later(_wait_s(command.wait_ms, who, self._now_us()), self._list.end, waiter, [])
        forget = connection.on_close(lambda: self._list.end(waiter, [])) if connection is not None else None
        for queue in command.queues:
            self._note_rate(queue)
        self._on_due_changed()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self._take_back(waiter.granted.result())
            raise
        finally:
            over.cancel()
            self._list.end(waiter, [])
            if forget is not None:
                forget()

    def are_before(self, queues: Collection[str]) -> bool:
        """Whether requests that wait are still to be offered ready jobs of these queues."""
        return any(queue in self._touched and self._list.first(queue) is not None for queue in queues)

    def serve(self) -> None:
        """Offer jobs that became ready to the requests that wait for them, in order of arrival.

        It leases at most SERVED_AT_ONCE jobs; more of them follow in the next turn of the loop.
        """
        if not self._core.watching or self._next_slice is not None:
            return
        self._touched |= self._core.take_touched()
        left = SERVED_AT_ONCE
        while self._touched and left > 0:
            queue = self._touched.pop()
            try:
                left = self._offer(queue, left)
            except ApiError:
                self._touched.add(queue)
                return  # no room now: the jobs are offered again with the next frame
        if self._touched:
            self._next_slice = asyncio.get_running_loop().call_soon(self._serve_more)
        self._core.watching = self._list.count > 0

    def _serve_more(self) -> None:
        self._next_slice = None
        self.serve()

    def _offer(self, queue: str, left: int) -> int:
        """Offer a queue's jobs until about `left` are leased. Returns the rest. Raises DiskFull, Overloaded."""
        while (waiter := self._list.first(queue)) is not None:
            if waiter.granted.done() or waiter.who.expires_us <= self._now_us():
                # Cancelled or expired: it has not left the list yet.
                self._list.end(waiter, [])
                continue
            leased = self._grant(waiter.who, waiter.command)
            if not leased:
                self._note_rate(queue)
                break
            self._list.end(waiter, leased)
            left -= len(leased)
            if left <= 0:
                self._touched.add(queue)
                break
        return left

    def end_of(self, key_ids: Collection[str] | None) -> None:
        """End the waits of these keys without a lease; None: all waits."""
        self._list.end_of(key_ids)

    # --- rate limits --------------------------------------------------------------------------------------------------

    def offer_by_rate(self, now_us: int) -> None:
        """Offer jobs of the queues whose rate limit allows a lease by now, with the next `serve`."""
        while self.next_due_us <= now_us:
            _, queue = heappop(self._rate_heap)
            del self._rate_due[queue]
            self._touched.add(queue)
            self._find_next_due()

    def _note_rate(self, queue: str) -> None:
        due_us = self._core.rate_due_us(queue)
        if due_us and self._rate_due.get(queue) != due_us:
            self._rate_due[queue] = due_us
            heappush(self._rate_heap, (due_us, queue))
            self._find_next_due()

    def _find_next_due(self) -> None:
        heap = self._rate_heap
        while heap and self._rate_due.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        self.next_due_us = heap[0][0] if heap else NEVER_US


class EndWaiters:
    """Readers that wait for a job's end. They are woken before each commit.

    A reader gets the job as it ended, also if retention has removed it by then. It may come a little late: the client
    submits, and then asks to wait. So ends that retention removed at once are kept for LATE_US, at most LATE_MAX.
    """

    def __init__(self, core: _core.Core, now_us: Callable[[], int]) -> None:
        self._core, self._now_us = core, now_us
        self._ends: dict[str, dict[asyncio.Future[JobView | None], str]] = {}  # job_id -> its readers' key_ids
        self._late: OrderedDict[str, JobView] = OrderedDict()

    @property
    def count(self) -> int:
        """How many jobs have a reader that waits for their end."""
        return len(self._ends)

    async def wait(self, who: Principal, job_id: str, wait_ms: int, connection: Connection | None) -> JobView | None:
        """Return the job as it ended.

        None: it was removed, `wait_ms` passed, the connection closed, the key changed or expired, or a drain began.

        Raises:
            JobNotFound.
        """
        loop = asyncio.get_running_loop()
        self._core.watch_end(job_id)
        ended: asyncio.Future[JobView | None] = loop.create_future()
        waiting = self._ends.setdefault(job_id, {})
        waiting[ended] = who.key_id
        over = loop.call_later(_wait_s(wait_ms, who, self._now_us()), _finish, ended)
        forget = None if connection is None else connection.on_close(lambda: _finish(ended))
        try:
            return await ended
        finally:
            over.cancel()
            if forget is not None:
                forget()
            waiting.pop(ended, None)
            if not waiting and self._ends.get(job_id) is waiting:
                del self._ends[job_id]
                self._core.unwatch_end(job_id)

    def wake_ended(self) -> None:
        """Wake the readers whose job has ended."""
        if not self._core.has_ends():
            return
        for job_id, view in self._core.take_ended():  # also those whose readers are gone: the list must not grow
            for ended in self._ends.pop(job_id, ()):
                _finish(ended, view)
        for view in self._core.take_forgotten():
            self._late[view.job_id] = view
            if len(self._late) > LATE_MAX:
                self._late.popitem(last=False)

    def late(self, job_id: str, now_us: int) -> JobView | None:
        """A job as it ended that retention has removed since, within LATE_US."""
        while self._late and next(iter(self._late.values())).ended_us <= now_us - LATE_US:
            self._late.popitem(last=False)
        return self._late.get(job_id)

    def end_of(self, key_ids: Collection[str] | None) -> None:
        """Wake the readers of these keys, who read the job as it is; None: all readers."""
        for waiting in self._ends.values():
            for ended, key_id in waiting.items():
                if key_ids is None or key_id in key_ids:
                    _finish(ended)


def _wait_s(wait_ms: int, who: Principal, now_us: int) -> float:
    """How long a request may wait: no longer than its key is valid."""
    return min(wait_ms / 1000, max(0, who.expires_us - now_us) / 1_000_000)


def _finish(ended: asyncio.Future[JobView | None], view: JobView | None = None) -> None:
    if not ended.done():
        ended.set_result(view)
