"""taskiq's brokers and workers for the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from taskiq import AsyncTaskiqTask, TaskiqResult
from taskiq.receiver import Receiver

from fastq.integrations.taskiq import FastqBroker
from tests.client.served import WAIT_S, Place

Make = Callable[..., FastqBroker]


@pytest.fixture
async def broker_of(place: Place, queue: str) -> AsyncIterator[Make]:
    """Makes brokers for the queue of the test."""
    made: list[FastqBroker] = []

    def make(**options: Any) -> FastqBroker:
        broker = FastqBroker(place.url, place.keys["admin"], queue=queue, lease_ms=1000, **options)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        await broker.shutdown()


@asynccontextmanager
async def working(broker: FastqBroker, slots: int = 10) -> AsyncIterator[asyncio.Event]:
    """A taskiq worker that runs until the block ends, or the event is set."""
    broker.is_worker_process = True
    stop = asyncio.Event()
    running = asyncio.create_task(Receiver(broker, max_async_tasks=slots).listen(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(running, WAIT_S)
        await broker.shutdown()


async def end_of(task: AsyncTaskiqTask[Any]) -> TaskiqResult[Any]:
    return await task.wait_result(check_interval=0.01, timeout=WAIT_S)
