"""The interface of a system to compare: how to start, stop and measure it, and what to send it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from bench.compare.generator import Plan
from bench.compare.machine import cpu_s, disk_bytes, memory_bytes
from bench.load import pinned

PAYLOAD = b"x" * 100
START_S = 60
TRY_S = 0.005


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class System(ABC):
    """`with Beanstalkd(directory, core) as system:` starts a server on `directory`, and kills it at the end.

    `core`: the number of the core to pin it to; empty: any.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str] = ""
    program: ClassVar[str] = ""
    refusals: ClassVar[tuple[bytes, ...]] = ()  # replies of a server that listens but is not ready yet

    def __init__(self, directory: Path, core: str = "") -> None:
        self.directory = directory
        self.core = core
        self.port = free_port()
        self._process: subprocess.Popen[bytes]

    @classmethod
    def found(cls) -> str | None:
        """The path of its program, if it is installed."""
        return shutil.which(cls.program)

    @classmethod
    def version(cls) -> str:
        said = subprocess.run([cls.found() or cls.program, "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"\d+\.\d+[\w.]*", said.stdout)
        return found[0] if found else said.stdout.strip()

    @abstractmethod
    def command(self, synced: bool) -> list[str]:
        """Args: synced: whether every answer waits for the disk; False only to store jobs quickly."""

    def user(self) -> str | None:
        """The user that runs it, if not the caller."""
        return None

    def prepare(self) -> None:
        """Prepare the directory before the first start."""
        self.directory.mkdir()

    @abstractmethod
    def plan(self, batch: int = 1) -> Plan:
        """Args: batch: jobs in one submit."""

    def __enter__(self) -> Self:
        self.prepare()
        self.launch()
        try:
            self.wait_until_it_answers(with_a_job=False)
            self.ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def ready(self) -> None:  # noqa: B027 - most need nothing
        """Make what its queue needs, after the first start."""

    def launch(self, synced: bool = True) -> None:
        """Start the process, in a session of its own, so that all of it can be killed."""
        with self.directory.with_suffix(".out").open("ab") as out:
            self._process = subprocess.Popen(
                [*pinned(self.core), *self.command(synced)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, env=self.environ(), user=self.user(), cwd=self.directory,
            )  # fmt: skip

    def environ(self) -> dict[str, str]:
        return dict(os.environ)

    def wait_until_it_answers(self, with_a_job: bool) -> None:
        """Wait until a lease on a new connection is answered: with a job, or with anything but a refusal."""
        give_up_s = time.monotonic() + START_S
        while not self._leases(with_a_job):
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError(f"{self.name} does not answer:\n{self.directory.with_suffix('.out').read_text()}")
            try:
                self._process.wait(TRY_S)
            except subprocess.TimeoutExpired:
                continue

    def _leases(self, with_a_job: bool) -> bool:
        plan = self.plan()
        said = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as connection:
                connection.sendall(plan.hello + plan.lease if with_a_job else self.greeting())
                while plan.id not in said if with_a_job else not said:
                    got = connection.recv(65536)
                    said += got
                    if not got or any(refusal in said for refusal in self.refusals):
                        return False
        except OSError:
            return False
        return True

    @abstractmethod
    def greeting(self) -> bytes:
        """A request that an empty server answers."""

    def stop(self) -> None:
        """Stop it in order, so that everything is on disk."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        return cpu_s(self._process.pid)

    def memory_bytes(self) -> int:
        return memory_bytes(self._process.pid)

    def disk_bytes(self) -> int:
        """The disk that its jobs take. Call it when the server is stopped."""
        return disk_bytes(self.directory)
