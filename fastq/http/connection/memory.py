"""What connections hold in memory over all, and who has to go when it is too much."""

from __future__ import annotations

from collections.abc import Callable

HELD_BYTES_MAX = 64 << 20
"""Of what came in and is not answered yet, over all connections; the same again of answers that nobody reads."""


class Room:
    """Bytes by holder. Past the limit those go that have held theirs for longest: whoever is quick always gets through.

    A holder is the callable that makes it let go of what it holds, and says whether it could.
    """

    def __init__(self, bytes_max: int = HELD_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self._held: dict[Callable[[], bool], int] = {}

    def hold(self, holder: Callable[[], bool], size: int) -> None:
        """`size`: all that the holder now has. With 0 it is forgotten, and the next time it is the newest."""
        before = self._held.get(holder, 0)
        if size == before:
            return
        self.held_bytes += size - before
        if size:
            self._held[holder] = size
        else:
            del self._held[holder]
        if self.held_bytes > self.bytes_max and size > before:
            self._make_room()

    def _make_room(self) -> None:
        for holder in list(self._held):
            if holder():
                self.hold(holder, 0)
                if self.held_bytes <= self.bytes_max:
                    return
