"""A faulty server for the harness to detect: it answers every fortieth ack without doing it. It has no lane."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from fastq.cli import main
from fastq.engine.acks import Acks
from fastq.engine.commands import Ack, Principal
from fastq.errors import ApiError
from fastq.http.connection.protocol import Protocol
from fastq.server import run

if __name__ == "__main__":
    ack_many, number = Acks.ack_many, count(1)

    def now_and_then(self: Acks, who: Principal, commands: Sequence[Ack]) -> list[ApiError | None]:
        if next(number) % 40 == 0:
            return [None] * len(commands)
        return ack_many(self, who, commands)

    Acks.ack_many = now_and_then  # type: ignore[method-assign]
    vars(run)["Lane"] = Protocol
    main()
