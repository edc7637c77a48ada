"""One client process: `python -m fastq.chaos.client`. It reads a Brief and Orders on stdin, writes events to stdout."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from datetime import datetime
from typing import Any

import msgspec

from fastq.chaos import journal
from fastq.chaos.plan import (
    FAIL,
    LEASE_MS,
    VANISH,
    Brief,
    Orders,
    draws,
    is_deferred,
    payload_of,
    result_of,
    retries_of,
)
from fastq.client.async_client import AsyncClient
from fastq.client.errors import Busy, LeaseLost, Refused, ServerUnreachable
from fastq.client.models import Backoff, LeasedJob
from fastq.client.protocol import Retries
from fastq.clock import monotonic_us

ONCE = Retries(for_s=0.0, timeout_s=20.0)
BACKOFF = Backoff(base_ms=10, factor=2, cap_ms=100)
IDLE_WAIT_MS = 100  # a lease waits this long when there is nothing to submit
LEASES_MAX = 4  # after one submit
BREAK_S = 0.005  # after a failure: the harness may not have announced the kill yet
LINE_BYTES_MAX = 16 << 20  # of a Brief that lists a predecessor's unanswered jobs


class Workers:
    """State that all workers of this process share."""

    def __init__(self, brief: Brief, client: AsyncClient) -> None:
        self.brief, self.load, self.client = brief, brief.load, client
        self.orders = Orders()
        self.ordered = asyncio.Condition()
        self._next = brief.begin
        self._again = deque(brief.again)
        self._resting = 0

    def write(self, event: journal.Event) -> None:
        journal.write(sys.stdout.fileno(), event)

    async def obey(self, orders: Orders) -> None:
        async with self.ordered:
            self.orders = orders
            self.ordered.notify_all()

    async def allowed(self) -> None:
        """Return when the server is up and the harness wants requests."""
        if self.orders.up and not self.orders.resting:
            return
        async with self.ordered:
            self._resting += 1
            while not self.orders.up or self.orders.resting:
                if self.orders.resting and self._resting == self.brief.workers:
                    self.write(journal.Resting())
                await self.ordered.wait()
            self._resting -= 1

    def next_job(self) -> int | None:
        """The number of the next job to submit; None if there is none now."""
        if self._again:
            return self._again.popleft()
        if self._next >= min(self.orders.open, self.load.jobs):
            return None
        self._next += self.load.processes
        return self._next - self.load.processes

    def not_yet(self, number: int) -> None:
        """Send its submit again later, with the same idempotency key: it cannot become two jobs."""
        self._again.append(number)


class Worker:
    """Submits, leases and acks in turn, one request at a time."""

    def __init__(self, shared: Workers, number: int) -> None:
        self._shared = shared
        brief = shared.brief
        self._rng = draws(brief.load.seed, "worker", brief.number, brief.life, number)
        self._name = f"{brief.number}.{number}"
        self._asked_us = 0
        self._waits = False

    async def run(self) -> None:
        while True:
            await self._shared.allowed()
            try:
                submitted = await self._submit()
                for _ in range(LEASES_MAX):  # work as many jobs as are submitted, also when some fail
                    if await self._work(0 if submitted else IDLE_WAIT_MS):
                        break
            except ServerUnreachable as error:
                await self._unanswered(error)
            except Busy as error:
                await self._busy(error)
            except Refused as error:
                self._shared.write(journal.Wrong("unexpected", f"unexpected answer: {error}"))
                await asyncio.sleep(BREAK_S)

    def _asking(self, waits: bool = False) -> int:
        self._asked_us, self._waits = monotonic_us(), waits
        return self._asked_us

    async def _unanswered(self, error: ServerUnreachable) -> None:
        if error.sent:
            self._shared.write(journal.Unanswered(self._asked_us, monotonic_us(), self._waits))
        await asyncio.sleep(BREAK_S)

    async def _busy(self, error: Busy) -> None:
        self._shared.write(journal.Busy(error.status))
        await asyncio.sleep(BREAK_S)

    async def _submit(self) -> bool:
        """Submit a job. Returns whether there was one."""
        shared, load = self._shared, self._shared.load
        number = shared.next_job()
        if number is None:
            return False
        queue = load.later_queue if is_deferred(number, load.seed) else load.queue
        shared.write(journal.Sending(number, self._asking()))
        try:
            told = await shared.client.submit(
                payload_of(number, load.seed),
                queue=queue,
                max_retries=retries_of(number),
                backoff=BACKOFF,
                idempotency_key=f"{load.name}-{number}",
            )
        except Busy as error:  # leases and acks go on
            shared.not_yet(number)
            await self._busy(error)
            return False
        except (ServerUnreachable, Refused):
            shared.not_yet(number)
            raise
        shared.write(journal.Submitted(number, told.job_id, monotonic_us()))
        return True

    async def _work(self, wait_ms: int) -> bool:
        """Lease a job, if one is ready, and ack it. Returns False if the job will be leased again."""
        shared, load = self._shared, self._shared.load
        queues = [load.queue, load.later_queue] if shared.orders.working_off else [load.queue]
        asked_us = self._asking(wait_ms > 0)
        jobs = await shared.client.lease(queues, wait_ms=wait_ms, lease_ms=LEASE_MS, worker_id=self._name)
        if not jobs:
            return True
        (job,) = jobs
        until_us = _unix_us(job.lease_until)
        payload = self._checked(job.payload)
        shared.write(journal.Leased(job.job_id, payload, job.attempt, until_us - LEASE_MS * 1000, until_us))
        if not shared.orders.working_off and self._rng.random() < VANISH:
            return False
        return await self._ack(job, asked_us + LEASE_MS * 1000)

    def _checked(self, payload: Any) -> str:
        """The job's number if the payload is the one that was sent, else its beginning."""
        number = str(payload).partition(":")[0]
        right = number.isascii() and number.isdigit() and payload == payload_of(int(number), self._shared.load.seed)
        return number if right else f"unknown payload: {str(payload)[:100]}"

    async def _ack(self, job: LeasedJob, held_until_us: int) -> bool:
        """Ack a job until there is an answer: the token makes repetition safe.

        Args:
            held_until_us: until then the lease lives for certain, and a refusal is a fault.
        Returns:
            Whether the job is done.
        """
        shared = self._shared
        fails = self._rng.random() < FAIL
        shared.write(journal.Acking(job.job_id, job.attempt, fails, monotonic_us()))
        while True:
            self._asking()
            try:
                if fails:
                    await shared.client.fail(job, "it failed")
                else:
                    await shared.client.ack(job, result_of(job.attempt))
                shared.write(journal.Acked(job.job_id, job.attempt, fails, monotonic_us()))
                return not fails
            except ServerUnreachable as error:
                await self._unanswered(error)
            except Busy as error:
                await self._busy(error)
            except Refused as error:
                self._refused(job, error, held_until_us)
                return False
            if not shared.orders.up:
                async with shared.ordered:
                    await shared.ordered.wait_for(lambda: shared.orders.up)

    def _refused(self, job: LeasedJob, error: Refused, held_until_us: int) -> None:
        now_us = monotonic_us()
        if error.code == "job_not_found":  # an earlier try succeeded, and retention removed the job
            event: journal.Event = journal.Gone(job.job_id, now_us)
        elif isinstance(error, LeaseLost) and now_us >= held_until_us:
            event = journal.TooLate(job.job_id, job.attempt)
        else:
            what = f"{job.job_id}: the ack of attempt {job.attempt} was refused while its lease lived: {error}"
            event = journal.Wrong("refused", what)
        self._shared.write(event)


def _unix_us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


async def main() -> None:
    lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    brief = msgspec.json.decode(await lines.readline(), type=Brief)
    async with AsyncClient(brief.load.url, brief.load.key, retries=ONCE) as client:
        shared = Workers(brief, client)
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(Worker(shared, number).run()) for number in range(brief.workers)]
            while line := await lines.readline():
                await shared.obey(msgspec.json.decode(line, type=Orders))
            for worker in workers:
                worker.cancel()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal: the harness ends us
    try:
        asyncio.run(main())
    except BrokenPipeError:  # the harness has ended
        os._exit(1)
