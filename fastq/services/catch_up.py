"""Which of a schedule's missed times fire."""

from __future__ import annotations

from fastq.services.cron import Times

MISSED_US = 60_000_000  # a time that is late by this much was missed; a quick restart misses none


class Search:
    """Goes back from now to the first due time that fires. A time that is late by less than MISSED_US is not missed."""

    def __init__(self, times: Times, since_us: int, now_us: int, catch_up: str, catch_up_max: int) -> None:
        """
        Args:
            times: of the schedule.
            since_us: times up to this one have fired or were skipped.
            catch_up, catch_up_max: see `fastq.services.schedules.Schedule`.
        """
        self._times = times.until(now_us)
        self._since_us = since_us
        self._left = catch_up_max if catch_up == "all" else 1
        self._missed_us = now_us - MISSED_US if catch_up == "skip" else since_us
        self.first_us: int | None = None  # None: no time fires
        self.last_us = since_us  # the latest due time
        self.is_over = False

    def go(self, steps: int) -> int:
        """Look at up to `steps` times. Returns at how many it has looked."""
        for taken in range(steps):
            due_us = next(self._times, self._since_us)
            if due_us <= self._since_us:
                self.is_over = True
                return taken + 1
            if self.first_us is None:
                self.last_us = due_us
            if due_us <= self._missed_us:
                self.is_over = True
                return taken + 1
            self.first_us = due_us
            self._left -= 1
            if self._left == 0:
                self.is_over = True
                return taken + 1
        return steps
