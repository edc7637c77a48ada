"""The slots of a worker: running jobs, and prefetched jobs that wait for a slot."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastq.client import tracing
from fastq.client.acks import AckSender
from fastq.client.async_client import AsyncClient
from fastq.client.errors import LeaseGone, ProcessFailed
from fastq.client.handlers import Function, Handler, wrapped
from fastq.client.job import WHY, Cut, Job
from fastq.client.logs import is_short
from fastq.client.loops import HANDLING
from fastq.client.models import Ack, Held, LeasedJob
from fastq.client.outcome_models import Outcome
from fastq.client.outcomes import Ended, Raised, ack_of, ended, ended_by, text_of
from fastq.client.processes import Children, preparation
from fastq.client.progress import Reports
from fastq.client.threads import DaemonThreads
from fastq.clock import monotonic_us

if TYPE_CHECKING:
    from fastq.client.worker import Worker

PREFETCH_US = 50_000  # prefetch as many jobs as finish in that time, by the recent average
PREFETCH_MAX = 1000
THREADS_MAX = 100_000  # the slots are the limit
STALL_S = 0.5  # if no job starts for that long, prefetched jobs are released
NEWEST_WEIGHT = 0.25  # of the last job, in the moving average


@dataclass(eq=False, slots=True)
class Attempt:
    """A running handler. It keeps its slot until it returns, even if its outcome is `settled` before."""

    job: Job[Any]
    handler: Handler
    begun_us: int
    task: asyncio.Task[Ended]
    kill: Callable[[], object] | None = None
    limit: asyncio.TimerHandle | None = None
    settled: bool = False


class Slots:
    def __init__(self, worker: Worker, acks: AckSender, client: AsyncClient, changed: Callable[[], None]) -> None:
        """changed: called when a slot becomes free."""
        self._worker, self._acks, self._changed = worker, acks, changed
        self._log = worker.log
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self.reports = Reports(client, self.heard, worker.log)
        self._threads = DaemonThreads(THREADS_MAX, "fastq-handler")
        self._children = Children(worker.processes, preparation(worker.logger))
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
    def free_processes(self) -> int:
        return self._children.free

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
        except BaseException as error:  # noqa: BLE001 -- a codec raises anything
            text = f"the payload does not match the handler's type: {text_of(error)}"
            self._acks.add(leased, Ack.error(leased, text, code="bad_payload"))
            return
        job = Job(leased, payload, worker.logger, self.reports.report)
        task: asyncio.Task[Ended] = self._loop.create_task(self._attempted(handler, job))
        attempt = self._busy[token] = Attempt(job, handler, monotonic_us(), task)
        self.reports.open(token)
        self._none_busy.clear()
        if handler.is_async:
            attempt.kill = task.cancel
        if not handler.in_process:
            self._limit(attempt)
        task.add_done_callback(partial(self._ended, attempt))

    def _limit(self, attempt: Attempt) -> None:
        """Start the time limit of an attempt. That of a process starts when its handler is called."""
        limit_s = self._worker.time_limit_s
        if limit_s is not None and not attempt.task.done():
            attempt.limit = self._loop.call_later(limit_s, self.cut, attempt.job.leased.lease_token, "time_limit")

    async def _attempted(self, handler: Handler, job: Job[Any]) -> Ended:
        """The outcome of one attempt. It never raises: an exception that leaves a task can end the event loop."""
        try:
            if handler.is_async:
                HANDLING.set(job.job_id)
            middleware = self._worker.middleware
            if middleware or tracing.is_enabled():
                rest = wrapped(lambda: self._value(handler, job), job, (tracing.traced, *middleware))
                value = await rest()
            else:
                value = await (handler.function(job) if handler.is_async else self._value(handler, job))
        except BaseException as error:  # noqa: BLE001 -- a handler or a middleware raises anything
            value = ended_by(error)
        if os.getpid() != self._process:  # a fork of the handler came back from it
            os._exit(0)
        return value

    async def _value(self, handler: Handler, job: Job[Any]) -> Any:
        """What the handler returns, or the `Outcome` that it raises. Raises what else it raises."""
        if handler.is_async:
            return await _awaited(handler.function(job))
        if handler.in_process:
            return await self._value_of_process(handler, job)
        context = contextvars.copy_context()
        outcome = await self._loop.run_in_executor(self._threads, context.run, self._call, handler.function, job)
        if type(outcome) is Raised:
            raise outcome.error
        if not isinstance(outcome, Coroutine):  # asyncio.iscoroutine takes a generator for one
            return outcome
        attempt = self._busy[job.leased.lease_token]
        attempt.kill = attempt.task.cancel
        return await _awaited(outcome)

    def _call(self, function: Function, job: Job[Any]) -> Ended:
        """Call a handler in a thread."""
        outcome = ended(function, job)
        if os.getpid() != self._process:
            os._exit(0)
        return outcome

    async def _value_of_process(self, handler: Handler, job: Job[Any]) -> Any:
        attempt = self._busy[job.leased.lease_token]

        def on(what: str, *told: Any) -> None:
            if what == "progress":
                job.progress(*told)
            elif what == "started":
                self._loop.call_soon_threadsafe(self._limit, attempt)
            else:
                self._log.handle(logging.makeLogRecord(*told))

        attempt.kill = attempt.task.cancel  # while it waits for a process
        async with self._children.one() as child:
            attempt.kill = child.kill
            try:
                return await self._loop.run_in_executor(
                    self._threads, child.run, handler.function, job.leased, job.payload, self._worker.logger.name, on
                )
            except ProcessFailed:
                if job.cut is not None:  # the worker killed it
                    raise LeaseGone(WHY[job.cut]) from None
                raise

    def _ended(self, attempt: Attempt, task: asyncio.Task[Ended]) -> None:
        """Free the slot and start the next job."""
        token = attempt.job.leased.lease_token
        del self._busy[token]
        attempt.kill = None
        if attempt.limit is not None:
            attempt.limit.cancel()
        self._job_us += NEWEST_WEIGHT * (monotonic_us() - attempt.begun_us - self._job_us)
        if not attempt.settled:
            try:
                if task.cancelled():  # before it began
                    outcome = Raised.of(asyncio.CancelledError())
                elif (error := task.exception()) is not None:  # a signal interrupted it after its handler
                    outcome = Raised.of(error)
                else:
                    outcome = task.result()
                self._settle(attempt, outcome)
                if type(outcome) is Raised:
                    BaseException.with_traceback(outcome.error, None)  # its frames hold the handler's data
            except Exception as fault:  # noqa: BLE001 -- a bug of this package
                self._log.error("bug in the worker: the lease will expire and the job run again", exc_info=fault)
                self.held.pop(token, None)
        self._fill()
        if not self._busy:
            self._none_busy.set()
        if self.free > 0 or self.prefetch:
            self._changed()

    def _settle(self, attempt: Attempt, outcome: Ended = None) -> None:
        attempt.settled = True
        job, token = attempt.job, attempt.job.leased.lease_token
        ack, then = ack_of(job, outcome, self._worker.time_limit_s)
        if ack is None:
            self.reports.drop(token)
            del self.held[token]
            return
        if ack.outcome in ("error", "discard"):
            self._tell_failure(job, ack, outcome)
        self._acks.add(job.leased, ack, then, after=self.reports.close(token))

    def _tell_failure(self, job: Job[Any], ack: Ack, outcome: Ended) -> None:
        error = outcome.error if type(outcome) is Raised and not outcome.is_cut else None
        try:
            error = error if error is None or is_short(error) else None
            job.log.warning("attempt %d failed: %s", job.attempt, ack.result_error, exc_info=error)
        except BaseException:  # noqa: BLE001 -- an exception that cannot be shown, or a log handler of the program
            self._log.warning("job %s: attempt %d failed: %s", job.job_id, job.attempt, ack.result_error)

    # --- heartbeat answers --------------------------------------------------------------------------------------------

    def cut(self, token: str, why: Cut) -> None:
        """Ask the handler to stop. Every reason but `cancelled` decides the outcome at once."""
        attempt = self._busy.get(token)
        if attempt is None or attempt.settled:
            return
        attempt.job.end(why)
        self._log.info("job %s: %s", attempt.job.job_id, WHY[why], extra={"job_id": attempt.job.job_id})
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

    def running(self) -> tuple[str, str]:
        """The handlers that run, and the one that has the event loop now, else "". Thread-safe."""
        attempts = list(self._busy.copy().values())
        current = asyncio.current_task(self._loop)
        names = [f"handler {one.handler.name} of job {one.job.job_id}" for one in attempts]
        at_work = next((name for name, one in zip(names, attempts, strict=True) if one.task is current), "")
        return ", ".join(names) or "no handler", at_work

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


async def _awaited(handling: Awaitable[Any]) -> Any:
    """What an async handler returns, or the `Outcome` that it raises. Raises what else it raises."""
    try:
        return await handling
    except BaseException as error:
        if isinstance(outcome := ended_by(error), Outcome):
            return outcome
        raise
