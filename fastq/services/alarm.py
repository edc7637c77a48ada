"""An alarm at a time of the server's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

CLOCK_PULL = 1.1  # the clock runs at most this much faster than the loop's timer: see fastq.clock
NEAR_US = 1_000_000  # below it the difference does not matter


class Alarm:
    """Rings at the time that it is set for, or somewhat earlier: the clock may run faster than the loop's timer."""

    def __init__(self, now_us: Callable[[], int], ring: Callable[[], None]) -> None:
        self._now_us, self._ring = now_us, ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due_us: int | None) -> None:
        """Ring at `due_us`, Unix microseconds, and no longer at the time before; None: not at all."""
        self.stop()
        if due_us is None:
            return
        wait_us = float(due_us - self._now_us())
        if wait_us > NEAR_US:
            wait_us /= CLOCK_PULL
        self._timer = asyncio.get_running_loop().call_later(max(0.0, wait_us / 1e6), self._ring)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
