"""Benchmarks of requests over HTTP, all the way to the disk: one connection to a real server.

`./dev bench suites -q bench/test_http.py`. Every submit, lease and ack waits for the disk: compare them with `sync_us`
in `extra_info`, the latency of fdatasync, and with the empty lease, which does not wait for the disk.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.compare.machine import sync_us
from bench.load import Server

JOB = b'{"payload":"%s"}' % (b"x" * 100)
LEASE = b'{"queues":["leased"]}'
LEASED_JOB = b'{"queue":"leased","payload":"%s"}' % (b"x" * 100)
EMPTY_LEASE = b'{"queues":["empty"]}'
PIPELINED = 32
ROUNDS = 300


class Connection:
    """A blocking keep-alive connection. It sends requests as given and splits replies by their Content-Length."""

    def __init__(self, server: Server) -> None:
        self._head = f"Host: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.keys['admin']}\r\n"
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def request(self, path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    def ask(self, requests: bytes, replies: int = 1, status: bytes = b"201") -> bytes:
        """Send requests and read `replies` answers, all of this status. Returns the last one's body."""
        self._socket.sendall(requests)
        body = b""
        for _ in range(replies):
            line = self._file.readline()
            length = 0
            while (header := self._file.readline()) != b"\r\n":
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = self._file.read(length)
            assert line.split()[1] == status, line + body
        return body

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("http") / "data") as running:
        yield running


@pytest.fixture
def connection(server: Server, benchmark: BenchmarkFixture, tmp_path: Path) -> Iterator[Connection]:
    benchmark.extra_info["sync_us"] = round(sync_us(tmp_path, 4096))
    made = Connection(server)
    yield made
    made.close()


def test_submit(benchmark: BenchmarkFixture, connection: Connection) -> None:
    submit = connection.request("/jobs", JOB)
    benchmark.pedantic(lambda: connection.ask(submit), rounds=ROUNDS, warmup_rounds=10)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("jobs", [100, 1000])
def test_submit_batch(benchmark: BenchmarkFixture, connection: Connection, jobs: int) -> None:
    submit = connection.request("/jobs/batch", b'{"jobs":[' + b",".join([JOB] * jobs) + b"]}")
    benchmark.extra_info["jobs"] = jobs
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: connection.ask(submit), rounds=ROUNDS // 3, warmup_rounds=3
    )


def test_submit_pipelined(benchmark: BenchmarkFixture, connection: Connection) -> None:
    """Requests that do not wait for earlier answers."""
    submits = connection.request("/jobs", JOB) * PIPELINED
    benchmark.extra_info["jobs"] = PIPELINED
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: connection.ask(submits, PIPELINED), rounds=ROUNDS, warmup_rounds=10
    )


def test_lease(benchmark: BenchmarkFixture, connection: Connection) -> None:
    """A job is submitted before each round; its time does not count."""
    submit, lease = connection.request("/jobs", LEASED_JOB), connection.request("/jobs/lease", LEASE)
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: connection.ask(lease, status=b"200"), setup=lambda: connection.ask(submit) and None, rounds=ROUNDS
    )


def test_ack(benchmark: BenchmarkFixture, connection: Connection) -> None:
    submit, lease = connection.request("/jobs", LEASED_JOB), connection.request("/jobs/lease", LEASE)

    def leased() -> tuple[tuple[bytes], dict[str, object]]:
        connection.ask(submit)
        held = msgspec.json.decode(connection.ask(lease, status=b"200"))
        ack = msgspec.json.encode({"lease_token": held["lease_token"]})
        return (connection.request(f"/jobs/{held['job_id']}/ack", ack),), {}

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda ack: connection.ask(ack, status=b"200"), setup=leased, rounds=ROUNDS
    )


def test_empty_lease(benchmark: BenchmarkFixture, connection: Connection) -> None:
    lease = connection.request("/jobs/lease", EMPTY_LEASE)
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: connection.ask(lease, status=b"404"), rounds=ROUNDS, warmup_rounds=10
    )
