"""What handlers do that nobody expects of them. Child processes import this module."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from fastq import Failure, Job, NewJob, Snooze, Success


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class Hidden(Exception, metaclass=Nameless):
    pass


class Unpicklable(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__("cannot travel")
        self.lock = threading.Lock()


Long = type("L" * 200, (Exception,), {})


class Lying:
    @property
    def __class__(self) -> Any:
        raise SystemExit("no class")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        pass


class Leaving:
    def model_dump(self, **_: Any) -> Any:
        sys.exit(4)


def _raises(error: Callable[[], BaseException]) -> Callable[[], Any]:
    def deed() -> Any:
        raise error()

    return deed


def _recurse() -> Any:
    return _recurse()


def _circle() -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _fork_and_return() -> Any:
    """The child comes back from the handler too."""
    os.fork()
    return "forked"


def _pool() -> Any:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, [-1, -2]))


def _leave_a_child() -> Any:
    if not os.fork():
        threading.Event().wait(3)
        os._exit(0)
    return "left"


def _leave_threads() -> Any:
    for daemon in (True, False):
        threading.Thread(target=threading.Event().wait, args=(1.0,), daemon=daemon).start()
    return "threads"


def _block_signals() -> Any:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    return "blocked"


def _loop_of_its_own() -> Any:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()
    return "closed"


def _few_files() -> Any:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        open(os.devnull).close()
        return "one more"
    except OSError:
        return "no more"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


FAILS = "DEAD"
DEEDS: dict[str, tuple[Callable[[], Any], str, str]] = {
    # what it is -> the deed, the begin of the job's error, the error code
    "stop iteration": (lambda: next(iter([])), "StopIteration", "StopIteration"),
    "stop async iteration": (_raises(StopAsyncIteration), "StopAsyncIteration", "StopAsyncIteration"),
    "generator exit": (_raises(GeneratorExit), "GeneratorExit", "GeneratorExit"),
    "exit": (lambda: sys.exit(3), "SystemExit: 3", "SystemExit"),
    "interrupt": (_raises(KeyboardInterrupt), "KeyboardInterrupt", "KeyboardInterrupt"),
    "base": (_raises(lambda: BaseException("bottom")), "BaseException: bottom", "BaseException"),
    "cancelled": (_raises(asyncio.CancelledError), "", ""),  # the text depends on the kind of handler
    "timeout": (_raises(lambda: TimeoutError("late")), "TimeoutError: late", "TimeoutError"),
    "group": (
        _raises(lambda: BaseExceptionGroup("two", [SystemExit(1), ValueError("2")])),
        "BaseExceptionGroup: two (2",
        "BaseExceptionGroup",
    ),
    "recursion": (_recurse, "RecursionError: maximum", "RecursionError"),
    "memory": (lambda: bytearray(1 << 62), "MemoryError", "MemoryError"),
    "no text": (_raises(Mute), "Mute: <Mute without a text: its __str__ raises RuntimeError>", "Mute"),
    "no name": (_raises(lambda: Hidden("h")), "Hidden: h", "Hidden"),
    "long name": (_raises(lambda: Long("long")), "L" * 200 + ": long", "L" * 64),
    "surrogate": (_raises(lambda: ValueError("caf\udce9")), "ValueError: caf\\udce9", "ValueError"),
    "long text": (_raises(lambda: ValueError("é" * 10**6)), "ValueError: éé", "ValueError"),
    "unpicklable": (_raises(lambda: Unpicklable(1, two=2)), "Unpicklable: cannot travel", "Unpicklable"),
    "discard, any result": (lambda: Failure(error="no", code="c", discard=True, result=Lying()), "no", "c"),
    "discard, large result": (lambda: Failure(error="no", code="c", discard=True, result="r" * 1_100_000), "no", "c"),
    "discard, huge result": (lambda: Failure(error="no", code="c", discard=True, result="r" * 9_000_000), "no", "c"),
    "discard, surrogate": (lambda: Failure(error="no", code="c", discard=True, result="\udce9"), "no", "c"),
    "discard, long number": (lambda: Failure(error="no", code="c", discard=True, result=Digits()), "no", "c"),
    "long code": (lambda: Failure(error="no", code="c" * 65, discard=True), "no", "c" * 64),
    "long wide code": (lambda: Failure(error="no", code="é" * 33, discard=True), "no", "é" * 32),
    "newline in code": (lambda: Failure(error="no", code="c\nd", discard=True), "no", "c d"),
    "surrogate in code": (lambda: Failure(error="no", code="\udce9", discard=True), "no", "\\udce9"),
    "empty code": (lambda: Failure(error="no", code="\n", discard=True), "no", ""),
    "any code": (lambda: Failure(error="no", code=7, discard=True), "no", "7"),  # type: ignore[arg-type]
    "any error": (lambda: Failure(error=ValueError("e"), discard=True), "e", ""),  # type: ignore[arg-type]
    "mute error": (lambda: Failure(error=Mute(), discard=True), "<Mute without", ""),  # type: ignore[arg-type]
    "no error": (lambda: Failure(error=None, discard=True), "discarded", ""),  # type: ignore[arg-type]
    "any wait": (lambda: Failure(error="no", code="c", retry_after_ms="x"), "no", "c"),  # type: ignore[arg-type]
    "long wait": (lambda: Failure(error="no", code="c", retry_after_ms=10**30), "no", "c"),
    "negative wait": (lambda: Failure(error="no", code="c", retry_after_ms=-1), "no", "c"),
    "bad snooze": (lambda: Snooze(-1), "the server refused the outcome", "result_refused"),
    "any snooze": (lambda: Snooze(Lying()), "the result cannot be encoded", "result_refused"),  # type: ignore[arg-type]
    "any follow-up": (lambda: Success(1, then=5), "TypeError", "TypeError"),  # type: ignore[arg-type]
    "bad follow-up": (lambda: Success(1, then=[NewJob(payload="")]), "the follow-up jobs", "then_refused"),
    "huge follow-up": (
        lambda: Success(1, then=[NewJob(payload="r" * 9_000_000)]),
        "the follow-up jobs",
        "then_refused",
    ),
    "huge result": (
        lambda: "r" * 50_000_000,
        "the result cannot be encoded as JSON: result: 50,000,002 bytes",
        "result_refused",
    ),
    "surrogate result": (lambda: "\udce9", "the result cannot be encoded as JSON", "result_refused"),
    "generator": (
        lambda: (number for number in [1]),
        "the result cannot be encoded as JSON: result: generator",
        "result_refused",
    ),
    "circle": (_circle, "the result cannot be encoded as JSON", "result_refused"),
    "exit in the codec": (Leaving, "the result cannot be encoded as JSON: result: Leaving", "result_refused"),
    "no class": (Lying, "", ""),
}
"""Deeds that fail an attempt."""


class Digits:
    def model_dump(self, **_: Any) -> Any:
        return 10**5000


ODD: dict[str, tuple[Callable[[], Any], Any]] = {
    "fork": (_fork_and_return, "forked"),
    "pool": (_pool, 3),
    "a child left behind": (_leave_a_child, "left"),
    "threads left behind": (_leave_threads, "threads"),
    "signals blocked": (_block_signals, "blocked"),
    "few files": (_few_files, "no more"),
    "subprocess": (lambda: subprocess.run(["true"], check=False).returncode, 0),
    "killed subprocess": (lambda: subprocess.run(["sh", "-c", "kill -9 $$"], check=False).returncode, -9),
}
"""Deeds after which an attempt succeeds, and their results."""


def thread(job: Job[str]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside threads
        return (DEEDS | ODD)[job.payload][0]()


async def loop(job: Job[str]) -> Any:
    await asyncio.sleep(0)
    return thread(job)


def process(job: Job[str]) -> Any:
    return thread(job)


def neighbour(job: Job[float]) -> str:
    with contextlib.suppress(ValueError):
        job.log.info("a neighbour")
    job.wait_cut(job.payload)
    return "unharmed"
