"""A server that answers every fortieth ack and does nothing, for the harness to catch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from fastq.cli import main
from fastq.engine import Engine
from fastq.engine.commands import Ack, Principal
from fastq.errors import ApiError

if __name__ == "__main__":
    ack_many, number = Engine.ack_many, count(1)

    async def now_and_then(self: Engine, who: Principal, commands: Sequence[Ack]) -> list[ApiError | None]:
        if next(number) % 40 == 0:
            return [None] * len(commands)
        return await ack_many(self, who, commands)

    Engine.ack_many = now_and_then  # type: ignore[method-assign]
    main()
