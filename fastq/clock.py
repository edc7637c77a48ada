"""The only place that reads a clock; `_clock` is its native part."""

from __future__ import annotations

import time

from fastq._clock import Clock
from fastq.errors import ClockBehindLog

__all__ = ["Clock", "monotonic_us", "start_us", "wall_us"]

BACK_US_MAX = 3_600_000_000  # the log may be this far ahead of the wall before a start is refused


def wall_us() -> int:
    """The wall clock, Unix microseconds."""
    return time.time_ns() // 1000


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


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
