from collections.abc import Callable
from typing import final

@final
class Clock:
    """Logical time: runs on the monotonic clock, never backward, and is drawn to the wall clock by at most a tenth.

    So a wall clock that jumps while the server runs neither ends a lease early nor keeps one from ending.
    """

    def __init__(
        self, start_us: int, monotonic: Callable[[], int] | None = None, wall: Callable[[], int] | None = None
    ) -> None:
        """
        Args:
            monotonic, wall: what is read, microseconds; None: the machine's clocks.
        """

    def now_us(self) -> int:
        """Unix microseconds."""
