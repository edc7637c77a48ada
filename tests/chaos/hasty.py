"""A faulty server for the harness to detect: it answers before the log is durable."""

from __future__ import annotations

from fastq._core import Batch
from fastq.cli import main
from fastq.engine.commits import Commits

LATER_S = 0.05

_unwritten: list[Batch] = []


async def _never_wait(self: Commits, _seq: int = 0) -> None:
    self.kick_soon()


def _answer(self: Commits) -> None:
    self._kick_due = False
    self._before_commit()
    while (batch := self._tail.take()) is not None:
        self._tail.durable(batch.seq)
        _unwritten.append(batch)
        self._loop.call_later(LATER_S, _write, self)
    while self._until_visible:
        self._until_visible.popleft()[1]()


def _write(self: Commits, _seq: int = 0) -> None:
    if _unwritten and self._log.idle:
        self._log.commit(_unwritten.pop(0))


if __name__ == "__main__":
    Commits.durable = Commits.visible = _never_wait  # type: ignore[method-assign]
    Commits._kick = _answer  # type: ignore[method-assign]
    Commits._durable = _write  # type: ignore[method-assign]
    main()
