"""A real server that is killed while it catches up on missed times: each of them makes one job."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastq.clock import Clock
from fastq.engine import EngineOptions
from fastq.log.files.log import LocalLog
from fastq.server.assembly import Node
from fastq.services.schedule import CATCH_UP_MAX, Schedule
from tests.served import Served
from tests.timed import ADMIN

pytestmark = pytest.mark.slow

SCHEDULES, KILLS = 20, 4
TIMES = SCHEDULES * CATCH_UP_MAX


async def schedule_in_the_past(directory: Path) -> str:
    """Put schedules that were due each minute of a day that is over. Returns the secret of an admin key."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    began_us = int((day - timedelta(days=1)).timestamp()) * 1_000_000
    node = Node(LocalLog(directory), EngineOptions(), lambda: 0.5)
    node.open()
    async with node.running(Clock(began_us), lambda error: pytest.fail(str(error))) as keys:
        secret, _ = await keys.create("admin", ADMIN.owner_id, "admin", began_us)
        async with node.serving("past"):
            for number in range(SCHEDULES):
                job = msgspec.Raw(b'{"payload":"tick","queue":"q%d"}' % number)
                cron = f"* * {day.day} {day.month} *"
                fields: dict[str, Any] = {"catch_up": "all", "catch_up_max": CATCH_UP_MAX, "overlap": "allow"}
                schedule = Schedule(cron, "UTC", job, ADMIN.owner_id, ADMIN.key_id, began_us, **fields)
                node.schedules.put(ADMIN, f"s{number}", schedule)
        await node.engine.durable()
    return secret


def fired(server: Served, key: str) -> dict[str, int]:
    """How many jobs each queue has."""
    status, body = server.call(key, "GET", "/queues?limit=1000")
    assert status == 200, body
    return {queue["name"]: queue["ready"] for queue in body["queues"]}


def test_kill_9_while_missed_times_fire(tmp_path: Path) -> None:
    key = asyncio.run(schedule_in_the_past(tmp_path / "data"))
    with Served(tmp_path / "data") as server:
        for kill in range(KILLS):
            enough = TIMES * (kill + 1) // (KILLS + 2)
            while sum(fired(server, key).values()) < enough:
                pass
            server.kill()
            server.start()
            assert sum(fired(server, key).values()) < TIMES, "it was killed in the middle"
        while sum(fired(server, key).values()) < TIMES:
            pass
        server.stop()
        server.start()
        assert fired(server, key) == {f"q{number}": CATCH_UP_MAX for number in range(SCHEDULES)}
