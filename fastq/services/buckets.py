"""Token buckets."""

from __future__ import annotations

from math import ceil

SECOND_US = 1_000_000


class TokenBucket:
    """A bucket of at most `burst` tokens, full at first. It gets `per_second` tokens a second."""

    __slots__ = ("_burst_us", "_per_token_us", "_ready_us")

    def __init__(self, per_second: int, burst: int) -> None:
        self._per_token_us = SECOND_US / per_second
        self._burst_us = self._per_token_us * (burst - 1)
        self._ready_us = 0.0  # when the bucket is full again

    def take(self, now_us: int) -> int:
        """Take a token. Return 0, or without a token the microseconds until there is one."""
        wait_us = self.wait_us(now_us)
        if wait_us == 0:
            self._ready_us = max(self._ready_us, float(now_us)) + self._per_token_us
        return wait_us

    def wait_us(self, now_us: int) -> int:
        """Return the microseconds until there is a token, 0 if there is one."""
        return max(0, ceil(self._ready_us - now_us - self._burst_us))

    def is_full(self, now_us: int) -> bool:
        return self._ready_us <= now_us
