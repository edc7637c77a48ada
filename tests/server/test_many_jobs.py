"""A start on a log with a million jobs."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastq._core import NewJob
from fastq.clock import Clock, wall_us
from fastq.engine import EngineOptions, assemble
from fastq.log.files.log import LocalLog
from fastq.services.audit import Audit, AuditedDocuments
from fastq.services.keys import LogKeyStore
from tests.served import Served

pytestmark = pytest.mark.alone  # memory, and the time that a start takes

JOBS, TOGETHER = 1_000_000, 5_000
PAYLOAD_BYTES = 100
START_S_MAX, MEMORY_BYTES_MAX, DISK_BYTES_MAX = 20, 200 << 20, 300 << 20


def payload(number: int) -> str:
    return f"{number}:".ljust(PAYLOAD_BYTES - 2, "x")  # two quotes make it JSON


async def fill(directory: Path) -> dict[str, str]:
    """Submit JOBS jobs without HTTP. Returns the secrets of a client key and a worker key."""
    log = LocalLog(directory)
    engine, core = assemble(log, EngineOptions(), random.random)
    engine.open()
    await engine.start(Clock(wall_us()), lambda error: pytest.fail(str(error)))
    keys = LogKeyStore(AuditedDocuments(engine, Audit(engine)))
    made = {kind: (await keys.create(kind, "o", kind, engine.now_us()))[0] for kind in ("client", "worker")}
    for first in range(0, JOBS, TOGETHER):
        while not engine.commits.has_room(TOGETHER * 300):  # noqa: ASYNC110 (no event tells that a segment is ready)
            await asyncio.sleep(0.001)
        for number in range(first, first + TOGETHER):
            text = f'"{payload(number)}"'.encode()
            core.submit(engine.now_us(), NewJob(text, 3), owner_id="o", key_id="")
        await engine.durable()
    await engine.stop()
    return made


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


def is_spare(path: Path) -> bool:
    """Whether a segment is prepared but unused: its first frame is all zeros."""
    with path.open("rb") as file:
        file.seek(4096)
        return path.name.startswith("segment-") and not any(file.read(4096))


def test_a_start_recovers_a_million_jobs(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    directory = tmp_path / "data"
    made = asyncio.run(fill(directory))
    began_s = time.monotonic()
    with Served(directory) as server:
        assert server.call(None, "GET", "/ready")[0] == 200
        start_s = time.monotonic() - began_s
        assert server.lines[1].endswith("1,000,000 jobs (1,000,000 READY)"), server.lines
        assert not any(line.startswith("Created") for line in server.lines)
        memory_bytes = resident_bytes(server.process.pid)
        for number in range(3):  # the oldest first, and whole
            status, lease = server.call(made["worker"], "POST", "/jobs/lease", {})
            assert (status, lease["payload"]) == (200, payload(number))
        job_id = server.submit(made["client"], "one more")
        assert server.call(made["client"], "GET", f"/jobs/{job_id}")[1]["state"] == "READY"
        assert server.stop() == 0
    disk_bytes = sum(path.stat().st_size for path in directory.iterdir() if not is_spare(path))
    record_property("start_s", start_s)
    record_property("memory_bytes", memory_bytes)
    record_property("disk_bytes", disk_bytes)
    print(f"start {start_s:.2f} s, resident {memory_bytes >> 20} MiB, on disk {disk_bytes >> 20} MiB")
    assert start_s < START_S_MAX
    assert memory_bytes < MEMORY_BYTES_MAX
    assert disk_bytes < DISK_BYTES_MAX
