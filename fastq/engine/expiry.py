"""What time brings: leases run out, waiting jobs expire, delayed jobs become due."""

from __future__ import annotations

from collections.abc import Callable

from fastq import _core
from fastq.engine.commits import Commits

SLICE = 1000  # how many of each kind, before other work gets its turn
EXPIRY_PIECE = 20  # how many leases expire between two looks at whether there is room


class Expiry:
    """Called on a tick. It remembers nothing: the core knows the deadlines."""

    def __init__(self, core: _core.Core, tail: _core.Tail, commits: Commits, jitter: Callable[[], float]) -> None:
        """
        Args:
            jitter: draws from [0, 1): the share of the retry wait's upper bound.
        """
        self._core, self._tail, self._commits, self._jitter = core, tail, commits, jitter

    def admit_due(self, now_us: int) -> bool:
        """Let delayed jobs that are due become ready, a slice of them. True: there may be more."""
        return self._core.advance(now_us, SLICE) == SLICE

    def expire(self, now_us: int) -> bool:
        """End leases and waiting jobs whose time is over, a slice of them. False: there was no room for all of them."""
        with self._commits.change:
            for _ in range(SLICE // EXPIRY_PIECE):
                if not self._tail.has_room(EXPIRY_PIECE * _core.CLOSE_RECORD_BYTES, 0):
                    return False
                if self._core.expire(now_us, self._jitter, EXPIRY_PIECE) < EXPIRY_PIECE:
                    break
        return True
