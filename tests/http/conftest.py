"""Fixtures of the API's tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.http.world import World, running


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["lane", "falcon"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Every test of the API twice: with the hot lane, and with all requests through Falcon."""
    async with running(lane=request.param == "lane") as one:
        yield one
