"""Sends the acks of a worker in batches: outcomes that arrive during a request go into the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Raw

from fastq.client import calls
from fastq.client.async_client import AsyncClient
from fastq.client.codec import Codec
from fastq.client.errors import BadRequest, Forbidden, Refused, Unauthenticated
from fastq.client.logs import WorkerLog
from fastq.client.models import Ack, LeasedJob, NewJob
from fastq.client.outcomes import cleaned, encoded, text_of, without_a_piece
from fastq.client.protocol import Retries

BATCH_MAX = 1000
BATCH_BYTES_MAX = 4 << 20

Waiting: TypeAlias = tuple[LeasedJob, Ack, Raw]
OnAnswered = Callable[[LeasedJob, str], None]
"""Called once a job when its ack has an answer, with the error code; empty if the ack was accepted."""


class AckSender:
    def __init__(
        self, client: AsyncClient, codec: Codec, retries: Retries, on_answered: OnAnswered, log: WorkerLog
    ) -> None:
        self._client, self._codec, self._retries, self._on_answered, self._log = (
            client, codec, retries, on_answered, log
        )  # fmt: skip
        self._waiting: deque[Waiting] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._later: set[asyncio.Task[None]] = set()
        self.pending = 0
        """How many outcomes have no answer yet."""

    def add(
        self, job: LeasedJob, ack: Ack, then: Sequence[NewJob] = (), after: asyncio.Task[None] | None = None
    ) -> None:
        """Send an ack with its follow-up jobs. after: a task to wait for: the last progress report of the job."""
        self.pending += 1
        self._idle.clear()
        if then or after is not None:
            task = asyncio.get_running_loop().create_task(self._send_later(job, ack, then, after))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        else:
            self._put(job, ack)

    def _put(self, job: LeasedJob, ack: Ack) -> None:
        self._waiting.append((job, *encoded(job, ack, self._codec, self._told(job))))
        self._more.set()

    def _told(self, job: LeasedJob) -> Callable[[str], None]:
        return lambda what: self._log.warning("job %s: %s", job.job_id, what, extra={"job_id": job.job_id})

    async def _send_later(
        self, job: LeasedJob, ack: Ack, then: Sequence[NewJob], after: asyncio.Task[None] | None
    ) -> None:
        if after is not None:
            await asyncio.wait([after])
        if then:
            await self._transact(job, ack, then)
        else:
            self._put(job, ack)

    async def flushed(self) -> None:
        """Wait until every outcome has an answer."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._more.wait()
            while self._waiting:
                await self._send(self._take())
            self._more.clear()

    def _take(self) -> list[Waiting]:
        batch, batch_bytes = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < BATCH_MAX:
            batch_bytes += len(bytes(batch[-1][2]))
            if batch_bytes + len(bytes(self._waiting[0][2])) > BATCH_BYTES_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send(self, batch: list[Waiting]) -> None:
        failures = 0
        while True:
            try:
                results = await self._client.call(calls.ack_many([body for _, _, body in batch]))
            except BadRequest as refused:
                await self._one_by_one(batch, refused)
                return
            except (Unauthenticated, Forbidden) as refused:
                self._give_up(batch, refused)
                return
            except Refused as refused:  # a server error or a full disk: an ack may be repeated
                failures += 1
                self._log.warning("the server refused a batch of acks, retrying: %s", refused)
                await asyncio.sleep(self._retries.wait_s(failures))
                continue
            for (job, _, _), result in zip(batch, results, strict=True):
                self._answered(job, "" if result.ok else result.code)
            return

    async def _one_by_one(self, batch: list[Waiting], refused: BadRequest) -> None:
        """One ack of a refused batch is invalid. Send each alone, so that the others are accepted."""
        if len(batch) > 1:
            for one in batch:
                await self._send([one])
            return
        ((job, ack, _),) = batch
        why = f"the server refused the outcome: {refused.message}"
        lesser = without_a_piece(job, ack, why, self._told(job))
        if lesser is None:
            self._give_up(batch, refused)
        else:
            await self._send([(job, *encoded(job, lesser, self._codec, self._told(job)))])

    def _give_up(self, batch: list[Waiting], refused: Refused) -> None:
        self._log.error("the server refused %d acks, dropping them: %s", len(batch), refused)
        for job, _, _ in batch:
            self._answered(job, refused.code)

    async def _transact(self, job: LeasedJob, ack: Ack, then: Sequence[NewJob]) -> None:
        """Send the ack and its follow-up jobs as one transaction."""
        try:
            sent, _ = encoded(job, ack, self._codec, self._told(job))
            if sent is ack:
                await self._client.transaction([ack, *then])
                self._answered(job, "")
            else:  # its result was refused, so there is nothing to follow up
                self._put(job, sent)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 -- a codec, or a method of a payload, raises anything
            if isinstance(error, Refused) and calls.is_lease_lost(error):
                self._answered(job, error.code)
                return
            text = cleaned(f"the follow-up jobs were refused: {text_of(error)}")
            self._put(job, Ack.error(job, text, code="then_refused"))

    def _answered(self, job: LeasedJob, code: str) -> None:
        self.pending -= 1
        self._on_answered(job, code)
        if not self.pending:
            self._idle.set()
