"""The engine's one timer, set for whatever is due first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Never set further ahead than the check interval: the clock may be moved, and a full disk empties unseen."""

    def __init__(self, tick: Callable[[], None], check_ms: int) -> None:
        self._tick, self._check_us = tick, check_ms * 1000
        self._handle: asyncio.TimerHandle | None = None
        self._due_us = 0  # 0: it is not set

    def latest_us(self, now_us: int) -> int:
        """Further ahead than this it is never set."""
        return now_us + self._check_us

    def set(self, due_us: int, now_us: int) -> None:
        """Have `tick` called at `due_us`."""
        self.stop()
        wait_us = min(max(0, due_us - now_us), self._check_us)
        self._due_us = now_us + wait_us
        self._handle = asyncio.get_running_loop().call_later(wait_us / 1e6, self._tick)

    def set_earlier(self, due_us: int, now_us: Callable[[], int]) -> None:
        """The same, if it is set for a later time."""
        if due_us < self._due_us:
            self.set(due_us, now_us())

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._due_us = 0
