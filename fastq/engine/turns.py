"""Long work is made in slices: one slice of all in each turn of the event loop, so that no other request waits long.

A slice takes about a millisecond. Who lists, changes or submits thousands of things takes a turn and calls `pause`
between its slices. Only one has the turn: what the others have made does not wait half-made in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """`async with turns:` around long work. First come, first served."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def __aenter__(self) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was passed on to this one
                self._pass_on()
            raise

    async def __aexit__(self, *_error: object) -> None:
        # The next one begins in a later turn of the loop, also if it comes now.
        asyncio.get_running_loop().call_soon(self._pass_on)

    async def pause(self) -> None:
        """End a slice: let the loop do other work. Call it with the turn."""
        await asyncio.sleep(0)

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                return
        self._is_taken = False
