"""Bodies with thousands of members. Their commands are made in slices, one slice of all in each turn of the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from falcon.asgi import Request

from fastq.engine import Engine
from fastq.http.authentication import confirmed

SLICE_MEMBERS = 200  # about a millisecond

Member = TypeVar("Member")
Command = TypeVar("Command")


async def commands_of(
    engine: Engine, req: Request, members: Sequence[Member], make: Callable[[int, Member], Command]
) -> list[Command]:
    """Return `make(index, member)` of each member.

    Raises:
        Unauthenticated, Forbidden: see `confirmed`. And what `make` raises.
    """
    if len(members) <= SLICE_MEMBERS:
        return [make(i, member) for i, member in enumerate(members)]
    commands: list[Command] = []
    # A turn of its own beside the key's lists: it does not wait for their ends.
    async with engine.turns.of(f"{req.context.principal.key_id} with a body") as turn:
        for first in range(0, len(members), SLICE_MEMBERS):
            piece = members[first : first + SLICE_MEMBERS]
            commands += [make(i, member) for i, member in enumerate(piece, first)]
            await turn.pause()
    await confirmed(req)
    return commands
