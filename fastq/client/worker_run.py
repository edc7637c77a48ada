"""One run of a worker, from its start to its stop."""

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

LEASES_MAX = 1000  # of one request
BEATS_MAX = 10_000  # of one heartbeat
BEATS_A_LEASE = 3
UNTOLD_MAX = 5_000  # outcomes that the server was not told of yet, before no more jobs are asked for
EARLY_S = 0.5  # an empty answer that came sooner is not followed by the next request at once
LAST_WORDS_S = 10.0  # how long a stop tries to tell the server
FINAL = (BadRequest, Unauthenticated, Forbidden)  # nothing will change by trying again


class WorkerRun:
    def __init__(self, worker: Worker, client: AsyncClient, burst: bool = False) -> None:
        """burst: stop as soon as no job is ready and none runs. Raises ValueError if the worker cannot run as it is."""
        self._worker, self._client, self._log = worker, client, worker.logger
        self._queues = worker.asked_queues
        self._wait_ms = 0 if burst else worker.wait_ms
        self._burst = burst
        self._loop = asyncio.get_running_loop()
        self._acks = AckSender(client, worker.codec, worker.retries, self._told, worker.logger)
        self._fault: BaseException | None = None
        self._backlog = True  # the last answer had as many jobs as were asked for
        self._reports: set[asyncio.Task[None]] = set()
        self._stopping, self._hurry, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._slots = Slots(worker, self._acks, self._report_from_anywhere, self._changed.set)

    def stop(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        self._slots.give_back()
        self._changed.set()

    async def run(self) -> None:
        """Raises Refused."""
        worker = self._worker
        self._log.info("worker %s leases from %s", worker.worker_id, ", ".join(self._queues))
        helpers = [self._loop.create_task(self._acks.run()), self._loop.create_task(self._beat())]
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
            self._slots.close()
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
                self._log.warning("no jobs are handed out, trying again: %s", error)
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
        """How many jobs to ask for, and how long to wait for them.

        More than there are free slots if handlers are fast; of those, only what is ready now, and if there is much.
        """
        free = self._slots.free
        ahead = self._slots.ahead if self._backlog or free > 0 else 0
        return min(max(free, 0) + ahead, LEASES_MAX, UNTOLD_MAX - self._acks.pending), self._wait_ms if free > 0 else 0

    async def _next_outcome(self) -> None:
        """What a job that runs submits may be ready then; if none ran since the server was asked, that was all."""
        if not self._slots.busy and not self._acks.pending and not self._changed.is_set():
            self._stopping.set()
        else:
            await self._changed.wait()

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _lease(self, limit: int, wait_ms: int) -> list[LeasedJob]:
        """None once the worker stops: then what may have been handed out meanwhile is given back."""
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
            async with asyncio.timeout(LAST_WORDS_S):
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

    def _told(self, job: LeasedJob, code: str) -> None:
        self._slots.held.pop(job.lease_token, None)
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
            held = list(self._slots.held.values())
            try:
                for first in range(0, max(1, len(held)), BEATS_MAX):
                    part = held[first : first + BEATS_MAX]
                    answers = await client.heartbeat(worker.worker_id, part, worker.lease_ms)
                    for job, answer in zip(part, answers, strict=True):
                        self._slots.heard(job.lease_token, answer)
            except ClientError as error:
                self._log.warning("leases were not extended, trying again: %s", error)

    def _report_from_anywhere(self, job: LeasedJob, percent: int, note: str) -> None:
        """How a handler tells how far it has come, from any thread."""
        self._loop.call_soon_threadsafe(self._report, job, percent, note)

    def _report(self, job: LeasedJob, percent: int, note: str) -> None:
        task = self._loop.create_task(self._tell_progress(job, percent, note))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _tell_progress(self, job: LeasedJob, percent: int, note: str) -> None:
        try:
            if await self._client.trying(Retries(for_s=0)).progress(job, percent, note):
                self._slots.heard(job.lease_token, Held(job.job_id, cancel_requested=True))
        except Refused as refused:
            self._log.warning("job %s: its progress was not taken: %s", job.job_id, refused)
        except ClientError:
            pass  # the next report says more than this one

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Let handlers finish, release what is left, tell the server."""
        self._slots.give_back()
        await self._wait_for_handlers(self._worker.stop_s)
        self._slots.release()
        self._hurry.clear()
        await self._wait_for_handlers(1.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._acks.flushed(), LAST_WORDS_S)
        if self._acks.pending:
            self._log.error("%d outcomes could not be told: those jobs will run again", self._acks.pending)
        self._worker.left_behind = self._slots.busy
        if self._slots.busy:
            self._log.warning("%d handlers go on in their threads", self._slots.busy)

    async def _wait_for_handlers(self, seconds: float) -> None:
        if not self._slots.busy or self._hurry.is_set():
            return
        everyone = self._loop.create_task(self._slots.all_free())
        hurry = self._loop.create_task(self._hurry.wait())
        await asyncio.wait({everyone, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (everyone, hurry):
            task.cancel()
