"""Thousands of idle connections, and a server without free file descriptors: it goes on and loses nothing.

FASTQ_IDLE_CONNECTIONS=10000 is the long form.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from fastq.http.connection.accept import OPEN_FILES_KEPT, OPEN_FILES_MIN
from fastq.log.files.ready import READY_SEGMENTS
from tests import served
from tests.served import END_S, Served, run_to_its_end

pytestmark = pytest.mark.alone  # it measures processor time, and opens as many connections as allowed

IDLE = int(os.environ.get("FASTQ_IDLE_CONNECTIONS", "1000"))
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
SETTINGS = {"WAL_SEGMENT_BYTES": "4MiB"}
PAYLOAD = "p" * 100_000


def connect(server: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), END_S)


def is_answered(connection: socket.socket) -> bool:
    """Whether the server answers 200; False also if it closes the connection."""
    connection.sendall(HEALTH)
    reply = piece = connection.recv(4096)
    while piece and not reply.endswith(b"OK"):
        reply += (piece := connection.recv(4096))
    return reply.startswith(b"HTTP/1.1 200 ")


@contextlib.contextmanager
def idle(server: Served, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that had one answer each."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connections.append(stack.enter_context(connect(server)))
            assert is_answered(connections[-1])
        yield connections


class Client:
    """One keep-alive connection, for a `with`."""

    def __init__(self, server: Served) -> None:
        self._keys = server.keys
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, who: str, path: str, body: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._keys[who]}"}
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def submit(self) -> list[str]:
        """A megabyte of jobs; waits while the next segment is made."""
        for _ in range(1000):
            status, body = self.call("client", "/jobs/batch", {"jobs": [{"payload": PAYLOAD}] * 10})
            if status == 201:
                return list(body["job_ids"])
            assert status in (429, 503), body
        raise AssertionError("no room is made")


def cpu_s(server: Served) -> float:
    words = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def spins(server: Served) -> bool:
    """Whether the server takes processor time without requests."""
    before = cpu_s(server)
    select.select([], [], [], 0.5)
    return cpu_s(server) - before > 0.25


@pytest.fixture
def few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with the smallest limit of open files that it accepts."""
    monkeypatch.setattr(served, "SERVE", ("prlimit", f"--nofile={OPEN_FILES_MIN}", *served.SERVE))
    with Served(tmp_path / "data", **SETTINGS) as server:
        yield server


def test_connections_leave_the_log_its_descriptors(few_files: Served) -> None:
    server, key = few_files, few_files.keys["client"]
    may_be = OPEN_FILES_MIN - OPEN_FILES_KEPT
    with Client(server) as client, contextlib.ExitStack() as stack:
        ids = client.submit()
        connections = stack.enter_context(idle(server, may_be - 2))  # one that just came in may be counted twice
        refusals = []
        for _ in range(OPEN_FILES_MIN):  # far more than there could be
            connection = stack.enter_context(connect(server))
            connection.sendall(HEALTH)
            if not (reply := connection.recv(4096)).startswith(b"HTTP/1.1 200 "):
                refusals.append(reply)
        assert len(refusals) >= OPEN_FILES_MIN - 1
        head, _, body = refusals[-1].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable") and b"Retry-After: 1" in head
        assert json.loads(body)["code"] == "overloaded"
        with contextlib.ExitStack() as silent:
            for _ in range(2 * OPEN_FILES_MIN):  # nor are any left to those that take no answer
                silent.enter_context(connect(server))
            for _ in range(20):  # five segments
                ids += client.submit()
            assert not spins(server)
        status, body = client.call("worker", "/jobs/lease", {"max": 10})
        assert status == 200 and len(body["jobs"]) == 10
        assert all(is_answered(connection) for connection in connections)
    assert server.stderr.count("new ones are refused") == 1, "said once, not for each"
    server.kill()
    server.start()
    assert all(server.call(key, "GET", f"/jobs/{job_id}")[0] == 200 for job_id in ids)


def wait_until_at_rest(server: Served) -> None:
    """Wait until all ready segments are made, and the server has opened no file for a while."""
    looks = 0
    for _ in range(3000):
        if looks == 20:
            return
        opened = {os.readlink(path) for path in Path(f"/proc/{server.process.pid}/fd").iterdir() if path.is_symlink()}
        made = len(list(server.directory.glob("segment-*"))) == 1 + READY_SEGMENTS
        looks = looks + 1 if made and str(server.directory) not in opened else 0
        select.select([], [], [], 0.01)
    raise AssertionError("segments are not made")


def test_connections_wait_while_no_descriptor_is_free(few_files: Served) -> None:
    """As when the system has no descriptors left: new connections wait, open ones go on."""
    server = few_files
    with Client(server) as client, contextlib.ExitStack() as stack:
        assert client.call("client", "/jobs", {"payload": "x"})[0] == 201
        wait_until_at_rest(server)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, OPEN_FILES_MIN))  # those that are open stay
        waiting = stack.enter_context(connect(server))
        waiting.sendall(HEALTH)
        assert not spins(server)
        assert client.call("worker", "/jobs/lease", {"max": 1})[0] == 200
        assert not select.select([waiting], [], [], 0)[0]
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (OPEN_FILES_MIN, OPEN_FILES_MIN))
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert "cannot accept connections: Too many open files" in server.stderr


def test_a_start_refuses_a_limit_of_open_files_that_is_too_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "SERVE", ("prlimit", f"--nofile={OPEN_FILES_MIN - 1}", *served.SERVE))
    ended = run_to_its_end(tmp_path / "data")
    assert ended.returncode == 78
    assert ended.stderr == "fastq: ulimit -n: 255 open files are too few; allow 256 or more\n"


def test_idle_connections_take_only_memory(tmp_path: Path) -> None:
    """A client is served meanwhile, and each idle connection afterwards."""
    with Served(tmp_path / "data", **SETTINGS) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(server))
        client.submit()
        before_kb = resident_kb(server)
        connections = stack.enter_context(idle(server, IDLE))
        assert not spins(server)
        times_s = []
        for _ in range(300):
            start = time.perf_counter()
            assert client.call("client", "/jobs", {"payload": "x"})[0] == 201
            times_s.append(time.perf_counter() - start)
        each_kb = (resident_kb(server) - before_kb) / IDLE
        p99_ms = sorted(times_s)[-3] * 1000
        print(f"{IDLE} idle connections: {each_kb:.1f} KiB each; submits of another client: p99 {p99_ms:.1f} ms")
        assert each_kb < 64
        assert p99_ms < 1000
        assert all(is_answered(connection) for connection in connections)
        assert server.stop() == 0


def resident_kb(server: Served) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
