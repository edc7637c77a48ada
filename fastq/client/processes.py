"""Handlers in processes of their own: for work that holds the interpreter, and that can be stopped in its middle."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from fastq.client.errors import ProcessFailed
from fastq.client.job import Job
from fastq.client.models import LeasedJob

_START = multiprocessing.get_context("spawn")  # a fork would take over locks of threads that it does not have
END_S = 5.0


class Child:
    """A process that runs one handler at a time. `run` blocks: it belongs in a thread."""

    def __init__(self) -> None:
        self._pipe, theirs = _START.Pipe()
        self._process = _START.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(
        self, function: Callable[..., Any], leased: LeasedJob, payload: Any, report: Callable[[int, str], None]
    ) -> Any:
        """What the function returns for a `Job`. Raises ProcessFailed."""
        try:
            self._pipe.send((function, leased, payload))
            while True:
                what, *told = self._pipe.recv()
                if what == "progress":
                    report(*told)
                elif what == "done":
                    return told[0]
                else:
                    raise ProcessFailed(*told)
        except (EOFError, OSError):
            self._process.join(END_S)
            raise ProcessFailed("ProcessEnded", f"exit code {self._process.exitcode}", "") from None

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """From any thread; `run` raises then."""
        self._process.kill()

    def end(self) -> None:
        self.kill()
        self._process.join(END_S)
        self._pipe.close()


class Children:
    """As many as are used at a time; one that has ended is not used again."""

    def __init__(self) -> None:
        self._idle: list[Child] = []
        self._all: set[Child] = set()

    def take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._drop(child)
        child = Child()
        self._all.add(child)
        return child

    def give_back(self, child: Child) -> None:
        self._idle.append(child)

    def _drop(self, child: Child) -> None:
        self._all.discard(child)
        child.end()

    def end(self) -> None:
        for child in list(self._all):
            self._drop(child)


def _serve(pipe: Connection[Any, Any]) -> None:
    """The process: until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    logger = logging.getLogger("fastq.worker")
    while True:
        try:
            function, leased, payload = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001 -- what cannot be imported here
            pipe.send(("failed", type(error).__name__, str(error), traceback.format_exc()))
            continue
        job = Job(leased, payload, logger, lambda _, percent, note: pipe.send(("progress", percent, note)))
        try:
            pipe.send(("done", function(job)))
        except Exception as error:  # noqa: BLE001 -- whatever a handler raises, or a result that has no pickle
            pipe.send(("failed", type(error).__name__, str(error), traceback.format_exc()))
