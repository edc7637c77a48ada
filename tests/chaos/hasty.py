"""A server that answers before its changes are durable, for the harness to catch."""

from __future__ import annotations

from fastq.__main__ import main
from fastq.engine import Engine


async def _never_wait(self: Engine) -> None:
    self._kick_soon()


if __name__ == "__main__":
    Engine._settled = _never_wait  # type: ignore[method-assign]
    main()
