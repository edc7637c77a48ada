"""One server for the tests of a file, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from fastq import AsyncClient, Client
from tests.sdk.served import Place
from tests.served import Served


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Served(tmp_path_factory.mktemp("sdk") / "data", BACKOFF_BASE="10ms", BACKOFF_CAP="10ms") as server:
        yield Place(server)


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    """With an admin's key: it may submit and lease."""
    with Client(place.url, place.keys["admin"]) as client:
        yield client


@pytest.fixture
async def aclient(place: Place) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(place.url, place.keys["admin"]) as client:
        yield client
