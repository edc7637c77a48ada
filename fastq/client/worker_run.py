"""One run of a worker: the lease loop, the heartbeat, and the stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from fastq.client.acks import AckSender
from fastq.client.async_client import AsyncClient
from fastq.client.errors import BadRequest, ClientError, Forbidden, Refused, Unauthenticated
from fastq.client.models import Ack, Held, LeasedJob
from fastq.client.protocol import Retries
from fastq.client.randomness import jitter, new_key
from fastq.client.slots import Slots
from fastq.clock import monotonic_us

if TYPE_CHECKING:
    from fastq.client.worker import Worker

LEASES_MAX = 1000  # in one request
BEATS_MAX = 10_000  # in one heartbeat
BEATS_A_LEASE = 3
UNACKED_MAX = 5_000  # with more outcomes without an answer the worker leases no more jobs
EARLY_S = 0.5  # after a shorter empty long poll the worker pauses before the next
FLUSH_S = 10.0  # how long a stop waits for the last acks
FINAL = (BadRequest, Unauthenticated, Forbidden)  # a retry cannot succeed


class WorkerRun:
    def __init__(self, worker: Worker, client: AsyncClient, burst: bool = False) -> None:
        """burst: stop when no job is ready and none runs. Raises ValueError: a queue has no handler."""
        self._worker, self._client, self._log = worker, client, worker.logger
        self._queues = worker.asked_queues
        self._wait_ms = 0 if burst else worker.wait_ms
        self._burst = burst
        self._loop = asyncio.get_running_loop()
        self._acks = AckSender(client, worker.codec, worker.retries, self._on_answered, worker.logger)
        self._fault: BaseException | None = None
        self._backlog = True  # the last answer had as many jobs as requested
        self._reports: set[asyncio.Task[None]] = set()
        self._stopping, self._hurry, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._slots = Slots(worker, self._acks, self._report_threadsafe, self._changed.set)

    def stop(self) -> None:
        """Stop leasing and let handlers finish. A second call releases their jobs."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        self._slots.release_prefetched()
        self._changed.set()

    async def run(self) -> None:
        """Work until `stop`. Raises Refused: the server rejects the key or the lease request."""
        worker = self._worker
        self._log.info("worker %s leases from %s", worker.worker_id, ", ".join(self._queues))
        tasks = [self._loop.create_task(self._acks.run()), self._loop.create_task(self._beat())]
        for task in tasks:
            task.add_done_callback(self._task_ended)
        try:
            await self._lease_until_stopped()
        finally:
            self._stopping.set()
            await self._finish()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._slots.close()
            self._log.info("worker %s has stopped", worker.worker_id)
        if self._fault is not None:
            raise self._fault

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """The heartbeat or the ack sender failed: stop, and raise its error from `run`."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = error
            self.stop()

    # --- lease loop ---------------------------------------------------------------------------------------------------

    async def _lease_until_stopped(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._changed.clear()
            limit, wait_ms = self._wanted()
            if limit < 1:
                await self._changed.wait()
                continue
            asked_us = monotonic_us()
            try:
                jobs = await self._lease(limit, wait_ms)
            except FINAL:
                raise
            except ClientError as error:
                failures += 1
                self._log.warning("the lease request failed, retrying: %s", error)
                await self._rest(self._worker.retries.wait_s(failures))
                continue
            failures = 0
            self._backlog = len(jobs) >= limit
            self._slots.put(jobs)
            if jobs or self._slots.free < 1:
                continue
            if self._burst:
                await self._next_outcome()
            elif wait_ms and monotonic_us() - asked_us < EARLY_S * 1e6:
                await self._rest(EARLY_S * jitter())

    def _wanted(self) -> tuple[int, int]:
        """How many jobs to lease, and how many milliseconds to wait for them.

        For fast handlers the number includes jobs to prefetch, but only while the queue has a backlog.
        """
        free = self._slots.free
        prefetch = self._slots.prefetch if self._backlog or free > 0 else 0
        return min(
            max(free, 0) + prefetch, LEASES_MAX, UNACKED_MAX - self._acks.pending
        ), self._wait_ms if free > 0 else 0

    async def _next_outcome(self) -> None:
        """In a burst: wait for the next outcome, since a handler may submit jobs. Stop if nothing ran meanwhile."""
        if not self._slots.busy and not self._acks.pending and not self._changed.is_set():
            self._stopping.set()
        else:
            await self._changed.wait()

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _lease(self, limit: int, wait_ms: int) -> list[LeasedJob]:
        """Lease jobs. If the worker stops meanwhile, release what the server leased to it and return none."""
        request_id = new_key()
        asking = self._loop.create_task(self._request(request_id, limit, wait_ms))
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
            async with asyncio.timeout(FLUSH_S):
                for job in await self._request(request_id, limit, 0):
                    self._slots.held[job.lease_token] = job
                    self._acks.add(job, Ack.release(job))
        return []

    async def _request(self, request_id: str, limit: int, wait_ms: int) -> list[LeasedJob]:
        worker = self._worker
        return await self._client.lease(
            self._queues, limit=limit, wait_ms=wait_ms, lease_ms=worker.lease_ms, worker_id=worker.worker_id,
            request_id=request_id,
        )  # fmt: skip

    def _on_answered(self, job: LeasedJob, code: str) -> None:
        self._slots.held.pop(job.lease_token, None)
        self._changed.set()
        if code:
            self._log.warning(
                "job %s: the server rejected its outcome (%s)", job.job_id, code, extra={"job_id": job.job_id}
            )

    # --- heartbeat and progress ---------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Extend all leases periodically. The answers name lost leases and cancelled jobs."""
        worker = self._worker
        beat_s = worker.lease_ms / 1000 / BEATS_A_LEASE
        client = self._client.trying(Retries(for_s=beat_s, timeout_s=min(beat_s, 10.0)))
        while True:
            await asyncio.sleep(beat_s)
            held = list(self._slots.held.values())
            try:
                for first in range(0, max(1, len(held)), BEATS_MAX):
                    part = held[first : first + BEATS_MAX]
                    answers = await client.heartbeat(worker.worker_id, part, worker.lease_ms)
                    for job, answer in zip(part, answers, strict=True):
                        self._slots.heard(job.lease_token, answer)
            except ClientError as error:
                self._log.warning("the heartbeat failed, retrying: %s", error)

    def _report_threadsafe(self, job: LeasedJob, percent: int, note: str) -> None:
        """Report progress from any thread."""
        self._loop.call_soon_threadsafe(self._report, job, percent, note)

    def _report(self, job: LeasedJob, percent: int, note: str) -> None:
        task = self._loop.create_task(self._send_progress(job, percent, note))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _send_progress(self, job: LeasedJob, percent: int, note: str) -> None:
        try:
            if await self._client.trying(Retries(for_s=0)).progress(job, percent, note):
                self._slots.heard(job.lease_token, Held(job.job_id, cancel_requested=True))
        except Refused as refused:
            self._log.warning("job %s: the server rejected its progress report: %s", job.job_id, refused)
        except ClientError:
            pass  # the next report replaces it

    # --- stop ---------------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Let handlers finish, release the jobs of the others, send the last acks."""
        self._slots.release_prefetched()
        await self._wait_for_handlers(self._worker.stop_s)
        self._slots.release()
        self._hurry.clear()
        await self._wait_for_handlers(1.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._acks.flushed(), FLUSH_S)
        if self._acks.pending:
            self._log.error(
                "%d outcomes were not acknowledged: their leases will expire and the jobs run again", self._acks.pending
            )
        self._worker.left_behind = self._slots.busy
        if self._slots.busy:
            self._log.warning("%d handlers are still running in their threads", self._slots.busy)

    async def _wait_for_handlers(self, seconds: float) -> None:
        if not self._slots.busy or self._hurry.is_set():
            return
        everyone = self._loop.create_task(self._slots.all_free())
        hurry = self._loop.create_task(self._hurry.wait())
        await asyncio.wait({everyone, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (everyone, hurry):
            task.cancel()
