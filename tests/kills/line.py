"""Requests to a server that is killed now and then, and faults of its answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fastq.client.async_transport import LoopTransport
from fastq.client.errors import ServerUnreachable
from fastq.client.protocol import Call
from fastq.client.wire import Address

TIMEOUT_S = 30.0
PATIENCE_S = 30.0  # with a busy server
BREAK_S = 0.01  # after a request without an answer
EXAMPLES_KEPT = 10
RUN = re.compile(r"(\w)\1{20,}")  # of one letter, which payloads are filled with


class Stuck(Exception):
    """The server is up, but stays busy."""


@dataclass(frozen=True)
class Told:
    """An answer. `repeated`: the request was sent before without an answer, and may have happened then."""

    status: int
    body: Any
    repeated: bool = False

    @property
    def code(self) -> str:
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


@dataclass
class Faults:
    """The server's faults."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        if len(self.examples) < EXAMPLES_KEPT:
            self.examples.append(f"{kind}: {RUN.sub('…', what)}"[:1500])


class Line:
    """Requests to one server, for all clients. `up`: the server runs."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._transport = LoopTransport(Address.of(url, key))
        self.up = asyncio.Event()
        self.faults = Faults()
        self.counts: Counter[str] = Counter()

    async def close(self) -> None:
        await self._transport.close()

    async def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Told | None:
        """Send a request. Retries it while it surely did not happen. None: no answer, and it may have happened.

        Raises:
            Stuck: it was refused for PATIENCE_S.
        """
        content = b"" if body is None else json.dumps(body).encode()
        call = Call(method, path, bytes, content, key)
        busy_s = 0.0  # since when
        while True:
            await self.up.wait()
            try:
                answer = await self._transport.send(call, TIMEOUT_S)
            except ServerUnreachable as error:
                self.counts["unanswered"] += error.sent
                await asyncio.sleep(BREAK_S)
                if error.sent:
                    return None
                continue
            self.counts["answered"] += 1
            if answer.status in (429, 503):
                self.counts[f"answered {Told(answer.status, read(answer.body)).code}"] += 1
                busy_s = busy_s or time.monotonic()
                if time.monotonic() - busy_s > PATIENCE_S:
                    raise Stuck(f"{method} {path} is answered {answer.status} {answer.body!r} again and again")
                await asyncio.sleep(BREAK_S)
                continue
            if answer.status >= 500:
                self.faults.add(f"answered {answer.status}", f"{method} {path}: {answer.body!r}")
            return Told(answer.status, read(answer.body))

    async def ask_until(self, method: str, path: str, body: Any = None, key: str = "") -> Told:
        """Send a repeatable request until there is an answer."""
        repeated = False
        while (told := await self.ask(method, path, body, key)) is None:
            repeated = True
        return Told(told.status, told.body, repeated)

    async def look(self, job_id: str) -> tuple[Told, Told]:
        """A job, and its history. If the job goes between the two, it is gone in both."""
        told = await self.ask_until("GET", f"/jobs/{job_id}?include=payload")
        events = await self.ask_until("GET", f"/jobs/{job_id}/history")
        if told.status == 200 and events.status == 404:
            told = await self.ask_until("GET", f"/jobs/{job_id}?include=payload")
        return told, events

    def is_good(self, told: Told, what: str) -> bool:
        """Whether the answer is a success; if not, notes a fault."""
        if 200 <= told.status < 300:
            return True
        self.faults.add("wrong answer", f"{what} got {told.status} {told.body}")
        return False

    async def status_with(self, key: str, path: str) -> int:
        """The status of a request with another key."""
        transport = LoopTransport(Address.of(self._url, key))
        try:
            while True:
                await self.up.wait()
                try:
                    return (await transport.send(Call("GET", path, bytes), TIMEOUT_S)).status
                except ServerUnreachable:
                    await asyncio.sleep(BREAK_S)
        finally:
            await transport.close()


def read(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body
