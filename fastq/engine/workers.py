"""When each worker was last seen. Kept in memory only."""

from __future__ import annotations

from collections import OrderedDict

WORKERS_KEPT = 10_000


class LastSeen:
    """Workers that gave an id, the least recently seen first. Those are forgotten past WORKERS_KEPT."""

    def __init__(self) -> None:
        self._seen_us: OrderedDict[str, int] = OrderedDict()

    def note(self, worker_id: str, now_us: int) -> None:
        """Note a request of a worker. An empty id is ignored."""
        if worker_id:
            self._seen_us[worker_id] = now_us
            self._seen_us.move_to_end(worker_id)
            if len(self._seen_us) > WORKERS_KEPT:
                self._seen_us.popitem(last=False)

    def since(self, us: int) -> dict[str, int]:
        """Workers seen at `us` or later, the latest first, each with its time; Unix microseconds."""
        found = {}
        for worker_id in reversed(self._seen_us):
            if self._seen_us[worker_id] < us:
                break
            found[worker_id] = self._seen_us[worker_id]
        return found
