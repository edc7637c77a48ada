"""Expiry: leases expire, waiting jobs expire, delayed jobs become due."""

from __future__ import annotations

from collections.abc import Callable

from fastq import _core
from fastq.engine.commits import Commits

SLICE = 1000  # of each kind at a time, so that other work gets its turn
EXPIRY_PIECE = 20  # leases that expire between two checks for room


class Expiry:
    """Called on each tick. It has no state: the core holds the deadlines."""

    def __init__(self, core: _core.Core, commits: Commits, jitter: Callable[[], float]) -> None:
        """
        Args:
            jitter: draws from [0, 1); a retry waits this share of its upper bound.
        """
        self._core, self._commits, self._jitter = core, commits, jitter

    def admit_due(self, now_us: int) -> bool:
        """Make delayed jobs ready that are due, a slice of them. Returns whether more may be due."""
        return self._core.advance(now_us, SLICE) == SLICE

    def expire(self, now_us: int) -> bool:
        """Expire leases and waiting jobs that are due, a slice of them. Returns False if the log has no room."""
        with self._commits.change:
            for _ in range(SLICE // EXPIRY_PIECE):
                if not self._commits.has_room(EXPIRY_PIECE * _core.CLOSE_RECORD_BYTES):
                    return False
                if self._core.expire(now_us, self._jitter, EXPIRY_PIECE) < EXPIRY_PIECE:
                    break
        return True
