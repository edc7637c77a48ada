"""A worker in a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from fastq.clock import monotonic_us
from tests.client.served import WAIT_S, Place
from tests.served import ROOT

HEAD = """
import asyncio, os, signal, subprocess, sys, threading, time
import fastq
"""


class Program:
    """`with Program(place, directory, script) as program:` runs a script; with `app` it runs `fastq worker` instead."""

    def __init__(self, place: Place, directory: Path, script: str, *app: str) -> None:
        self._directory, self.said_path = directory, directory / "said"
        (directory / "script.py").write_text(HEAD + script)
        self._environ = os.environ | {
            "PYTHONPATH": str(ROOT),
            "FASTQ_URL": place.url,
            "FASTQ_KEY": place.keys["worker"],
        }
        self._argv = [sys.executable, *(["-m", "fastq", "worker", *app] if app else ["script.py"])]
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self.said_path.open("ab") as said:
            self.process = subprocess.Popen(
                self._argv, cwd=self._directory, env=self._environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        return self.said_path.read_text(errors="replace")

    def until_said(self, text: str, count: int = 1) -> str:
        """What the program has said, as soon as the text is in it so often."""
        begun_us = monotonic_us()
        while (said := self.said).count(text) < count:
            if monotonic_us() - begun_us > WAIT_S * 1e6:
                raise TimeoutError(f"not said: {text!r} in\n{said}")
            threading.Event().wait(0.01)
        return said

    def ends(self, *signals: signal.Signals, within_s: float = WAIT_S) -> int:
        """Send signals and wait for the end. Returns the exit code."""
        for number in signals:
            self.process.send_signal(number)
            threading.Event().wait(0.2)
        return self.process.wait(within_s)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def until_gone(pid: int) -> None:
    begun_us = monotonic_us()
    while is_running(pid):
        if monotonic_us() - begun_us > WAIT_S * 1e6:
            raise TimeoutError(f"process {pid} is still there")
        threading.Event().wait(0.01)
