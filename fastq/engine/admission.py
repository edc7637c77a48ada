"""Whether new work is taken: not while the server stops, not while the cleaner is behind, not without room."""

from __future__ import annotations

from fastq.engine.cleaner import Cleaner
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.errors import CleanerBehind, Draining
from fastq.log.protocol import Log

LAG_WAIT_S = 1.0  # how long a submit waits for a cleaner that is behind, before it is refused


class Admission:
    def __init__(self, log: Log, commits: Commits, cleaner: Cleaner) -> None:
        self._log, self._commits, self._cleaner = log, commits, cleaner
        self.draining = False

    @property
    def takes_everything(self) -> bool:
        """Whether there is no reason to keep any new job waiting, or to refuse it."""
        return not (self.draining or self._commits.failed or self._log.disk_full or self._cleaner.is_behind)

    def need_service(self) -> None:
        """Raises Draining."""
        if self.draining:
            raise Draining("the server is stopping")

    def need_place(self, record_bytes: int) -> None:
        """For jobs whose records take so much. Raises Draining, CleanerBehind, DiskFull, Overloaded."""
        self.need_service()
        if self._cleaner.is_behind:
            raise CleanerBehind("the log is being cleaned and does not keep up: submit more slowly")
        self._commits.need_room(record_bytes + ROOM_BYTES_SMALL, spare_segments=1)

    async def cleaner_caught_up(self) -> None:
        """Return when the cleaner is not behind, has given a segment back, or after LAG_WAIT_S."""
        if self._cleaner.is_behind and not self.draining:
            await self._cleaner.progress(LAG_WAIT_S)
