"""Progress reports: one request at a time for a job, and only the newest report counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastq.client.async_client import AsyncClient
from fastq.client.errors import ClientError, LeaseLost, Refused
from fastq.client.logs import WorkerLog
from fastq.client.models import Held, LeasedJob
from fastq.client.protocol import Retries

TIMEOUT_S = 5.0  # an outcome waits no longer for the report before it


class Reports:
    def __init__(self, client: AsyncClient, heard: Callable[[str, Held], None], log: WorkerLog) -> None:
        """heard: called with the lease token when the answer says that a cancel is requested."""
        self._client = client.trying(Retries(for_s=0, timeout_s=TIMEOUT_S))
        self._heard, self._log = heard, log
        self._loop = asyncio.get_running_loop()
        self._open: set[str] = set()  # lease tokens
        self._newest: dict[str, tuple[LeasedJob, int, str]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    def open(self, token: str) -> None:
        """Accept reports of the attempt with this lease token."""
        self._open.add(token)

    def close(self, token: str) -> asyncio.Task[None] | None:
        """Accept no more reports. Returns the task that sends the last one, or None if all were sent."""
        self._open.discard(token)
        self._start(token)
        return self._sending.get(token)

    def drop(self, token: str) -> None:
        """Accept no more reports, and do not send the last one."""
        self._open.discard(token)
        self._newest.pop(token, None)

    def report(self, job: LeasedJob, percent: int, note: str) -> None:
        """Send it unless a newer one comes first. Thread-safe. Ignored after the end of the attempt."""
        token = job.lease_token
        if token in self._open:
            self._newest[token] = (job, percent, note)
            if token not in self._sending:
                self._loop.call_soon_threadsafe(self._start, token)

    def _start(self, token: str) -> None:
        if token in self._newest and token not in self._sending:
            self._sending[token] = self._loop.create_task(self._send(token))

    async def _send(self, token: str) -> None:
        try:
            while (newest := self._newest.pop(token, None)) is not None:
                await self._send_one(*newest)
        finally:
            del self._sending[token]
            self._start(token)  # a thread reported between the two lines above

    async def _send_one(self, job: LeasedJob, percent: int, note: str) -> None:
        try:
            if await self._client.progress(job, percent, note):
                self._heard(job.lease_token, Held(job.job_id, cancel_requested=True))
        except LeaseLost:
            pass  # the heartbeat finds it
        except Refused as refused:
            self._log.warning("job %s: the server rejected its progress report: %s", job.job_id, refused)
        except ClientError:
            pass  # the next report replaces it
