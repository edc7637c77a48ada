"""Retention: removes finished jobs that are too old or too many, and idempotency keys whose window is over."""

from __future__ import annotations

from fastq import _core
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.engine.options import EngineOptions

SLICE = 1000  # jobs, and keys, that one frame removes


class Retention:
    """Called before each commit."""

    def __init__(self, core: _core.Core, commits: Commits, options: EngineOptions) -> None:
        self._core, self._commits = core, commits
        core.retain(
            options.retention_acked_ms,
            options.retention_dead_ms,
            options.finished_jobs_max,
            options.finished_bytes_max,
        )

    def forget(self, now_us: int) -> None:
        """Remove jobs and keys that are due, a slice of them. Mostly there are none, which the core says at once."""
        if self._core.tidy(now_us):
            more_keys = self._forget_keys(now_us)
            if self._forget_finished(now_us) or more_keys:
                self._commits.kick_soon()

    def _forget_keys(self, now_us: int) -> bool:
        """Whether there may be more."""
        return self._commits.has_room(ROOM_BYTES_SMALL) and self._core.forget_keys(now_us, SLICE) == SLICE

    def _forget_finished(self, now_us: int) -> bool:
        """Whether there may be more."""
        if not self._commits.has_room(SLICE * 8 + ROOM_BYTES_SMALL):
            return False
        return self._core.forget(now_us, SLICE) == SLICE
