"""Child processes for handlers that hold the GIL, or that must be killed when their job is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import Pipe, spawn
from typing import Any

from fastq.client import forks
from fastq.client.child import PIPE_LOST, Preparation
from fastq.client.errors import ProcessFailed
from fastq.client.models import LeasedJob
from fastq.clock import monotonic_us

START_S = 60.0  # how long a process may take to start and to import its handler
LOOK_S = 1.0  # how often a silent process is looked at
END_S = 2.0  # how long a process may take to end by itself

On = Callable[..., None]
"""Called with "started", "progress" (percent, note) or "log" (the attributes of a record) in the thread of `run`."""

ENDED = "ProcessEnded"
CLOSED = "the handler closed the connection of its process to the worker"
NOT_STARTED = "ProcessNotStarted"


def preparation(logger: logging.Logger) -> Preparation:
    """What children need to know of this process. Call it before a handler can change it."""
    module = sys.modules["__main__"]
    spec = getattr(module, "__spec__", None)
    name = None if spec is None or spec.name == "__main__" else spec.name
    path = getattr(module, "__file__", None) if name is None else None
    levels = {"": logging.getLogger().getEffectiveLevel(), logger.name: logger.getEffectiveLevel()}
    return Preparation(list(sys.argv), name, None if path is None else os.path.abspath(path), levels)


def check_importable(queue: str, function: Callable[..., Any]) -> None:
    """Raises ValueError: a child process could not import the function."""
    try:
        pickle.dumps(function)
    except Exception as error:
        raise ValueError(
            f"the handler of queue {queue!r} cannot run in a process: another process must be able to import it, "
            f"so define it at the top of a module ({error})"
        ) from error
    main = sys.modules["__main__"]
    if getattr(function, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
        raise ValueError(
            f"the handler of queue {queue!r} cannot run in a process: it is defined in an interactive session, "
            "which another process cannot import"
        )


@dataclass(frozen=True)
class Start:
    """What processes start with, from before a handler could change it. path: of modules."""

    directory: str
    environ: dict[str, str]
    path: list[str]

    @classmethod
    def of_now(cls) -> Start:
        return cls(os.getcwd(), dict(os.environ), list(sys.path))


class Child:
    """A process that runs one handler at a time. `run` blocks, so call it in a thread."""

    def __init__(self, prepared: Preparation, start: Start) -> None:
        self._prepared, self._start_of = prepared, start
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_killed = False
        self.is_spoiled = False
        """Whether it must not run another handler."""

    def run(self, function: Callable[..., Any], leased: LeasedJob, payload: Any, logger_name: str, on: On) -> Any:
        """Call the function with a `Job` in the process. Returns its result.

        Raises:
            ProcessFailed: the handler raised an exception, or the process ended.
        """
        try:
            message = self._begun((function, leased, payload, logger_name))
            while message[0] in ("started", "progress", "log"):
                on(*message)
                message = self._message(None)
        except BaseException:
            self.is_spoiled = True  # its next message may still be of this handler
            raise
        finally:
            if self.is_spoiled:
                self.end()
        what, *told, self.is_spoiled = message
        if what == "failed":
            raise ProcessFailed(*told)
        return told[0]

    def _begun(self, job: tuple[Any, ...]) -> Any:
        """Send a job. Returns the first message about it. A process that ended while it was idle is replaced.

        Raises ProcessFailed, and what the pickling raises.
        """
        is_used = self._process is not None
        if not is_used:
            self._start()
        try:
            return self._answered(job)
        except ProcessFailed:
            if not is_used or self._is_killed:
                raise
        self.end()
        self.is_spoiled = False
        self._start()
        return self._answered(job)

    def _answered(self, job: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send(job)
        except OSError:
            raise self._end_of_process() from None
        return self._message(START_S)

    def _start(self) -> None:
        """Raises ProcessFailed."""
        with self._lock:
            if self._is_killed:
                raise ProcessFailed(NOT_STARTED, "the job ended before", "")
            try:
                self._pipe, theirs = Pipe()
                life, mine = os.pipe()
                self._life = os.fdopen(mine, "wb", buffering=0)
                forks.keep_private(self._pipe)
                forks.keep_private(self._life)
                with theirs, os.fdopen(life, "rb"):
                    self._process = self._popen(theirs.fileno(), life)
            except OSError as error:
                self.is_spoiled = True
                raise ProcessFailed(NOT_STARTED, f"no process could be started: {error}", "") from error
        try:
            self._pipe.send(self._prepared)
        except OSError:  # it could not even begin, as under a limit of memory
            raise self._end_of_process() from None

    def _popen(self, pipe: int, life: int) -> subprocess.Popen[bytes]:
        start = self._start_of
        program = f"import sys; sys.path[:] = {start.path!r}; from fastq.client.child import main; main({pipe}, {life})"
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        return subprocess.Popen(
            [os.fsdecode(spawn.get_executable()), *flags, "-c", program], pass_fds=(pipe, life),
            stdin=subprocess.DEVNULL, start_new_session=True, cwd=start.directory, env=start.environ,
        )  # fmt: skip

    def _message(self, seconds: float | None) -> Any:
        """The next message. Raises ProcessFailed: the process has ended, or has not started for so many seconds."""
        begun_us = monotonic_us()
        try:
            while not self._pipe.poll(LOOK_S):
                if self._has_ended():  # one that it started holds the pipe
                    raise self._end_of_process()
                self._continue()
                if seconds is not None and monotonic_us() - begun_us > seconds * 1e6:
                    self.is_spoiled = True
                    raise ProcessFailed(NOT_STARTED, f"it could not import the handler within {seconds:g} s", "")
            text = self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise self._end_of_process() from None
        return pickle.loads(text)  # noqa: S301 -- our own child wrote it

    def _has_ended(self) -> bool:
        """Whether the process has ended. It keeps its id until `end`, and so does its group."""
        if self._process is None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # a handler made the kernel reap all children
            return True

    def _continue(self) -> None:
        """Wake a process that has stopped itself: nobody else would."""
        if self._process is not None and os.waitid(
            os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        ):  # fmt: skip
            os.killpg(self._process.pid, signal.SIGCONT)

    def _end_of_process(self) -> ProcessFailed:
        """Why the process ended."""
        self.is_spoiled = True
        until_us = monotonic_us() + int(END_S * 1e6)
        while not self._has_ended():
            if monotonic_us() > until_us:
                return ProcessFailed(ENDED, CLOSED, "")
            threading.Event().wait(0.005)
        self._kill()  # those that it started
        code = self._process.wait() if self._process is not None else 0
        if code == PIPE_LOST:
            return ProcessFailed(ENDED, CLOSED, "")
        if code >= 0:
            return ProcessFailed(ENDED, f"the process ended with exit code {code}", "")
        return ProcessFailed(ENDED, f"the process was killed by {signal.Signals(-code).name}", "")

    @property
    def is_alive(self) -> bool:
        return not self.is_spoiled and (self._process is None or not self._has_ended())

    def kill(self) -> None:
        """Kill the process and those that it started, from any thread. A `run` in progress raises ProcessFailed."""
        with self._lock:
            self._is_killed = self.is_spoiled = True
        self._kill()

    def _kill(self) -> None:
        with self._lock:
            process = self._process
            if process is not None and process.returncode is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ask an idle process to end."""
        if self._process is not None:
            self._pipe.close()

    def end(self, seconds: float = 0.0) -> None:
        """Wait so many seconds for the end of the process, then kill it."""
        process = self._process
        if process is None:
            return
        until_us = monotonic_us() + int(seconds * 1e6)
        while not self._has_ended() and monotonic_us() < until_us:
            threading.Event().wait(0.005)
        self._kill()
        process.wait()
        self._pipe.close()
        self._life.close()
        self._process = None


class Children:
    """At most `most` child processes. One that ended, or that a handler spoiled, is replaced."""

    def __init__(self, most: int, prepared: Preparation) -> None:
        self._prepared, self._start = prepared, Start.of_now()
        self._room = asyncio.Semaphore(most)
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self.free = most
        """How many more handlers can start without waiting."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Child]:
        """A process of one's own. If it is left by a cancel, the process is killed."""
        self.free -= 1
        try:
            async with self._room:
                child = self._take()
                try:
                    yield child
                except asyncio.CancelledError:
                    child.kill()
                    raise
                finally:
                    self._give_back(child)
        finally:
            self.free += 1

    def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._all.discard(child)
            child.end()
        child = Child(self._prepared, self._start)
        self._all.add(child)
        return child

    def _give_back(self, child: Child) -> None:
        if child.is_spoiled:
            self._all.discard(child)
            child.end()
        else:
            self._idle.append(child)

    def end(self) -> None:
        """End idle processes, kill the others."""
        idle, self._idle = self._idle, []
        for child in idle:
            child.close()
        for child in self._all.difference(idle):
            child.end()
        for child in idle:
            child.end(END_S)
        self._all.clear()
