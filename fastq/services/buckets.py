"""Token buckets: so much at once, and so much a second."""

from __future__ import annotations

from math import ceil

SECOND_US = 1_000_000


class TokenBucket:
    """Full at first: `burst` tokens, and `per_second` more every second up to that."""

    __slots__ = ("_burst_us", "_per_token_us", "_ready_us")

    def __init__(self, per_second: int, burst: int) -> None:
        self._per_token_us = SECOND_US / per_second
        self._burst_us = self._per_token_us * (burst - 1)
        self._ready_us = 0.0  # when the bucket is full again

    def take(self, now_us: int) -> int:
        """Take a token: 0, or if there is none the microseconds until there is one."""
        wait_us = self.wait_us(now_us)
        if wait_us == 0:
            self._ready_us = max(self._ready_us, float(now_us)) + self._per_token_us
        return wait_us

    def wait_us(self, now_us: int) -> int:
        """How long until there is a token; 0: there is one."""
        return max(0, ceil(self._ready_us - now_us - self._burst_us))

    def is_full(self, now_us: int) -> bool:
        return self._ready_us <= now_us
