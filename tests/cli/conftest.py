"""One server for the tests of a file, and commands that use it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner

from fastq import Client
from fastq.cli import main
from tests.client.served import Place
from tests.served import END_S, ROOT, Served


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def answer(self) -> Any:
        """The one JSON object in the output."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def answers(self) -> list[Any]:
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.lines]


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Served(tmp_path_factory.mktemp("cli") / "data", BACKOFF_BASE="10ms", BACKOFF_CAP="10ms") as server:
        yield Place(server)


@pytest.fixture
def run(place: Place) -> Run:
    """`run("job", "list", …)` runs a command with the admin key. Keywords set variables; `stdin` is text."""

    def invoke(*arguments: str, stdin: str = "", key: str = "admin", **environ: str) -> Done:
        env = {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys.get(key, key), **environ}
        done = CliRunner().invoke(main, list(arguments), input=stdin, env=env, catch_exceptions=False)
        return Done(done.exit_code, done.stdout, done.stderr)

    return invoke


AtTerminal = Callable[..., Done]


@pytest.fixture
def at_terminal(place: Place) -> AtTerminal:
    """`at_terminal("queues", "list", columns=80)` runs a command on a terminal; `typed` answers it."""

    def invoke(*arguments: str, columns: int = 80, typed: str = "", **environ: str) -> Done:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        env = os.environ | {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys["admin"], **environ}
        env.pop("COLUMNS", None)
        command = [sys.executable, "-m", "fastq", *arguments]
        with subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 -- one thread; Ctrl-C
        ) as process:  # fmt: skip
            os.close(theirs)
            try:
                printed = _conversation(ours, typed.encode())
                code = process.wait(END_S)
            finally:  # also when the test runs out of time
                process.kill()
                os.close(ours)
        return Done(code, printed.decode().replace("\r\n", "\n"), "")

    return invoke


def _conversation(terminal: int, left: bytes) -> bytes:
    """Type `left` when the question is there. Returns what was printed until the program ended."""
    printed = b""
    with contextlib.suppress(OSError):  # the last program with the other end has ended
        while select.select([terminal], [], [], END_S)[0]:
            if not (piece := os.read(terminal, 65536)):
                return printed
            printed += piece
            if left and b"[y/N]" in printed:
                os.write(terminal, left)
                left = b""
        raise AssertionError(f"nothing was printed for {END_S} s after {printed!r}")
    return printed


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    with Client(place.url, place.keys["admin"]) as client:
        yield client


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("[", ".").replace("]", "")[-60:]
