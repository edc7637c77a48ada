"""What a document tells people to type: its blocks, a shell that runs them, and what of the output may differ."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.served import Served

MARK = "@@@"
END_S = 60

# What differs from run to run.
CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}"), "JOB"),
    (re.compile(r"\b[0-9a-f]{24}\b"), "TOKEN"),
    (re.compile(r"\b(client|worker|admin)_[A-Za-z0-9_-]{32}"), r"\1_SECRET"),
    (re.compile(r"\b(client|worker|admin)_[A-Za-z0-9_-]{12}"), r"\1_ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"--cursor \S+"), "--cursor PAGE"),
    (re.compile(r" +"), " "),
)

COPIED = (("ID", CHANGING[0][0]), ("JOB", CHANGING[0][0]), ("TOKEN", CHANGING[1][0]))

BLOCK = re.compile(r"(?:(?:^|\n)`([\w./]+)`:\n\n)?```(python|sh|console)\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: a Python file that has a name, or lines for a shell."""

    language: str
    text: str
    name: str | None = None

    def commands(self) -> list[tuple[str, str]]:
        """(command, what it prints). Console: `$ command` and its output; sh: a command and its output behind `# `."""
        if self.language == "console":
            pieces = [piece.partition("\n") for piece in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]]
            return [(command.split("    #")[0].strip(), output) for command, _, output in pieces]
        found: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            if line == "#" or line.startswith("# "):
                command, output = found[-1]
                found[-1] = (command, f"{output}{line[2:]}\n")
            elif line:
                found.append((line, ""))
        return found


def blocks(text: str) -> list[Block]:
    return [Block(language, code, name or None) for name, language, code in BLOCK.findall(text)]


def settled(text: str) -> str:
    """Without what differs from run to run."""
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def agrees(expected: str, output: str) -> bool:
    """Whether a command printed what is written; `…` stands for anything on its line."""
    pattern = ".*".join(re.escape(part) for part in settled(expected).split("…"))
    return re.fullmatch(pattern, settled(output)) is not None


class Shell:
    """One sh that a person types into. `./dev fastq`, `fastq` and `.venv/bin/python` in it are this checkout's."""

    def __init__(self, directory: Path, columns: int = 0, **env: str) -> None:
        """
        Args:
            columns: of the terminal that it prints on. 0: a pipe.
        """
        self._directory, self._columns = directory, columns
        self._env = os.environ | {"LD_PRELOAD": ""} | env  # the sanitizer's library (./dev asan) is for Python only
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        python = f'exec env LD_PRELOAD="{os.environ.get("LD_PRELOAD", "")}" {sys.executable}'
        self._script("dev", f'[ "$1" = fastq ] || exit 64\nshift\n{python} -m fastq "$@"\n')
        self._script(".venv/bin/python", f'{python} "$@"\n')
        self._script("bin/fastq", f'{python} -m fastq "$@"\n')
        path = f"{self._directory}/bin:{os.environ['PATH']}"
        ours, theirs = pty.openpty() if self._columns else os.pipe()
        if self._columns:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, self._columns, 0, 0))
        self._output = open(ours)
        self._process = subprocess.Popen(
            ["sh"], cwd=self._directory, env=self._env | {"PATH": path}, text=True,
            stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        return self

    def _script(self, name: str, text: str) -> None:
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)

    def enter(self, command: str) -> str:
        """Run it; what it printed, on both outputs."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\necho; echo {MARK}\n")
        self._process.stdin.flush()
        lines = []
        while (line := self._output.readline()) != f"{MARK}\n":
            assert line, f"the shell ended: {command}"
            lines.append(line)
        return "".join(lines).removesuffix("\n")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it. What it started in the background has ended too by then, unless something failed: it is killed."""
        try:
            if error is None:
                self._process.communicate(timeout=END_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._output.close()


class Reader:
    """Types what a document tells, block by block, and copies what stands as `…` from what was printed before."""

    def __init__(self, directory: Path, server: Served, shell: Shell) -> None:
        self._directory = directory
        self._server = server
        self._shell = shell
        self._last = ""  # output that had anything to copy
        self.typed = 0

    def follow(self, block: Block) -> None:
        """Raises AssertionError if a command prints something else than is written."""
        if block.language == "python":
            assert block.name is not None, f"no file is named for:\n{block.text}"
            (self._directory / block.name).write_text(block.text)
            return
        for command, expected in block.commands():
            output = self._shell.enter(self._with_copies(command))
            self.typed += 1
            assert agrees(expected, output), f"{command}\n\nprinted:\n{output}\nwritten:\n{expected}"
            self._last = output or self._last

    def _with_copies(self, command: str) -> str:
        command = command.replace("localhost:8080", f"localhost:{self._server.port}")
        for kind, secret in self._server.keys.items():
            command = command.replace(f"{kind}_…", secret)
        for name, what in COPIED:
            if f"{name}=…" in command:
                found = what.search(self._last)
                assert found is not None, f"{command}: nothing to copy in\n{self._last}"
                command = command.replace(f"{name}=…", f"{name}={found[0]}")
        assert "…" not in command
        return command
