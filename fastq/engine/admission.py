"""Admission refuses new work while the server stops, the cleaner is behind, or the log has no room."""

from __future__ import annotations

from collections.abc import Callable

from fastq.engine.cleaner import Cleaner
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.errors import ApiError, CleanerBehind, Draining
from fastq.log.protocol import Log

LAG_WAIT_S = 1.0  # a submit waits this long for a cleaner that is behind, or a segment; then it is refused


class Admission:
    def __init__(self, log: Log, commits: Commits, cleaner: Cleaner) -> None:
        self._log, self._commits, self._cleaner = log, commits, cleaner
        self.draining = False

    @property
    def takes_everything(self) -> bool:
        """Whether no new job has to wait or to be refused now."""
        return not (self.draining or self._commits.failed or self._log.disk_full or self._cleaner.is_behind)

    def need_serving(self) -> None:
        """Raises Draining."""
        if self.draining:
            raise Draining

    def need_job_room(self, record_bytes: int, is_repeat: Callable[[], bool]) -> None:
        """Check that jobs whose records take `record_bytes` may be stored.

        Args:
            is_repeat: whether an earlier answer is remembered, so that nothing will be stored. Asked only without room.
        Raises:
            Draining, CleanerBehind, CommandTooLarge, DiskFull, Overloaded.
        """
        self.need_serving()
        try:
            if self._cleaner.is_behind:
                raise CleanerBehind
            self._commits.need_room(record_bytes + ROOM_BYTES_SMALL, spare_segments=1)
        except ApiError:
            if not is_repeat():
                raise

    async def caught_up(self) -> None:
        """Return when a cleaner that is behind has freed a part and a segment that is due is ready, or after a while.

        That while is LAG_WAIT_S for each. Returns at once if there is nothing to wait for.
        """
        if self._cleaner.is_behind and not self.draining:
            await self._cleaner.progress(LAG_WAIT_S)
        if not self.draining:
            await self._log.more_room(LAG_WAIT_S)
