"""When each worker was last seen, and what it asked for. Kept in memory only."""

from __future__ import annotations

from collections import OrderedDict

WORKERS_KEPT = 10_000
QUEUES_KEPT = 8  # of one worker


class LastSeen:
    """Workers that gave an id, the least recently seen first. Those are forgotten past WORKERS_KEPT."""

    def __init__(self) -> None:
        self._seen_us: OrderedDict[str, int] = OrderedDict()
        self._queues: dict[str, tuple[str, ...]] = {}
        self._about: dict[str, tuple[str, str]] = {}

    def note(self, worker_id: str, now_us: int, queues: tuple[str, ...] = ()) -> None:
        """Note a request of a worker. An empty id is ignored.

        Args:
            queues: those that it asks for a job; empty for other requests.
        """
        if worker_id:
            if queues:
                self._queues[worker_id] = queues if len(queues) <= QUEUES_KEPT else queues[:QUEUES_KEPT]
            self._seen_us[worker_id] = now_us
            self._seen_us.move_to_end(worker_id)
            if len(self._seen_us) > WORKERS_KEPT:
                gone, _ = self._seen_us.popitem(last=False)
                self._queues.pop(gone, None)
                self._about.pop(gone, None)

    def tell(self, worker_id: str, host: str, version: str) -> None:
        """Note what a worker says about itself, after `note`. Empty: it says nothing."""
        if (host or version) and worker_id in self._seen_us:
            self._about[worker_id] = host, version

    def about(self, worker_id: str) -> tuple[str, str]:
        """The host and the version that the worker last said; empty: none."""
        return self._about.get(worker_id, ("", ""))

    def queues_of(self, worker_id: str) -> tuple[str, ...]:
        """The queues that the worker last asked for a job, the first QUEUES_KEPT."""
        return self._queues.get(worker_id, ())

    def since(self, us: int) -> dict[str, int]:
        """Workers seen at `us` or later, the latest first, each with its time; Unix microseconds."""
        found = {}
        for worker_id in reversed(self._seen_us):
            if self._seen_us[worker_id] < us:
                break
            found[worker_id] = self._seen_us[worker_id]
        return found
