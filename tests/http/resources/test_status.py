"""What is open to all: /health and /ready."""

from __future__ import annotations

import pytest

from fastq.http.resources.status import Ready
from tests.http.test_table import STOPPING, refused, shaped
from tests.http.world import World

NO_SPACE = "no space left in the data directory: free some on the server's disk"


async def test_health(world: World) -> None:
    reply = await world.call(None, "GET", "/health")
    assert (reply.status, reply.body) == (200, b"OK")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_ready(world: World) -> None:
    assert shaped(await world.call(None, "GET", "/ready"), 200, Ready) == {"status": "ready"}


async def test_not_ready_while_draining(world: World) -> None:
    world.engine.drain()
    reply = await world.call(None, "GET", "/ready")
    refused(reply, 503, STOPPING, "draining")
    assert reply.headers["retry-after"] == "5"


async def test_not_ready_with_a_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(world.engine), "disk_full", True)
    refused(await world.call(None, "GET", "/ready"), 503, NO_SPACE, "disk_full")
