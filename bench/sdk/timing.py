"""The figures that each side prints, and the task that all sides run. Standard library only: sides have own venvs."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


def noop(n: int) -> None:
    """The task, as a blocking function."""


def cpu_s() -> float:
    """CPU time of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Stopwatch:
    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._begun_s, self._cpu_s = time.perf_counter(), cpu_s()

    def stop(self) -> None:
        figures = {"jobs": self.jobs, "seconds": time.perf_counter() - self._begun_s, "cpu_s": cpu_s() - self._cpu_s}
        print(json.dumps(figures), file=sys.__stdout__, flush=True)  # Celery replaces sys.stdout with its log


@contextmanager
def timed(jobs: int) -> Iterator[None]:
    watch = Stopwatch(jobs)
    yield
    watch.stop()


class Countdown:
    """Ends the process after `jobs` tasks, for workers that do not end by themselves."""

    def __init__(self, jobs: int) -> None:
        self._left, self._watch = iter(range(jobs - 1, -1, -1)), Stopwatch(jobs)

    def one(self) -> None:
        if next(self._left) == 0:  # atomic between threads
            self._watch.stop()
            os._exit(0)


def called(sides: dict[str, Callable[[str, int, int], object]]) -> object:
    """Run the command line `side.py WHAT URL JOBS SLOTS`."""
    what, url, jobs, slots = sys.argv[1:]
    return sides[what](url, int(jobs), int(slots))


async def many(send: Callable[[int], Awaitable[object]], jobs: int, at_a_time: int) -> None:
    """Send with `at_a_time` senders, each with one request in flight."""
    import asyncio  # noqa: PLC0415 -- other sides do not need it

    numbers = iter(range(jobs))

    async def sender() -> None:
        for n in numbers:
            await send(n)

    await asyncio.gather(*[sender() for _ in range(at_a_time)])
