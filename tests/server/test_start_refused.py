"""Refused starts: one line on standard error, and an exit code for each reason."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from fastq.clock import Clock, wall_us
from fastq.engine import EngineOptions, assemble
from fastq.log.files.log import LocalLog
from tests.served import Served, run_to_its_end

pytestmark = pytest.mark.slow

QUICK = {"LEASE_CHECK_INTERVAL": "50ms", "WAL_SEGMENT_BYTES": "4MiB"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "eighty"), ("LEASE_DURATION", "1ms"), ("WAL_ALIGN", "3"), ("REDIS_URL", "http://r"), ("HOST", "a:b:")],
)
def test_a_wrong_setting_stops_the_start(directory: Path, name: str, value: str) -> None:
    ended = run_to_its_end(directory, **{name: value})
    assert ended.returncode == 78
    assert ended.stderr.startswith(f"fastq: {name}: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert not directory.exists()


def test_a_port_in_use(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run_to_its_end(directory, PORT=port)
    assert ended.returncode == 78
    assert ended.stderr == f"fastq: PORT: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine(directory: Path, host: str) -> None:
    ended = run_to_its_end(directory, HOST=host)
    assert ended.returncode == 78
    assert ended.stderr.startswith("fastq: HOST: ")
    assert host in ended.stderr


def test_the_directory_is_a_file(directory: Path) -> None:
    directory.write_text("a file")
    ended = run_to_its_end(directory)
    assert ended.returncode == 78
    assert ended.stderr.startswith(f"fastq: WAL_DIR: '{directory}' cannot be used: ")
    assert directory.read_text() == "a file"


def test_a_second_server_on_one_directory(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        ended = run_to_its_end(directory)
        assert ended.returncode == 75
        assert str(directory) in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert ended.stdout == ""
        server.submit(server.keys["client"])
        assert server.stop() == 0


@pytest.mark.parametrize("content", ["", "admin_short", "client_" + "x" * 32, "admin_" + "x" * 31 + " y"])
def test_a_file_without_a_key_stops_the_start(directory: Path, content: str) -> None:
    given = directory.with_name("given")
    given.write_text(content)
    ended = run_to_its_end(directory, SEED_DEV_KEYS="false", ADMIN_KEY_FILE=str(given))
    assert ended.returncode == 78
    assert ended.stderr.startswith("fastq: ADMIN_KEY_FILE: ")
    assert ended.stdout == ""
    assert content == "" or content not in ended.stderr


def test_damage_to_acknowledged_data(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        for number in range(20):
            server.submit(server.keys["client"], f"job {number}")
        assert server.stop() == 0
    (path,) = [path for path in directory.iterdir() if b"job 7" in path.read_bytes()]
    content = bytearray(path.read_bytes())
    content[content.index(b"job 7")] ^= 1
    path.write_bytes(content)
    ended = run_to_its_end(directory)
    assert ended.returncode == 65
    assert ended.stderr.startswith("fastq: ")
    assert str(path) in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


async def _live_in_the_future(directory: Path, ahead_us: int) -> None:
    engine, _ = assemble(LocalLog(directory, segment_bytes=4 << 20), EngineOptions(), lambda: 0.5)
    engine.open()
    await engine.start(Clock(wall_us() + ahead_us), lambda error: pytest.fail(str(error)))
    await engine.stop()


def test_a_clock_far_behind_the_log(directory: Path) -> None:
    asyncio.run(_live_in_the_future(directory, 2 * 3_600_000_000))
    ended = run_to_its_end(directory)
    assert ended.returncode == 78
    assert "ACCEPT_CLOCK_BACK=true" in ended.stderr
    assert ended.stderr.count("\n") == 1
    with Served(directory, ACCEPT_CLOCK_BACK="true", **QUICK) as server:
        server.submit(server.keys["client"])
        assert server.stop() == 0


def test_a_clock_a_little_behind_the_log(directory: Path) -> None:
    asyncio.run(_live_in_the_future(directory, 1_800_000_000))
    with Served(directory, **QUICK) as server:
        server.submit(server.keys["client"])
