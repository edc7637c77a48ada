"""What the tests of the API share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.http.world import World, running


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as one:
        yield one
