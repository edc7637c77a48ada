"""Tells the server how attempts ended: whatever has come together while a request was under way goes in the next."""

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

Told = Callable[[LeasedJob, str], None]
"""Called once for each job when that is over, with the refusal's code, or an empty one."""


class AckSender:
    def __init__(self, client: AsyncClient, codec: Codec, retries: Retries, told: Told, logger: logging.Logger) -> None:
        self._client, self._codec, self._retries, self._told, self._log = client, codec, retries, told, logger
        self._waiting: deque[tuple[LeasedJob, Raw]] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._transactions: set[asyncio.Task[None]] = set()
        self.pending = 0
        """How many jobs the server has not been told of yet."""

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
        except Exception as error:  # noqa: BLE001 -- whatever a codec raises: the result has no JSON
            failed = Ack.error(job, f"the result has no JSON: {error}", code="result_refused")
            return calls.ack_body(failed, self._codec)

    async def flushed(self) -> None:
        """Until nothing is pending."""
        await self._idle.wait()

    async def run(self) -> None:
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
            except Refused as refused:  # a fault of the server's, or a full disk: the same again is safe
                failures += 1
                self._log.warning("acks are not taken, trying again: %s", refused)
                await asyncio.sleep(self._retries.wait_s(failures))
                continue
            for (job, _), result in zip(batch, results, strict=True):
                self._over(job, "" if result.ok else result.code)
            return

    async def _one_by_one(self, batch: list[tuple[LeasedJob, Raw]], refused: BadRequest) -> None:
        """Something in it is not as the server takes it: that must not hold up the others."""
        if len(batch) > 1:
            for one in batch:
                await self._send([one])
            return
        ((job, body),) = batch
        if b'"result_refused"' in bytes(body):
            self._give_up(batch, refused)
            return
        failed = Ack.error(job, f"the outcome was refused: {refused.message}", code="result_refused")
        await self._send([(job, calls.ack_body(failed, self._codec))])

    def _give_up(self, batch: list[tuple[LeasedJob, Raw]], refused: Refused) -> None:
        self._log.error("%d acks are refused, and given up: %s", len(batch), refused)
        for job, _ in batch:
            self._over(job, refused.code)

    async def _transact(self, job: LeasedJob, ack: Ack, then: Sequence[NewJob]) -> None:
        """The ack and the jobs that follow from it, together."""
        try:
            await self._client.transaction([ack, *then])
        except Refused as refused:
            if calls.is_no_more(refused):
                self._over(job, refused.code)
                return
            error: Exception = refused
        except Exception as failure:  # noqa: BLE001 -- whatever a codec raises
            error = failure
        else:
            self._over(job, "")
            return
        self.pending -= 1
        self.add(job, Ack.error(job, f"the jobs that follow were refused: {error}", code="then_refused"))

    def _over(self, job: LeasedJob, code: str) -> None:
        self.pending -= 1
        self._told(job, code)
        if not self.pending:
            self._idle.set()
