"""What each side tells of its work, and the task that all of them run. Only the standard library: sides have venvs."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


def noop(n: int) -> None:
    """The task, where it is one that blocks."""


def cpu_s() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Stopwatch:
    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._begun_s, self._cpu_s = time.perf_counter(), cpu_s()

    def stop(self) -> None:
        figures = {"jobs": self.jobs, "seconds": time.perf_counter() - self._begun_s, "cpu_s": cpu_s() - self._cpu_s}
        print(json.dumps(figures), file=sys.__stdout__, flush=True)  # Celery has put its log in the place of stdout


@contextmanager
def timed(jobs: int) -> Iterator[None]:
    watch = Stopwatch(jobs)
    yield
    watch.stop()


class Countdown:
    """Ends the process when so many tasks have run: of workers that do not end by themselves."""

    def __init__(self, jobs: int) -> None:
        self._left, self._watch = iter(range(jobs - 1, -1, -1)), Stopwatch(jobs)

    def one(self) -> None:
        if next(self._left) == 0:  # in one step, also when threads run it
            self._watch.stop()
            os._exit(0)


def called(sides: dict[str, Callable[[str, int, int], object]]) -> object:
    """`side.py WHAT URL JOBS SLOTS`."""
    what, url, jobs, slots = sys.argv[1:]
    return sides[what](url, int(jobs), int(slots))


async def many(send: Callable[[int], Awaitable[object]], jobs: int, at_a_time: int) -> None:
    """So many senders, each with one request under way."""
    import asyncio  # noqa: PLC0415 -- not for the others

    numbers = iter(range(jobs))

    async def sender() -> None:
        for n in numbers:
            await send(n)

    await asyncio.gather(*[sender() for _ in range(at_a_time)])
