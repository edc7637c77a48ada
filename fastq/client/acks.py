"""Sends the acks of a worker in batches: outcomes that arrive during a request go into the next one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Raw

from fastq.client import calls
from fastq.client.async_client import AsyncClient
from fastq.client.codec import Codec
from fastq.client.errors import BadRequest, Forbidden, Refused, Unauthenticated
from fastq.client.models import Ack, LeasedJob, NewJob
from fastq.client.protocol import Retries

BATCH_MAX = 1000
BATCH_BYTES_MAX = 4 << 20

OnAnswered = Callable[[LeasedJob, str], None]
"""Called once a job when its ack has an answer, with the error code; empty if the ack was accepted."""


class AckSender:
    def __init__(
        self, client: AsyncClient, codec: Codec, retries: Retries, on_answered: OnAnswered, logger: logging.Logger
    ) -> None:
        self._client, self._codec, self._retries, self._on_answered, self._log = (
            client, codec, retries, on_answered, logger
        )  # fmt: skip
        self._waiting: deque[tuple[LeasedJob, Raw]] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._transactions: set[asyncio.Task[None]] = set()
        self.pending = 0
        """How many outcomes have no answer yet."""

    def add(self, job: LeasedJob, ack: Ack, then: Sequence[NewJob] = ()) -> None:
        self.pending += 1
        self._idle.clear()
        if then:
            task = asyncio.get_running_loop().create_task(self._transact(job, ack, then))
            self._transactions.add(task)
            task.add_done_callback(self._transactions.discard)
            return
        self._waiting.append((job, self._body(job, ack)))
        self._more.set()

    def _body(self, job: LeasedJob, ack: Ack) -> Raw:
        try:
            return calls.ack_body(ack, self._codec)
        except Exception as error:  # noqa: BLE001 -- a codec raises anything
            failed = Ack.error(job, f"the result cannot be encoded as JSON: {error}", code="result_refused")
            return calls.ack_body(failed, self._codec)

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

    def _take(self) -> list[tuple[LeasedJob, Raw]]:
        batch, batch_bytes = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < BATCH_MAX:
            batch_bytes += len(bytes(batch[-1][1]))
            if batch_bytes + len(bytes(self._waiting[0][1])) > BATCH_BYTES_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send(self, batch: list[tuple[LeasedJob, Raw]]) -> None:
        failures = 0
        while True:
            try:
                results = await self._client.call(calls.ack_many([body for _, body in batch]))
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
            for (job, _), result in zip(batch, results, strict=True):
                self._answered(job, "" if result.ok else result.code)
            return

    async def _one_by_one(self, batch: list[tuple[LeasedJob, Raw]], refused: BadRequest) -> None:
        """One ack of a refused batch is invalid. Send each alone, so that the others are accepted."""
        if len(batch) > 1:
            for one in batch:
                await self._send([one])
            return
        ((job, body),) = batch
        if b'"result_refused"' in bytes(body):
            self._give_up(batch, refused)
            return
        failed = Ack.error(job, f"the server refused the outcome: {refused.message}", code="result_refused")
        await self._send([(job, calls.ack_body(failed, self._codec))])

    def _give_up(self, batch: list[tuple[LeasedJob, Raw]], refused: Refused) -> None:
        self._log.error("the server refused %d acks, dropping them: %s", len(batch), refused)
        for job, _ in batch:
            self._answered(job, refused.code)

    async def _transact(self, job: LeasedJob, ack: Ack, then: Sequence[NewJob]) -> None:
        """Send the ack and its follow-up jobs as one transaction."""
        try:
            await self._client.transaction([ack, *then])
        except Refused as refused:
            if calls.is_lease_lost(refused):
                self._answered(job, refused.code)
                return
            error: Exception = refused
        except Exception as failure:  # noqa: BLE001 -- a codec raises anything
            error = failure
        else:
            self._answered(job, "")
            return
        self.pending -= 1
        self.add(job, Ack.error(job, f"the follow-up jobs were refused: {error}", code="then_refused"))

    def _answered(self, job: LeasedJob, code: str) -> None:
        self.pending -= 1
        self._on_answered(job, code)
        if not self.pending:
            self._idle.set()
