"""Commands that are killed, or run out of disk, at their n-th call that changes a file.

Each runs in a fork of one process that has loaded everything: hundreds of them take seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from tests.served import ROOT

SOURCE = Path(__file__).with_name("killed_at.c")
CALLS_MAX = 2000
KILLED = -9


def build_library(directory: Path) -> Path:
    """Compile killed_at.c; the library to preload."""
    made = directory / "killed_at.so"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", SOURCE, "-o", made, "-ldl"], check=True)
    return made


@dataclass(frozen=True)
class Ended:
    code: int  # KILLED: by itself
    out: str
    err: str


class Commands:
    """`with Commands(library, directory) as commands:` runs commands of fastq, one at a time."""

    def __init__(self, library: Path, directory: Path) -> None:
        """
        Args:
            directory: for what they print.
        """
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FASTQ_")}
        self._environ = environ | {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
        self._out, self._err = directory / "out", directory / "err"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills.commands"], cwd=ROOT, env=self._environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def run(self, *words: object, **environ: object) -> Ended:
        """Run `fastq WORDS`. `environ`: KILLED_AT and FULL_AT among others."""
        asked = {
            "words": [str(word) for word in words], "out": str(self._out), "err": str(self._err),
            "environ": {name: str(value) for name, value in environ.items()},
        }  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())
        return Ended(code, self._out.read_text(), self._err.read_text())


def calls(step: int) -> Iterator[int]:
    """Every `step`-th call of a command from the first on. The caller leaves the loop when the command has ended."""
    yield from range(1, CALLS_MAX, step)
    raise AssertionError("the command does not come to its end")


def _fork(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _run(asked)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(asked: dict[str, Any]) -> None:
    code = 99
    try:
        for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.argv = ["fastq", *asked["words"]]
        os.environ.update(asked["environ"])
        from fastq.__main__ import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 -- for the test to see
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    from fastq.cli import COMMANDS, main

    for name in COMMANDS:
        main.get_command(click.Context(main), name)
    import_module("fastq.server.offline")
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
