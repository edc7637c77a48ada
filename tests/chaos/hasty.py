"""A server that answers before its changes are durable, for the harness to catch."""

from __future__ import annotations

from fastq.cli import main
from fastq.committer import Committer


async def _never_wait(self: Committer) -> None:
    self.kick_soon()


if __name__ == "__main__":
    Committer.settled = _never_wait  # type: ignore[method-assign]
    main()
