"""A limit on the memory that all connections use together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

HELD_BYTES_MAX = 64 << 20
"""For unanswered requests of all connections, and the same again for unread answers."""


class MemoryLimit:
    """Counts bytes by holder. Above the limit the oldest holders free their memory, so that quick clients are served.

    A holder is a callable that frees the memory and returns whether it had any to free.
    """

    def __init__(self, bytes_max: int = HELD_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self._held: OrderedDict[Callable[[], bool], int] = OrderedDict()

    def hold(self, holder: Callable[[], bool], size: int) -> None:
        """Set the bytes of a holder. With `size` 0 it is removed, and it is the newest when it holds memory again."""
        before = self._held.get(holder, 0)
        if size == before:
            return
        self.held_bytes += size - before
        if size:
            self._held[holder] = size
        else:
            del self._held[holder]
        if self.held_bytes > self.bytes_max and size > before:
            self._free_oldest()

    def _free_oldest(self) -> None:
        """Free the oldest. One that cannot free its memory becomes the newest, so that it is not asked each time."""
        for _ in range(len(self._held)):
            holder = next(iter(self._held))
            if holder():
                self.hold(holder, 0)
                if self.held_bytes <= self.bytes_max:
                    return
            elif holder in self._held:
                self._held.move_to_end(holder)
