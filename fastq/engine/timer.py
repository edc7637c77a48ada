"""The engine's one timer, set for the earliest deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Fires after the check interval at the latest: the clock may be moved, and no event says that a disk has room."""

    def __init__(self, tick: Callable[[], None], check_ms: int) -> None:
        self._tick, self._check_us = tick, check_ms * 1000
        self._handle: asyncio.TimerHandle | None = None
        self._due_us = 0  # 0: it is not set

    def latest_us(self, now_us: int) -> int:
        """The latest time that the timer may be set for, Unix microseconds."""
        return now_us + self._check_us

    def set(self, due_us: int, now_us: int) -> None:
        """Call `tick` at `due_us`, Unix microseconds."""
        self.stop()
        wait_us = min(max(0, due_us - now_us), self._check_us)
        self._due_us = now_us + wait_us
        self._handle = asyncio.get_running_loop().call_later(wait_us / 1e6, self._tick)

    def set_earlier(self, due_us: int, now_us: Callable[[], int]) -> None:
        """Call `tick` at `due_us` if the timer is set for a later time."""
        if due_us < self._due_us:
            self.set(due_us, now_us())

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._due_us = 0
