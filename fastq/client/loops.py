"""Runs a worker in an event loop of its own, whatever a handler does to the loop; and the signals of the worker."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import resource
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvloop

from fastq.client import forks
from fastq.client.errors import Interrupted
from fastq.client.logs import WorkerLog
from fastq.client.threads import DaemonThreads
from fastq.clock import monotonic_us

LIMITS = tuple(number for name, number in vars(resource).items() if name.startswith("RLIMIT_"))
END_S = 1.0  # how long tasks that ignore a cancel are waited for
DEFAULT_THREADS = 32

HANDLING: contextvars.ContextVar[str] = contextvars.ContextVar("fastq_handling", default="")
"""The id of the job whose async handler runs in this context, also in tasks that the handler starts."""


def run_to_end(main: Coroutine[Any, Any, None], log: WorkerLog) -> None:
    """Run `main` in a new event loop. Unlike `asyncio.run` it goes on if a handler stops the loop, and ends on time."""
    loop = uvloop.new_event_loop()
    loop.set_default_executor(DaemonThreads(DEFAULT_THREADS, "fastq-default"))
    asyncio.set_event_loop(loop)
    task = loop.create_task(main)
    try:
        while not task.done():
            try:
                loop.run_until_complete(task)
            except BaseException as error:  # noqa: BLE001 -- also sys.exit in a task that a handler started
                if not task.done():
                    log.error("a handler stopped the event loop, which goes on: %r", error)
        task.result()
    finally:
        _end(loop)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs and close the loop. A handler that ignores the cancel is left behind."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    try:
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=END_S))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), END_S))
    except BaseException:  # noqa: BLE001, S110 -- a task raises anything while it ends
        pass
    finally:
        for task in left:
            setattr(task, "_log_destroy_pending", False)  # noqa: B010 -- it is left behind on purpose
        if deaf := [task for task in left if not task.done()]:
            threading.Thread(target=_keep, args=(deaf,), name="fastq-left", daemon=True).start()
        asyncio.set_event_loop(None)
        loop.close()


def _keep(_: object) -> None:
    """Keep tasks that cannot be ended. Python would close their coroutines when it deletes them, and wait for ever."""
    threading.Event().wait()


class Limits:
    """The limits of this process. One that a handler lowers would bar the worker itself from memory or connections."""

    def __init__(self) -> None:
        self._before = {which: resource.getrlimit(which) for which in LIMITS}

    def keep(self, log: WorkerLog) -> None:
        """Set limits back. A lower hard limit stays, unless this process may raise it."""
        for which, before in self._before.items():
            if resource.getrlimit(which) == before:
                continue
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(which, before)
                log.warning("a handler changed a limit of the worker's process; it is set back to %d, %d", *before)


class Signals:
    """SIGTERM, SIGINT and SIGHUP while a worker runs in the main thread; elsewhere Python delivers none.

    The first one stops the worker gracefully. The second one stops it at once, and interrupts a handler that blocks the
    event loop. The third one ends the process. SIGHUP stays ignored if it was, as under nohup.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        """stop: called in the event loop."""
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._count, self._first_us = 0, 0
        self._before: dict[int, forks.SignalHandler] = {}
        self._alarm_before: dict[int, forks.SignalHandler] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # whoever started this process may have blocked them
        self._before = forks.take_signals(dict.fromkeys(numbers, self._arrived))
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:  # a handler's alarm would end the process
            self._alarm_before = forks.take_signals({signal.SIGALRM: forks.quiet})

    def __exit__(self, *_: object) -> None:
        forks.give_back_signals(self._before | self._alarm_before)

    def keep(self, log: WorkerLog) -> None:
        """Take the signals again if a handler took them. Called in the event loop."""
        for number in self._before:
            if signal.getsignal(number) != self._arrived:
                signal.signal(number, self._arrived)
                log.warning("a handler took %s, which stops the worker; it is taken back", signal.Signals(number).name)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)

    def insist(self, after_s: float) -> None:
        """Act as if the second signal had arrived, if the first one arrived so many seconds ago. From any thread."""
        if self._count == 1 and monotonic_us() - self._first_us > after_s * 1e6:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- as of signal.signal
        self._count += 1
        self._first_us = self._first_us or monotonic_us()
        if self._count > 2:
            os._exit(128 + number)
        self._loop.call_soon_threadsafe(self._stop)
        if self._count == 2 and HANDLING.get():
            raise Interrupted
