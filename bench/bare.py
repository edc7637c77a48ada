"""A core alone, without a disk, a loop or HTTP."""

from __future__ import annotations

from fastq._core import Core, CoreSettings, Tail

START_US = 1_763_973_600_000_000
BATCH_BYTES_MAX, SEGMENT_BYTES = 4 << 20, 64 << 20


class Bare:
    """A core whose frames are durable as soon as they are taken.

    Args:
        cache_bytes: of the log's newest records.
    """

    def __init__(self, cache_bytes: int = 0, settings: CoreSettings | None = None) -> None:
        self.tail, self.segment = Tail(4096, cache_bytes, BATCH_BYTES_MAX), 0
        self.core = Core(self.tail, settings or CoreSettings())
        self.core.identify(b"d" * 16)
        self.now_us = START_US
        self.settle()

    def settle(self) -> None:
        while (batch := self.tail.take()) is not None:
            self.tail.durable(batch.seq)
        while self.tail.segments_offered < 2:
            self.segment += 1
            self.tail.offer_segment(self.segment, 4096, SEGMENT_BYTES)
