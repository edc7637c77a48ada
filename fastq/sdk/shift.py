"""One run of a worker, from its start to its stop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastq.clock import monotonic_us
from fastq.sdk.acker import Acker
from fastq.sdk.async_client import AsyncClient
from fastq.sdk.chance import new_key, share
from fastq.sdk.errors import BadRequest, ClientError, Forbidden, Refused, Unauthenticated
from fastq.sdk.handlers import Handler, ack_of, wrapped
from fastq.sdk.job import WHY, Cut, Job
from fastq.sdk.models import Ack, Held, LeasedJob
from fastq.sdk.processes import Children
from fastq.sdk.protocol import Retries
from fastq.sdk.tracing import traced

if TYPE_CHECKING:
    from fastq.sdk.worker import Worker

LEASES_MAX = 1000  # of one request
BEATS_MAX = 10_000  # of one heartbeat
BEATS_A_LEASE = 3
UNTOLD_MAX = 5_000  # outcomes that the server was not told of yet, before no more jobs are asked for
EARLY_S = 0.5  # an empty answer that came sooner is not followed by the next request at once
LAST_WORDS_S = 10.0  # how long a stop tries to tell the server
FINAL = (BadRequest, Unauthenticated, Forbidden)  # nothing will change by trying again


@dataclass
class Attempt:
    """A handler at work. `cut_off` is done as soon as its outcome does not count any more; a thread has no `kill`."""

    job: Job[Any]
    cut_off: asyncio.Future[None]
    kill: Callable[[], object] | None = None


class Shift:
    def __init__(self, worker: Worker, client: AsyncClient, burst: bool = False) -> None:
        """burst: stop as soon as no job is ready and none runs. Raises ValueError if the worker cannot run as it is."""
        self._worker, self._client, self._log = worker, client, worker.logger
        self._queues = worker.asked_queues
        self._wait_ms = 0 if burst else worker.wait_ms
        self._burst = burst
        self._loop = asyncio.get_running_loop()
        self._acker = Acker(client, worker.codec, worker.retries, self._told, worker.logger)
        self._threads = ThreadPoolExecutor(worker.concurrency, "fastq-handler")
        self._held: dict[str, LeasedJob] = {}  # by token: what runs, and what the server was not told of yet
        self._children = Children()
        self._running: dict[str, Attempt] = {}  # by token
        self._fault: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reports: set[asyncio.Task[None]] = set()
        self._stopping, self._hurry, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def stop(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        self._changed.set()

    async def run(self) -> None:
        """Raises Refused."""
        worker = self._worker
        self._log.info("worker %s leases from %s", worker.worker_id, ", ".join(self._queues))
        helpers = [self._loop.create_task(self._acker.run()), self._loop.create_task(self._beat())]
        for helper in helpers:
            helper.add_done_callback(self._helper_ended)
        try:
            await self._lease_until_stopped()
        finally:
            self._stopping.set()
            await self._finish()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._children.end()
            self._log.info("worker %s has stopped", worker.worker_id)
        if self._fault is not None:
            raise self._fault

    def _helper_ended(self, helper: asyncio.Task[None]) -> None:
        """Without it nothing goes on as it should: end, and say why."""
        if not helper.cancelled() and (error := helper.exception()) is not None:
            self._fault = error
            self.stop()

    # --- leasing ------------------------------------------------------------------------------------------------------

    async def _lease_until_stopped(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            if self._free_slots() < 1:
                self._changed.clear()
                await self._changed.wait()
                continue
            asked_us = monotonic_us()
            self._changed.clear()
            try:
                jobs = await self._lease()
            except FINAL:
                raise
            except ClientError as error:
                failures += 1
                self._log.warning("no jobs are handed out, trying again: %s", error)
                await self._rest(self._worker.retries.wait_s(failures))
                continue
            failures = 0
            for job in jobs:
                self._take(job)
            if jobs:
                continue
            if self._burst:
                await self._next_outcome()
            elif monotonic_us() - asked_us < EARLY_S * 1e6:
                await self._rest(EARLY_S * share())

    async def _next_outcome(self) -> None:
        """What a job that runs submits may be ready then; if none ran since the server was asked, that was all."""
        if not self._tasks and not self._acker.pending and not self._changed.is_set():
            self._stopping.set()
        else:
            await self._changed.wait()

    def _free_slots(self) -> int:
        slots = self._worker.concurrency - len(self._tasks)
        return min(slots, LEASES_MAX, UNTOLD_MAX - self._acker.pending)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _lease(self) -> list[LeasedJob]:
        """None once the worker stops: then what may have been handed out meanwhile is given back."""
        request_id, limit = new_key(), self._free_slots()
        asking = self._loop.create_task(self._request(request_id, limit, self._wait_ms))
        stopping = self._loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not asking.done():
                asking.cancel()
        if not self._stopping.is_set():
            return await asking
        with contextlib.suppress(asyncio.CancelledError, ClientError):
            await asking
        with contextlib.suppress(TimeoutError, ClientError):
            async with asyncio.timeout(LAST_WORDS_S):
                for job in await self._request(request_id, limit, 0):
                    self._held[job.lease_token] = job
                    self._acker.add(job, Ack.release(job))
        return []

    async def _request(self, request_id: str, limit: int, wait_ms: int) -> list[LeasedJob]:
        worker = self._worker
        return await self._client.lease(
            self._queues, limit=limit, wait_ms=wait_ms, lease_ms=worker.lease_ms, worker_id=worker.worker_id,
            request_id=request_id,
        )  # fmt: skip

    # --- one job ------------------------------------------------------------------------------------------------------

    def _take(self, leased: LeasedJob) -> None:
        self._held[leased.lease_token] = leased
        task = self._loop.create_task(self._work(leased))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._slot_is_free(task, leased.lease_token))

    def _slot_is_free(self, task: asyncio.Task[None], token: str) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("a fault in the worker itself: the lease runs out", exc_info=error)
            self._held.pop(token, None)
            self._running.pop(token, None)

    async def _work(self, leased: LeasedJob) -> None:
        """A slot is free again when the handler has ended, also if its outcome was decided before."""
        handler = self._worker.handler_of(leased.queue)
        if handler is None:  # the server hands out none that was not asked for
            self._acker.add(leased, Ack.release(leased))
            return
        try:
            payload = handler.payload_of(leased, self._worker.codec)
        except Exception as error:  # noqa: BLE001 -- whatever a codec raises
            self._acker.add(leased, Ack.error(leased, f"the payload is not as expected: {error}", code="bad_payload"))
            return
        job = Job(leased, payload, self._log, self._report_of(leased))
        attempt = self._running[leased.lease_token] = Attempt(job, self._loop.create_future())
        task = self._loop.create_task(self._attempted(handler, attempt))
        if handler.is_async:
            attempt.kill = task.cancel
        time_limit_s = self._worker.time_limit_s
        await asyncio.wait({task, attempt.cut_off}, timeout=time_limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and job.cut in (None, "cancelled"):
            self._cut(leased.lease_token, "time_limit")
        self._settle(job, task)
        if not task.done():
            await asyncio.wait({task})
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # seen: else the loop would report it

    async def _attempted(self, handler: Handler, attempt: Attempt) -> Any:
        around = (traced, *self._worker.middleware)
        return await wrapped(lambda: self._outcome(handler, attempt), attempt.job, around)()

    async def _outcome(self, handler: Handler, attempt: Attempt) -> Any:
        if handler.is_async:
            return await handler.function(attempt.job)
        if handler.in_process:
            return await self._outcome_in_process(handler, attempt)
        context = contextvars.copy_context()
        value = await self._loop.run_in_executor(self._threads, context.run, handler.function, attempt.job)
        return await value if asyncio.iscoroutine(value) else value

    async def _outcome_in_process(self, handler: Handler, attempt: Attempt) -> Any:
        child, job = self._children.take(), attempt.job
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

    def _settle(self, job: Job[Any], task: asyncio.Task[Any]) -> None:
        del self._running[job.leased.lease_token]
        ack, then = ack_of(job, task, self._worker.time_limit_s)
        if ack is None:
            del self._held[job.leased.lease_token]
            return
        if ack.outcome in ("error", "discard"):
            failed = task.done() and not task.cancelled()
            job.log.warning("attempt %d failed: %s", job.attempt, ack.result_error,
                            exc_info=task.exception() if failed else None)  # fmt: skip
        self._acker.add(job.leased, ack, then)

    def _cut(self, token: str, why: Cut) -> None:
        if (found := self._running.get(token)) is None:
            return
        found.job.end(why)
        found.job.log.info("%s", WHY[why])
        if why != "cancelled" and not found.cut_off.done():
            found.cut_off.set_result(None)
        if found.kill is not None:
            found.kill()

    def _told(self, job: LeasedJob, code: str) -> None:
        self._held.pop(job.lease_token, None)
        self._changed.set()
        if code:
            self._log.warning("job %s: its outcome was not taken (%s)", job.job_id, code, extra={"job_id": job.job_id})

    # --- meanwhile ----------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Extend all leases, again and again; learn which are lost, and whose job is wanted no more."""
        worker = self._worker
        beat_s = worker.lease_ms / 1000 / BEATS_A_LEASE
        client = self._client.trying(Retries(for_s=beat_s, timeout_s=min(beat_s, 10.0)))
        while True:
            await asyncio.sleep(beat_s)
            held = list(self._held.values())
            try:
                for first in range(0, max(1, len(held)), BEATS_MAX):
                    part = held[first : first + BEATS_MAX]
                    answers = await client.heartbeat(worker.worker_id, part, worker.lease_ms)
                    for job, answer in zip(part, answers, strict=True):
                        self._heard(job.lease_token, answer)
            except ClientError as error:
                self._log.warning("leases were not extended, trying again: %s", error)

    def _heard(self, token: str, answer: Held) -> None:
        if answer.code:
            self._cut(token, "lost")
        elif answer.cancel_requested and token in self._running and self._running[token].job.cut is None:
            self._cut(token, "cancelled")

    def _report_of(self, job: LeasedJob) -> Callable[[int, str], None]:
        """How a handler tells how far it has come, from any thread."""

        def report(percent: int, note: str) -> None:
            self._loop.call_soon_threadsafe(self._report, job, percent, note)

        return report

    def _report(self, job: LeasedJob, percent: int, note: str) -> None:
        task = self._loop.create_task(self._tell_progress(job, percent, note))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _tell_progress(self, job: LeasedJob, percent: int, note: str) -> None:
        try:
            if await self._client.trying(Retries(for_s=0)).progress(job, percent, note):
                self._heard(job.lease_token, Held(job.job_id, cancel_requested=True))
        except Refused as refused:
            self._log.warning("job %s: its progress was not taken: %s", job.job_id, refused)
        except ClientError:
            pass  # the next report says more than this one

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Let handlers finish, release what is left, tell the server."""
        await self._wait_for_handlers(self._worker.stop_s)
        for token in list(self._running):
            self._cut(token, "released")
        self._hurry.clear()
        await self._wait_for_handlers(1.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._acker.flushed(), LAST_WORDS_S)
        if self._acker.pending:
            self._log.error("%d outcomes could not be told: those jobs will run again", self._acker.pending)
        self._worker.left_behind = len(self._tasks)
        if self._tasks:
            self._log.warning("%d handlers go on in their threads", len(self._tasks))

    async def _wait_for_handlers(self, seconds: float) -> None:
        if not self._tasks or self._hurry.is_set():
            return
        everyone = self._loop.create_task(asyncio.wait(set(self._tasks)))
        hurry = self._loop.create_task(self._hurry.wait())
        await asyncio.wait({everyone, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (everyone, hurry):
            task.cancel()
