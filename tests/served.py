"""A real server in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, AnyStr, Self

ROOT = Path(__file__).resolve().parent.parent
SERVE = (sys.executable, "-m", "fastq", "serve")
END_S = 30


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to connections that go out.

    One from among those could go to another test's connection before the server listens, or while it restarts.
    """
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, lowest_given)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run_to_its_end(directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    environ = os.environ | {"PORT": "0", "WAL_DIR": str(directory)} | settings
    return subprocess.run(SERVE, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=END_S, check=False)


@contextlib.contextmanager
def ending(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Nothing of the process is left afterwards, whatever happens: a leftover fails another test with its warning."""
    with process:
        try:
            yield process
        finally:
            process.kill()


class Ended(Exception):
    """The server ended while it started."""

    def __init__(self, code: int, stderr: str) -> None:
        super().__init__(f"exit {code}: {stderr}")
        self.code = code


class Served:
    """`with Served(directory) as server:` starts it, waits until it listens, and kills it at the end if it still runs.

    Settings are environment variables. `lines` is what it said on standard output while it started.
    """

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.port = int(settings.get("PORT", 0))
        self._environ = os.environ | {"WAL_DIR": str(directory), "PORT": "0"} | settings
        self._stderr_path = directory.with_name(directory.name + ".stderr")
        self.lines: list[str] = []
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def start(self) -> Self:
        """Raises Ended."""
        self._launch(subprocess.PIPE)
        assert self.process.stdout is not None
        self.lines = []
        while not self.lines or not self.lines[-1].lstrip().startswith("curl "):
            line = self.process.stdout.readline()
            if not line:
                raise Ended(self.wait(), self.stderr)
            self.lines.append(said(line))
        self.port = int(self.lines[0].rpartition(":")[2])
        return self

    @contextlib.contextmanager
    def launched(self, stdout: int) -> Iterator[None]:
        """Run without waiting for anything that it says."""
        self._launch(stdout)
        try:
            yield
        finally:
            self.kill()

    def _launch(self, stdout: int) -> None:
        with self._stderr_path.open("a") as stderr:
            self.process = subprocess.Popen(SERVE, cwd=ROOT, env=self._environ, stdout=stdout, stderr=stderr, text=True)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self, seconds: float = END_S) -> int:
        """Until it has ended; the exit code."""
        code = self.process.wait(seconds)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    @property
    def stderr(self) -> str:
        return self._stderr_path.read_text()

    @property
    def keys(self) -> dict[str, str]:
        """Secrets by type, as they were printed; none but at a first start."""
        words = [line.split() for line in self.lines if line.startswith("Created ")]
        return {line[1]: line[3] for line in words}

    def call(
        self, key: str | None, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request on a connection of its own: status, and the body decoded if it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=END_S)
        try:
            sent = dict(headers or {}) | ({} if key is None else {"Authorization": f"Bearer {key}"})
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            content = answer.read()
            is_json = answer.getheader("Content-Type", "").startswith("application/json")
            return answer.status, json.loads(content) if is_json and content else content
        finally:
            connection.close()

    def submit(self, key: str, payload: Any = "x", **fields: Any) -> str:
        status, body = self.call(key, "POST", "/jobs", {"payload": payload, **fields})
        assert status == 201, body
        job_id: str = body["job_id"]
        return job_id

    def segments(self) -> bytes:
        """Every byte of the log."""
        return b"".join(path.read_bytes() for path in files(self.directory, lambda path: path.suffix != ".key"))


def said(line: str) -> str:
    """A line of the start message; with LOG_FORMAT=json an object."""
    text: str = json.loads(line)["message"] if line.startswith("{") else line.rstrip("\n")
    return text


def files(directory: Path, chosen: Callable[[Path], bool]) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and chosen(path)]
