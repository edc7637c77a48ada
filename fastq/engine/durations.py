"""How long something took, counted by bucket."""

from __future__ import annotations

from fastq._core import LATENCY_BOUNDS_US, latency_bucket


class Durations:
    """`counts` has a count for each bound of `LATENCY_BOUNDS_US`, and one of what is above the last."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_US) + 1)
        self.sum_us = 0

    def add(self, us: int) -> None:
        self.counts[latency_bucket(us)] += 1
        self.sum_us += us
