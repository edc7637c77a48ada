"""Says once when the server is away, and once when it is back."""

from __future__ import annotations

from fastq.client import operator_calls
from fastq.client.async_transport import AsyncTransport
from fastq.client.errors import ServerUnreachable
from fastq.client.logs import WorkerLog
from fastq.client.protocol import Answer, Call
from fastq.clock import monotonic_us

READY = operator_calls.ready()
PROBE_S = 5.0
QUIET_S = 1.0  # a shorter outage, such as a closed connection, is not mentioned
AWAY = frozenset({502, 503, 504})  # a proxy without its server, or a server that starts


class Outages:
    """A transport that watches the requests of another one."""

    def __init__(self, transport: AsyncTransport, server: str, log: WorkerLog) -> None:
        self._transport, self.server, self._log = transport, server, log
        self._since_us: int | None = None
        self._is_told = False
        self._was_there = False

    @property
    def is_away(self) -> bool:
        """Whether the last request failed."""
        return self._since_us is not None

    async def send(self, call: Call[object], timeout_s: float) -> Answer:
        """As the transport watched."""
        try:
            if self._is_told and call.wait_ms:  # its own answer may take long
                self._answered(await self._transport.send(READY, PROBE_S))
            answer = await self._transport.send(call, timeout_s)
        except ServerUnreachable as error:
            self._failed(str(error))
            raise
        self._answered(answer)
        return answer

    async def close(self) -> None:
        await self._transport.close()

    def _answered(self, answer: Answer) -> None:
        if answer.status in AWAY:
            self._failed(f"it answers {answer.status}")
        else:
            self._succeeded()

    def _failed(self, why: str) -> None:
        now_us = monotonic_us()
        if self._since_us is None:
            self._since_us = now_us
        if not self._is_told and (not self._was_there or now_us - self._since_us >= QUIET_S * 1e6):
            self._is_told = True
            self._log.warning("the server %s is away, retrying until it is back: %s", self.server, why)

    def _succeeded(self) -> None:
        if self._is_told and self._since_us is not None:
            self._log.warning(
                "the server %s is back after %.1f s", self.server, (monotonic_us() - self._since_us) / 1e6
            )
        self._since_us, self._is_told, self._was_there = None, False, True
