"""The slots of a worker: running jobs, and prefetched jobs that wait for a slot."""

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

PREFETCH_US = 50_000  # prefetch as many jobs as finish in that time, by the recent average
PREFETCH_MAX = 1000
STALL_S = 0.5  # if no job starts for that long, prefetched jobs are released
NEWEST_WEIGHT = 0.25  # of the last job, in the moving average


@dataclass(eq=False, slots=True)
class Attempt:
    """A running handler. It keeps its slot until it returns, even if its outcome is `settled` before."""

    job: Job[Any]
    begun_us: int
    task: asyncio.Future[Any]
    kill: Callable[[], object] | None = None
    limit: asyncio.TimerHandle | None = None
    settled: bool = False


class Slots:
    def __init__(self, worker: Worker, acks: AckSender, report: Report, changed: Callable[[], None]) -> None:
        """changed: called when a slot becomes free."""
        self._worker, self._acks, self._report, self._changed = worker, acks, report, changed
        self._log = worker.logger
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(worker.concurrency, "fastq-handler")
        self._children = Children()
        self._prefetched: deque[LeasedJob] = deque()
        self._busy: dict[str, Attempt] = {}  # by lease token
        self._none_busy = asyncio.Event()
        self._none_busy.set()
        self._job_us = STALL_S * 1e6 * worker.concurrency  # moving average of the time that a job has its slot
        self._started = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self.held: dict[str, LeasedJob] = {}
        """By lease token: running jobs, prefetched jobs, and jobs whose outcome has no answer yet."""

    # --- free slots ---------------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        return self._worker.concurrency - len(self._busy) - len(self._prefetched)

    @property
    def busy(self) -> int:
        return len(self._busy)

    @property
    def prefetch(self) -> int:
        """How many more jobs to prefetch. Zero for slow handlers."""
        most = min(PREFETCH_MAX, int(PREFETCH_US * self._worker.concurrency / self._job_us))
        waiting = len(self._prefetched)
        return most - waiting if 2 * waiting <= most else 0

    # --- prefetched jobs ----------------------------------------------------------------------------------------------

    def put(self, jobs: Sequence[LeasedJob]) -> None:
        for job in jobs:
            self.held[job.lease_token] = job
        self._prefetched.extend(jobs)
        self._fill()

    def _fill(self) -> None:
        waiting = self._prefetched
        while waiting and len(self._busy) < self._worker.concurrency:
            self._begin(waiting.popleft())
        if waiting and self._stall_timer is None:
            self._stall_timer = self._loop.call_later(STALL_S, self._check_stall, self._started)

    def _check_stall(self, started: int) -> None:
        """Release prefetched jobs if no handler ended since: other workers can run them sooner."""
        self._stall_timer = None
        if self._prefetched and started == self._started:
            self._job_us = max(self._job_us, STALL_S * 1e6 * self._worker.concurrency)
            self.release_prefetched()
        elif self._prefetched:
            self._stall_timer = self._loop.call_later(STALL_S, self._check_stall, self._started)

    def release_prefetched(self) -> None:
        """Release the prefetched jobs."""
        while self._prefetched:
            leased = self._prefetched.popleft()
            self._acks.add(leased, Ack.release(leased))

    # --- one job ------------------------------------------------------------------------------------------------------

    def _begin(self, leased: LeasedJob) -> None:
        worker, token = self._worker, leased.lease_token
        self._started += 1
        handler = worker.handler_of(leased.queue)
        if handler is None:  # unreachable: the server leases only from the requested queues
            self._acks.add(leased, Ack.release(leased))
            return
        try:
            payload = handler.payload_of(leased, worker.codec)
        except Exception as error:  # noqa: BLE001 -- a codec raises anything
            self._acks.add(
                leased, Ack.error(leased, f"the payload does not match the handler's type: {error}", code="bad_payload")
            )
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
        if middleware or tracing.is_enabled():
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
        if job.cut is not None:  # cut before the child was assigned
            child.kill()
        try:
            return await self._loop.run_in_executor(
                self._threads, child.run, handler.function, job.leased, job.payload, job.progress
            )
        finally:
            attempt.kill = None
            self._children.give_back(child)

    def _ended(self, attempt: Attempt, task: asyncio.Task[Any]) -> None:
        """Free the slot and start the next job."""
        token = attempt.job.leased.lease_token
        del self._busy[token]
        if attempt.limit is not None:
            attempt.limit.cancel()
        self._job_us += NEWEST_WEIGHT * (monotonic_us() - attempt.begun_us - self._job_us)
        error: BaseException | None = None if task.cancelled() else task.exception()  # retrieved, else the loop logs it
        if not attempt.settled:
            try:
                self._settle(attempt, error)
            except Exception as fault:  # noqa: BLE001 -- a bug of this package
                self._log.error("bug in the worker: the lease will expire and the job run again", exc_info=fault)
                self.held.pop(token, None)
        self._fill()
        if not self._busy:
            self._none_busy.set()
        if self.free > 0 or self.prefetch:
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

    # --- heartbeat answers --------------------------------------------------------------------------------------------

    def cut(self, token: str, why: Cut) -> None:
        """Ask the handler to stop. Every reason but `cancelled` decides the outcome at once."""
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
        """Handle the answer of a heartbeat for one lease."""
        if (attempt := self._busy.get(token)) is None:
            self._heard_of_prefetched(token, answer)
        elif answer.code:
            self.cut(token, "lost")
        elif answer.cancel_requested and attempt.job.cut is None:
            self.cut(token, "cancelled")

    def _heard_of_prefetched(self, token: str, answer: Held) -> None:
        waiting = next((job for job in self._prefetched if job.lease_token == token), None)
        if waiting is None or not (answer.code or answer.cancel_requested):
            return
        self._prefetched.remove(waiting)
        if answer.code:
            del self.held[token]
        else:
            self._acks.add(waiting, Ack.release(waiting))

    # --- the end ------------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Release the running jobs and ask their handlers to stop."""
        for token in list(self._busy):
            self.cut(token, "released")

    async def all_free(self) -> None:
        """Wait until no handler runs."""
        await self._none_busy.wait()

    def close(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._children.end()
