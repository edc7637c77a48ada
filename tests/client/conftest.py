"""One server for the tests of a file, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastq import AsyncClient, Client, Worker
from tests.client.served import WAIT_S, Both, Made, Place, Starts
from tests.served import Served


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Served(tmp_path_factory.mktemp("sdk") / "data", BACKOFF_BASE="10ms", BACKOFF_CAP="10ms") as server:
        yield Place(server)


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    """A client with an admin key, which may submit and lease."""
    with Client(place.url, place.keys["admin"]) as client:
        yield client


@pytest.fixture
async def aclient(place: Place) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(place.url, place.keys["admin"]) as client:
        yield client


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("[", ".").replace("]", "")[-60:]


@pytest.fixture
def at_work(place: Place, queue: str) -> Starts:
    """`async with at_work(handler, …) as worker:` runs a worker on the queue of the test."""

    @asynccontextmanager
    async def start(handler: Any, **options: Any) -> AsyncIterator[Worker]:
        options = {"url": place.url, "key": place.keys["worker"], "queues": [queue], "lease_ms": 1000, **options}
        worker = Worker(handler, **options)
        running = asyncio.create_task(worker.run_async())
        try:
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(running, WAIT_S)

    return start


@pytest.fixture
def at_work_with() -> Starts:
    """`async with at_work_with(worker):` runs the worker."""

    @asynccontextmanager
    async def start(worker: Worker) -> AsyncIterator[None]:
        running = asyncio.create_task(worker.run_async())
        try:
            yield
        finally:
            worker.stop()
            await asyncio.wait_for(running, WAIT_S)

    return start


@pytest.fixture(params=["sync", "async"])
def made(request: pytest.FixtureRequest, place: Place) -> Iterator[Made]:
    all_made: list[Both] = []

    def make(url: str | None = None, key: str = "admin", **options: Any) -> Both:
        one = Both(request.param, url or place.url, place.keys.get(key, key), **options)
        all_made.append(one)
        return one

    yield make
    for one in all_made:
        one.end()


@pytest.fixture
def both(made: Made) -> Any:
    return made()
