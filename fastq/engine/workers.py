"""When workers were last heard of: in memory, and no longer than that."""

from __future__ import annotations

from collections import OrderedDict

WORKERS_KEPT = 10_000


class LastSeen:
    """Those that said who they are, the least recently heard of first; the first ones go when there are too many."""

    def __init__(self) -> None:
        self._seen_us: OrderedDict[str, int] = OrderedDict()

    def note(self, worker_id: str, now_us: int) -> None:
        """It leased, or said that it is alive. An empty id is nobody."""
        if worker_id:
            self._seen_us[worker_id] = now_us
            self._seen_us.move_to_end(worker_id)
            if len(self._seen_us) > WORKERS_KEPT:
                self._seen_us.popitem(last=False)

    def since(self, us: int) -> dict[str, int]:
        """Workers that were heard of then or later, the latest first; each when it was."""
        found = {}
        for worker_id in reversed(self._seen_us):
            if self._seen_us[worker_id] < us:
                break
            found[worker_id] = self._seen_us[worker_id]
        return found
