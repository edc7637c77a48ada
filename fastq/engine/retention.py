"""Retention: removes finished jobs that are too old or too many, and idempotency keys whose window is over."""

from __future__ import annotations

from fastq import _core
from fastq._core import FINISHED
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.engine.options import EngineOptions

SLICE = 1000  # jobs of each terminal state, and keys, that one frame removes


class Retention:
    """Called before each commit."""

    def __init__(self, core: _core.Core, tail: _core.Tail, commits: Commits, options: EngineOptions) -> None:
        self._core, self._tail, self._commits = core, tail, commits
        acked_ms, dead_ms = options.retention_acked_ms, options.retention_dead_ms
        self._kept_ms = [(state, dead_ms if state == "DEAD" else acked_ms) for state in sorted(FINISHED)]
        self._count_max, self._bytes_max = options.finished_jobs_max, options.finished_bytes_max

    def forget(self, now_us: int) -> None:
        """Remove jobs and keys that are due, a slice of them."""
        self._forget_keys(now_us)
        if self._core.finished_jobs:
            self._forget_finished(now_us)

    def _forget_keys(self, now_us: int) -> None:
        if not self._tail.has_room(ROOM_BYTES_SMALL, 0):
            return
        with self._commits.change:
            gone = self._core.forget_keys(now_us, SLICE)
        if gone == SLICE:
            self._commits.kick_soon()  # there may be more

    def _forget_finished(self, now_us: int) -> None:
        gone = 0
        with self._commits.change:
            for state, kept_ms in self._kept_ms:
                if not self._tail.has_room(SLICE * 8 + ROOM_BYTES_SMALL, 0):
                    return
                gone += self._core.forget(now_us, state, kept_ms, self._count_max, self._bytes_max, SLICE)
        if gone >= SLICE:
            self._commits.kick_soon()  # there may be more
