"""A server that answers every third success that takes the way through the engine and does nothing, to be caught."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from fastq.cli import main
from fastq.engine.acks import Acks
from fastq.engine.commands import Ack, Principal
from fastq.errors import ApiError

if __name__ == "__main__":
    ack_many, number = Acks.ack_many, count(1)

    def now_and_then(self: Acks, who: Principal, commands: Sequence[Ack]) -> list[ApiError | None]:
        if not any(command.error for command in commands) and next(number) % 3 == 0:
            return [None] * len(commands)
        return ack_many(self, who, commands)

    Acks.ack_many = now_and_then  # type: ignore[method-assign]
    main()
