"""Child processes for handlers that hold the GIL, or that must be killed when their job is cancelled."""

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

_START = multiprocessing.get_context("spawn")  # a fork copies locks that threads of the parent hold
END_S = 5.0


class Child:
    """A process that runs one handler at a time. `run` blocks, so call it in a thread."""

    def __init__(self) -> None:
        self._pipe, theirs = _START.Pipe()
        self._process = _START.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(
        self, function: Callable[..., Any], leased: LeasedJob, payload: Any, report: Callable[[int, str], None]
    ) -> Any:
        """Call the function with a `Job` in the child. Returns its result. Raises ProcessFailed."""
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
        """Kill the process, from any thread. A `run` in progress raises ProcessFailed."""
        self._process.kill()

    def end(self) -> None:
        self.kill()
        self._process.join(END_S)
        self._pipe.close()


class Children:
    """A pool of child processes. It grows to the number in use and drops those that ended."""

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
    """The main function of the child. It ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    logger = logging.getLogger("fastq.worker")
    while True:
        try:
            function, leased, payload = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001 -- the import or the unpickling failed
            pipe.send(("failed", type(error).__name__, str(error), traceback.format_exc()))
            continue
        job = Job(leased, payload, logger, lambda _, percent, note: pipe.send(("progress", percent, note)))
        try:
            pipe.send(("done", function(job)))
        except Exception as error:  # noqa: BLE001 -- a handler raises anything, or its result cannot be pickled
            pipe.send(("failed", type(error).__name__, str(error), traceback.format_exc()))
