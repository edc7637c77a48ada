"""Long work is made in slices: one slice of all in each turn of the event loop, so that no other request waits long.

A slice takes about a millisecond. Who lists, changes or submits thousands of things takes a turn and pauses between
its slices.

The askers share the slices. Each has at most one piece of work in the ring, and the ring gives each piece one slice
after the other. More work of the same asker waits until its first piece ends, first come, first served. So a key that
asks for a thousand pages delays its own pages, and those of another key only by a slice of its own for each of theirs.
The ring has a maximum, since what is half made takes memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

AT_WORK_MAX = 16  # pieces of work in the ring


class Turns:
    """`async with turns.of(asker) as turn:` around long work, with `await turn.pause()` after each slice."""

    def __init__(self) -> None:
        self._has_slice = False  # a piece of work has the slice, or the next one gets it in the next turn of the loop
        self._ring: deque[Turn] = deque()  # begun work that waits for its next slice
        self._begun: set[str] = set()  # askers with begun work, AT_WORK_MAX of them
        self._line: deque[str] = deque()  # askers with work that waits, and none that is begun
        self._waiting: dict[str, deque[Turn]] = {}  # by asker, the work that is not begun

    @property
    def waiting(self) -> int:
        """How many pieces of work are not begun."""
        return sum(len(line) for line in self._waiting.values())

    def of(self, asker: str) -> Turn:
        """Return a turn for one piece of work. `asker` is the id of a key, or the name of a part of the server."""
        return Turn(self, asker)

    def _add(self, turn: Turn) -> None:
        """Add a piece of work that is not begun."""
        line = self._waiting.get(turn.asker)
        if line is None:
            line = self._waiting[turn.asker] = deque()
            if turn.asker not in self._begun:
                self._line.append(turn.asker)
        line.append(turn)
        if not self._has_slice:
            self._give()

    def _go_round(self, turn: Turn) -> None:
        """Take the slice from this work and give it to the next one in the ring."""
        self._ring.append(turn)
        self._give()

    def _end(self, turn: Turn) -> None:
        """Remove a begun piece of work. The next slice is given in a later turn of the loop, also to who comes now."""
        self._begun.remove(turn.asker)
        if turn.asker in self._waiting:
            self._line.append(turn.asker)
        if turn.has_slice:
            asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        """Give the slice to the next piece of work in the ring."""
        self._fill_ring()
        while self._ring:
            turn = self._ring.popleft()
            if not turn.slice.done():  # else its task was cancelled
                self._has_slice = True
                turn.slice.set_result(None)
                return
        self._has_slice = False

    def _fill_ring(self) -> None:
        while self._line and len(self._begun) < AT_WORK_MAX:
            asker = self._line.popleft()
            line = self._waiting[asker]
            while line:
                turn = line.popleft()
                if not turn.slice.done():  # else its task was cancelled
                    turn.is_begun = True
                    self._begun.add(asker)
                    self._ring.append(turn)
                    break
            if not line:
                del self._waiting[asker]


class Turn:
    """One piece of work of an asker: an async context manager."""

    def __init__(self, turns: Turns, asker: str) -> None:
        self._turns, self.asker = turns, asker
        self.is_begun = False
        self.slice: asyncio.Future[None]  # done when the work may make a slice

    @property
    def has_slice(self) -> bool:
        return self.slice.done() and not self.slice.cancelled()

    async def __aenter__(self) -> Self:
        self.slice = asyncio.get_running_loop().create_future()
        self._turns._add(self)
        try:
            await self.slice
        except asyncio.CancelledError:
            if self.is_begun:
                self._turns._end(self)
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._turns._end(self)

    async def pause(self) -> None:
        """End a slice, and wait for the next one."""
        self.slice = asyncio.get_running_loop().create_future()
        self._turns._go_round(self)
        if self.slice.done():  # no other work is in the ring: let the loop do something else
            await asyncio.sleep(0)
        else:
            await self.slice
