"""The jobs that a worker has: those that its handlers are at work on, and those that are next."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastq.client import tracing
from fastq.client.acks import AckSender
from fastq.client.handlers import Handler, ack_of, wrapped
from fastq.client.job import WHY, Cut, Job, Report
from fastq.client.models import Ack, Held, LeasedJob
from fastq.client.processes import Children
from fastq.clock import monotonic_us

if TYPE_CHECKING:
    from fastq.client.worker import Worker

AHEAD_US = 50_000  # as many jobs are leased ahead as are done in that time, by the recent pace
AHEAD_MAX = 1000
STALE_S = 0.5  # when no job has begun for so long, those that are next go back
NEWEST_SHARE = 0.25  # of the last job, in the recent pace


@dataclass(eq=False, slots=True)
class Attempt:
    """A handler at work. It keeps its slot until it has ended, also if its outcome was decided before (`settled`)."""

    job: Job[Any]
    begun_us: int
    task: asyncio.Future[Any]
    kill: Callable[[], object] | None = None
    limit: asyncio.TimerHandle | None = None
    settled: bool = False


class Slots:
    def __init__(self, worker: Worker, acks: AckSender, report: Report, changed: Callable[[], None]) -> None:
        """changed: called when there may be room for more jobs."""
        self._worker, self._acks, self._report, self._changed = worker, acks, report, changed
        self._log = worker.logger
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(worker.concurrency, "fastq-handler")
        self._children = Children()
        self._next: deque[LeasedJob] = deque()
        self._busy: dict[str, Attempt] = {}  # by token
        self._none_busy = asyncio.Event()
        self._none_busy.set()
        self._job_us = STALE_S * 1e6 * worker.concurrency  # the recent pace: how long a job takes its slot
        self._begun = 0
        self._look: asyncio.TimerHandle | None = None
        self.held: dict[str, LeasedJob] = {}
        """By token: what runs or is next, and what the server was not told of yet."""

    # --- room ---------------------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        return self._worker.concurrency - len(self._busy) - len(self._next)

    @property
    def busy(self) -> int:
        return len(self._busy)

    @property
    def ahead(self) -> int:
        """How many more jobs than there are slots are of use: none if handlers take their time."""
        most = min(AHEAD_MAX, int(AHEAD_US * self._worker.concurrency / self._job_us))
        waiting = len(self._next)
        return most - waiting if 2 * waiting <= most else 0

    # --- in -----------------------------------------------------------------------------------------------------------

    def put(self, jobs: Sequence[LeasedJob]) -> None:
        for job in jobs:
            self.held[job.lease_token] = job
        self._next.extend(jobs)
        self._fill()

    def _fill(self) -> None:
        waiting = self._next
        while waiting and len(self._busy) < self._worker.concurrency:
            self._begin(waiting.popleft())
        if waiting and self._look is None:
            self._look = self._loop.call_later(STALE_S, self._look_again, self._begun)

    def _look_again(self, begun: int) -> None:
        """The handlers that have the slots take longer than was to be expected: others shall have what waits here."""
        self._look = None
        if self._next and begun == self._begun:
            self._job_us = max(self._job_us, STALE_S * 1e6 * self._worker.concurrency)
            self.give_back()
        elif self._next:
            self._look = self._loop.call_later(STALE_S, self._look_again, self._begun)

    def give_back(self) -> None:
        """What has not begun."""
        while self._next:
            leased = self._next.popleft()
            self._acks.add(leased, Ack.release(leased))

    # --- one job ------------------------------------------------------------------------------------------------------

    def _begin(self, leased: LeasedJob) -> None:
        worker, token = self._worker, leased.lease_token
        self._begun += 1
        handler = worker.handler_of(leased.queue)
        if handler is None:  # the server hands out none that was not asked for
            self._acks.add(leased, Ack.release(leased))
            return
        try:
            payload = handler.payload_of(leased, worker.codec)
        except Exception as error:  # noqa: BLE001 -- whatever a codec raises
            self._acks.add(leased, Ack.error(leased, f"the payload is not as expected: {error}", code="bad_payload"))
            return
        job = Job(leased, payload, self._log, self._report)
        task: asyncio.Task[Any] = self._loop.create_task(self._attempted(handler, job))
        attempt = self._busy[token] = Attempt(job, monotonic_us(), task)
        self._none_busy.clear()
        if handler.is_async:
            attempt.kill = task.cancel
        if worker.time_limit_s is not None:
            attempt.limit = self._loop.call_later(worker.time_limit_s, self.cut, token, "time_limit")
        task.add_done_callback(partial(self._ended, attempt))

    async def _attempted(self, handler: Handler, job: Job[Any]) -> Any:
        middleware = self._worker.middleware
        if middleware or tracing.is_there():
            return await wrapped(lambda: self._outcome(handler, job), job, (tracing.traced, *middleware))()
        value = await (handler.function(job) if handler.is_async else self._outcome(handler, job))
        return tracing.followed(value, job.leased.traceparent)

    async def _outcome(self, handler: Handler, job: Job[Any]) -> Any:
        if handler.is_async:
            return await handler.function(job)
        if handler.in_process:
            return await self._outcome_in_process(handler, job)
        context = contextvars.copy_context()
        value = await self._loop.run_in_executor(self._threads, context.run, handler.function, job)
        return await value if asyncio.iscoroutine(value) else value

    async def _outcome_in_process(self, handler: Handler, job: Job[Any]) -> Any:
        child, attempt = self._children.take(), self._busy[job.leased.lease_token]
        attempt.kill = child.kill
        if job.cut is not None:  # before there was anything to kill
            child.kill()
        try:
            return await self._loop.run_in_executor(
                self._threads, child.run, handler.function, job.leased, job.payload, job.progress
            )
        finally:
            attempt.kill = None
            self._children.give_back(child)

    def _ended(self, attempt: Attempt, task: asyncio.Task[Any]) -> None:
        """The slot is free again."""
        token = attempt.job.leased.lease_token
        del self._busy[token]
        if attempt.limit is not None:
            attempt.limit.cancel()
        self._job_us += NEWEST_SHARE * (monotonic_us() - attempt.begun_us - self._job_us)
        error: BaseException | None = None if task.cancelled() else task.exception()  # seen: else the loop reports it
        if not attempt.settled:
            try:
                self._settle(attempt, error)
            except Exception as fault:  # noqa: BLE001 -- ours, whatever it is
                self._log.error("a fault in the worker itself: the lease runs out", exc_info=fault)
                self.held.pop(token, None)
        self._fill()
        if not self._busy:
            self._none_busy.set()
        if self.free > 0 or self.ahead:
            self._changed()

    def _settle(self, attempt: Attempt, error: BaseException | None = None) -> None:
        attempt.settled = True
        job = attempt.job
        ack, then = ack_of(job, attempt.task, self._worker.time_limit_s)
        if ack is None:
            del self.held[job.leased.lease_token]
            return
        if ack.outcome in ("error", "discard"):
            job.log.warning("attempt %d failed: %s", job.attempt, ack.result_error, exc_info=error)
        self._acks.add(job.leased, ack, then)

    # --- told from outside --------------------------------------------------------------------------------------------

    def cut(self, token: str, why: Cut) -> None:
        """Tell the handler that its work is not wanted; but for a cancelled job that decides the outcome."""
        attempt = self._busy.get(token)
        if attempt is None or attempt.settled:
            return
        attempt.job.end(why)
        attempt.job.log.info("%s", WHY[why])
        if why != "cancelled":
            self._settle(attempt)
        if attempt.kill is not None:
            attempt.kill()

    def heard(self, token: str, answer: Held) -> None:
        """What the server says of a lease."""
        if (attempt := self._busy.get(token)) is None:
            self._heard_of_next(token, answer)
        elif answer.code:
            self.cut(token, "lost")
        elif answer.cancel_requested and attempt.job.cut is None:
            self.cut(token, "cancelled")

    def _heard_of_next(self, token: str, answer: Held) -> None:
        waiting = next((job for job in self._next if job.lease_token == token), None)
        if waiting is None or not (answer.code or answer.cancel_requested):
            return
        self._next.remove(waiting)
        if answer.code:
            del self.held[token]
        else:
            self._acks.add(waiting, Ack.release(waiting))

    # --- the end ------------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """What still runs goes back, and is told so."""
        for token in list(self._busy):
            self.cut(token, "released")

    async def all_free(self) -> None:
        await self._none_busy.wait()

    def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._children.end()
