"""The only place that reads a clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastq.errors import ClockBehindLog

BACK_US_MAX = 3_600_000_000  # the log may be this far ahead of the wall before a start is refused


def wall_us() -> int:
    """The wall clock, Unix microseconds."""
    return time.time_ns() // 1000


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class Clock:
    """Logical time: runs on the monotonic clock, never backward, and is drawn to the wall clock by at most a tenth.

    So a wall clock that jumps while the server runs neither ends a lease early nor keeps one from ending.
    """

    def __init__(
        self,
        start_us: int,
        monotonic: Callable[[], int] = monotonic_us,
        wall: Callable[[], int] = wall_us,
    ) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._now_us = start_us
        self._read_us = monotonic()

    def now_us(self) -> int:
        """Unix microseconds."""
        read_us = self._monotonic()
        elapsed_us = read_us - self._read_us
        self._read_us = read_us
        straight_us = self._now_us + elapsed_us
        pull_us_max = elapsed_us // 10
        pull_us = max(-pull_us_max, min(pull_us_max, self._wall() - straight_us))
        self._now_us = straight_us + pull_us
        return self._now_us


def start_us(last_logged_us: int, wall_now_us: int, accept_back: bool) -> int:
    """Where logical time begins: at the later of the log's last time and the wall clock.

    Raises:
        ClockBehindLog: the log is more than an hour ahead, and `accept_back` (ACCEPT_CLOCK_BACK) is false.
    """
    if last_logged_us - wall_now_us <= BACK_US_MAX:
        return max(last_logged_us, wall_now_us)
    if accept_back:
        return wall_now_us
    ahead_s = (last_logged_us - wall_now_us) // 1_000_000
    raise ClockBehindLog(
        f"the log's last time is {ahead_s} s ahead of this machine's clock: set the clock right, or start with "
        "ACCEPT_CLOCK_BACK=true to go on from the clock as it is (leases and delays then last longer by as much)"
    )
