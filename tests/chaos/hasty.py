"""A server that answers before its changes are durable, for the harness to catch."""

from __future__ import annotations

from fastq.cli import main
from fastq.committer import Committer
from fastq.http.hot import HotRoutes


class AllDurable:
    """A tail of which the lane believes that all of it is on the disk."""

    appended_seq = 0
    durable_seq = 0


async def _never_wait(self: Committer) -> None:
    self.kick_soon()


if __name__ == "__main__":
    Committer.settled = _never_wait  # type: ignore[method-assign]
    HotRoutes.tail = property(lambda _self: AllDurable, lambda _self, _tail: None)  # type: ignore[assignment]
    main()
