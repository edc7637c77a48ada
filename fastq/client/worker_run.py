"""One run of a worker: the lease loop and the stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastq.client import forks
from fastq.client.acks import AckSender
from fastq.client.async_client import AsyncClient
from fastq.client.errors import BadRequest, ClientError, Forbidden, Unauthenticated
from fastq.client.heartbeat import BEATS_A_LEASE, Heartbeat
from fastq.client.models import Ack, Held, LeasedJob
from fastq.client.protocol import Retries
from fastq.client.randomness import jitter, new_key
from fastq.client.slots import Slots
from fastq.client.sync_client import Client
from fastq.clock import monotonic_us

if TYPE_CHECKING:
    from fastq.client.worker import Worker

LEASES_MAX = 1000  # in one request
UNACKED_MAX = 5_000  # with more outcomes without an answer the worker leases no more jobs
EARLY_S = 0.5  # after a shorter empty long poll the worker pauses before the next
FLUSH_S = 10.0  # how long a stop waits for the last acks
AWAY_S = 1.0  # and how long when it is in a hurry, or the server is away
FINAL = (BadRequest, Unauthenticated, Forbidden)  # a retry cannot succeed


class WorkerRun:
    def __init__(self, worker: Worker, client: AsyncClient, burst: bool = False) -> None:
        """burst: stop when no job is ready and none runs. Raises ValueError: a queue has no handler."""
        self._worker, self._client, self._log = worker, client, worker.log
        self._queues, self._queues_without_process = worker.asked_queues, worker.queues_without_process
        self._wait_ms = 0 if burst else worker.wait_ms
        self._burst = burst
        self._loop = asyncio.get_running_loop()
        self._acks = AckSender(client, worker.codec, worker.retries, self._on_answered, worker.log)
        self._beating = self._client_for_heartbeats()
        self._fault: BaseException | None = None
        self._backlog = True  # the last answer had as many jobs as requested
        self._stopping, self._hurry, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._poll_over, self._is_narrow = asyncio.Event(), False
        self._slots = Slots(worker, self._acks, client, self._slot_is_free)
        self._heartbeat = Heartbeat(
            worker.lease_ms, self._extend, self._held, self._slots.running, worker.insist, worker.keep_process,
            worker.log,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop leasing and let handlers finish. A second call releases their jobs."""
        if self._stopping.is_set():
            self._hurry.set()
        self._begin_stop()
        self._slots.release_prefetched()
        self._changed.set()

    def changed(self) -> None:
        """The worker's concurrency has changed."""
        self._changed.set()

    def _begin_stop(self) -> None:
        self._stopping.set()
        self._poll_over.set()

    async def run(self) -> None:
        """Work until `stop`. Raises Refused: the server rejects the key or the lease request."""
        worker = self._worker
        self._log.info("worker %s: %s", worker.worker_id, worker.description)
        sending = self._loop.create_task(self._acks.run())
        sending.add_done_callback(self._task_ended)
        forks.keep_loop(self._loop)
        self._heartbeat.start(at_once=self._beating is not None)
        try:
            await self._lease_until_stopped()
        finally:
            self._begin_stop()
            await self._finish()
            self._heartbeat.end()
            if self._beating is not None:
                self._beating.close()
            forks.forget_loop(self._loop)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            self._slots.close()
            self._log.info("worker %s has stopped", worker.worker_id)
        if self._fault is not None:
            raise self._fault

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """The ack sender failed: stop, and raise its error from `run`."""
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
        most = min(max(free, 0) + prefetch, LEASES_MAX, UNACKED_MAX - self._acks.pending)
        if self._slots.free_processes < 1:
            most = most if self._queues_without_process else 0
        elif not self._queues_without_process:
            most = min(most, self._slots.free_processes)
        return most, self._wait_ms if free > 0 else 0

    def _asked(self) -> Sequence[str] | Mapping[str, int]:
        """The queues to lease from now: while all processes are busy, only those whose handlers need none."""
        return self._queues if self._slots.free_processes > 0 else self._queues_without_process

    async def _next_outcome(self) -> None:
        """In a burst: wait for the next outcome, since a handler may submit jobs. Stop if nothing ran meanwhile."""
        if not self._slots.busy and not self._acks.pending and not self._changed.is_set():
            self._begin_stop()
        else:
            await self._changed.wait()

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _lease(self, limit: int, wait_ms: int) -> list[LeasedJob]:
        """Lease jobs.

        If the worker stops meanwhile, release what the server leased to it and return none. If a process becomes free
        meanwhile, end the long poll: the next one asks for the jobs of processes too.
        """
        queues, request_id = self._asked(), new_key()
        self._is_narrow = queues is not self._queues
        self._poll_over.clear()
        asking = self._loop.create_task(self._request(queues, request_id, limit, wait_ms))
        over = self._loop.create_task(self._poll_over.wait())
        try:
            await asyncio.wait({asking, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            is_answered = asking.done() or not asking.cancel()
        if is_answered and not self._stopping.is_set():
            return await asking
        with contextlib.suppress(asyncio.CancelledError, ClientError):
            await asking
        if not self._stopping.is_set():
            return await self._request(queues, request_id, limit, 0)
        with contextlib.suppress(TimeoutError, ClientError):
            async with asyncio.timeout(AWAY_S if self._worker.is_server_away else FLUSH_S):
                for job in await self._request(queues, request_id, limit, 0):
                    self._slots.held[job.lease_token] = job
                    self._acks.add(job, Ack.release(job))
        return []

    async def _request(
        self, queues: Sequence[str] | Mapping[str, int], request_id: str, limit: int, wait_ms: int
    ) -> list[LeasedJob]:
        worker = self._worker
        return await self._client.lease(
            queues, limit=limit, wait_ms=wait_ms, lease_ms=worker.lease_ms, worker_id=worker.worker_id,
            request_id=request_id,
        )  # fmt: skip

    def _slot_is_free(self) -> None:
        self._changed.set()
        if self._is_narrow and self._slots.free_processes > 0:
            self._poll_over.set()

    def _on_answered(self, job: LeasedJob, code: str) -> None:
        self._slots.held.pop(job.lease_token, None)
        self._changed.set()
        if code:
            self._log.warning(
                "job %s: the server rejected its outcome (%s)", job.job_id, code, extra={"job_id": job.job_id}
            )

    # --- heartbeat ----------------------------------------------------------------------------------------------------

    @property
    def _beat_retries(self) -> Retries:
        beat_s = self._worker.lease_ms / 1000 / BEATS_A_LEASE
        return Retries(for_s=beat_s, timeout_s=min(beat_s, 10.0))

    def _client_for_heartbeats(self) -> Client | None:
        """Made before a handler can change what it is made of: the environment, modules, limits."""
        worker = self._worker
        if worker.transport is not None:
            return None
        return Client(worker.url, worker.key, retries=self._beat_retries, tls=worker.tls)

    def _extend(self, jobs: Sequence[LeasedJob]) -> None:
        """Extend leases, in the thread of the heartbeat. Raises ClientError."""
        worker = self._worker
        if self._beating is None:
            extending = self._extend_in_loop(jobs, self._client.trying(self._beat_retries))
            asyncio.run_coroutine_threadsafe(extending, self._loop).result()
            return
        answers = self._beating.heartbeat(
            worker.worker_id, jobs, worker.lease_ms, host=worker.host, version=worker.version
        )
        self._loop.call_soon_threadsafe(self._heard, jobs, answers)

    async def _extend_in_loop(self, jobs: Sequence[LeasedJob], client: AsyncClient) -> None:
        """As `_extend`, with a transport of the program, which belongs to this loop."""
        worker = self._worker
        answers = await client.heartbeat(
            worker.worker_id, jobs, worker.lease_ms, host=worker.host, version=worker.version
        )
        self._heard(jobs, answers)

    def _held(self) -> list[LeasedJob]:
        return list(self._slots.held.copy().values())

    def _heard(self, jobs: Sequence[LeasedJob], answers: Sequence[Held]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            self._slots.heard(job.lease_token, answer)

    # --- stop ---------------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Let handlers finish, release the jobs of the others, send the last acks."""
        self._slots.release_prefetched()
        await self._wait_for_handlers(self._worker.stop_s)
        self._slots.release()
        self._hurry.clear()
        await self._wait_for_handlers(1.0)
        flushed = self._loop.create_task(self._acks.flushed())
        hurry = self._loop.create_task(self._hurry.wait())
        await asyncio.wait({flushed, hurry}, timeout=FLUSH_S, return_when=asyncio.FIRST_COMPLETED)
        if not flushed.done():
            await asyncio.wait({flushed}, timeout=AWAY_S)
        for task in (flushed, hurry):
            task.cancel()
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
