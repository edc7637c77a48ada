"""What handlers change of the process that they run in, and leave so. Child processes import this module."""

from __future__ import annotations

import builtins
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from fastq import Job


class Barred(Exception):
    """It shows nothing of itself and cannot be changed."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError(name)


class Breaking(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.exit(8)


class Unreadable:
    def __reduce__(self) -> Any:
        return os.getcwd, (1, 2, 3)


def _bar() -> None:
    raise Barred


def _raise_a_large_group() -> None:
    raise ExceptionGroup("large", [ValueError("x" * 1000) for _ in range(100_000)])


def _lose_the_directory() -> None:
    directory = tempfile.mkdtemp()
    os.chdir(directory)
    os.rmdir(directory)


def _lower_limits() -> None:
    for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_STACK):
        resource.setrlimit(which, (3, resource.getrlimit(which)[1]))


def _break_the_log() -> None:
    logging.getLogger("fastq.worker").addHandler(Breaking())
    logging.getLogger().addHandler(Breaking())


def _throw_later() -> None:
    """A watchdog that fires when its handler has ended."""
    thread = threading.get_ident()

    def throw() -> None:
        threading.Event().wait(0.05)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))

    threading.Thread(target=throw).start()


def _change_the_zone() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _break_builtins() -> None:
    builtins.len = lambda _: 0  # type: ignore[assignment]
    builtins.open = None  # type: ignore[assignment]


DEEDS: dict[str, Callable[[], Any]] = {
    "barred": _bar,
    "large group": _raise_a_large_group,
    "environment": os.environ.clear,
    "python home": lambda: os.environ.update(PYTHONHOME="/nowhere", PYTHONPATH="/nowhere"),
    "path": sys.path.clear,
    "directory": _lose_the_directory,
    "limits": _lower_limits,
    "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.05),
    "log": _break_the_log,
    "zone": _change_the_zone,
    "umask": lambda: os.umask(0o777),
    "garbage": gc.disable,
    "hooks": lambda: setattr(threading, "excepthook", None),
    "warnings": lambda: warnings.simplefilter("error"),
    "unreadable result": Unreadable,
}
IN_PROCESS: dict[str, Callable[[], Any]] = {
    "modules": sys.modules.clear,
    "builtins": _break_builtins,
    "stop": _stop,
    "later": _throw_later,
}
IN_THREAD: dict[str, Callable[[], Any]] = {"later": _throw_later}
FAILS = {"barred", "large group", "unreadable result"}


def thread(job: Job[str]) -> Any:
    given = (DEEDS | IN_PROCESS)[job.payload]()
    return given if job.payload in FAILS else "done"


async def loop(job: Job[str]) -> Any:
    return thread(job)


def process(job: Job[str]) -> Any:
    return thread(job)


def near(job: Job[float]) -> str:
    job.wait_cut(job.payload)
    return f"{os.umask(os.umask(0o022)):o} {time.tzname[0]}" if job.queue.startswith("p.") else "unharmed"
