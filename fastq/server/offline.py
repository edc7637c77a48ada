"""The keys of a stopped server, for `fastq keys --offline`. Nothing of the server runs: no retention, no expiry, no
schedules. Reading writes nothing. A change appends its own record, and its entry in the audit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import uvloop

from fastq._core import Core
from fastq.clock import wall_us
from fastq.engine import Engine
from fastq.errors import Overloaded
from fastq.log.files.tools.check import empty_core, read_whole
from fastq.server.run import clock_of, die, open_node
from fastq.server.settings import Settings
from fastq.services.keys import KeyStore
from fastq.services.keys.opening import opened_keys

T = TypeVar("T")
TRIES, RETRY_S = 1_000, 0.02


class DocumentsRead:
    """The documents of a log that was only read, for key stores."""

    def __init__(self, core: Core) -> None:
        self.documents = core.documents
        self.put_document = self.put_documents = self.drop_documents = _change
        self.now_us = wall_us

    async def durable(self) -> None:
        """Return: everything that was read is in the log."""

    async def caught_up(self) -> None:
        """Return, likewise."""


def _change(*_: Any, **__: Any) -> None:
    raise AssertionError("a command that reads changes no document")


def read_keys(settings: Settings, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    """Run `work`, which changes nothing, on the keys. The caller keeps servers out of the directory.

    Raises:
        StartError, ApiError, OSError.
    """
    core = empty_core()
    read_whole(settings.directory, core)

    async def on_keys() -> T:
        async with opened_keys(settings.redis_url, settings.redis_grace_ms, DocumentsRead(core)) as keys:
            return await work(keys)

    return asyncio.run(on_keys())


async def _when_there_is_room(change: Callable[[], Awaitable[T]]) -> T:
    """Make a change. Repeat it while the log's next segment is being made: a refused change appends nothing."""
    for _ in range(TRIES):
        with contextlib.suppress(Overloaded):
            return await change()
        await asyncio.sleep(RETRY_S)
    return await change()


def change_keys(
    settings: Settings,
    work: Callable[[Engine, KeyStore], Awaitable[T]],
    claim_store: bool = False,
    when_durable: Callable[[T, KeyStore], Awaitable[None]] | None = None,
) -> T:
    """Run `work` on the keys. Returns its result.

    Args:
        claim_store: accept the Redis of the settings, although the log names another one.
        when_durable: gets the result when it is on stable storage.
    Raises:
        StartError, ApiError, OSError.
    """
    node, _ = open_node(settings)

    async def on_keys() -> T:
        clock = clock_of(settings, node.engine)
        async with node.running(clock, die, settings.redis_url, settings.redis_grace_ms, is_idle=True) as keys:
            await keys.claim(anew=claim_store)
            done = await _when_there_is_room(lambda: work(node.engine, keys))
            if when_durable is not None:
                await node.engine.durable()
                await when_durable(done, keys)
            return done

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(on_keys())
