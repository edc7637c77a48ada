"""The model's scheduler: queues, groups, limits, turns and shares. It searches all jobs each time."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from tests.core.model_jobs import Backoff, Job

STRIDE = 1 << 32
SHARES_KEPT = 1000


@dataclass(frozen=True)
class Settings:
    """The fields are those of the core's `QueueSettings`."""

    paused: bool = False
    fair: bool = False
    concurrency: int = 0
    group_concurrency: int = 0
    rate_n: int = 0
    rate_per_ms: int = 0
    lease_ms: int = 0
    backoff: Backoff | None = None
    retention_acked_ms: int = -1
    retention_dead_ms: int = -1
    finished_max: int = -1
    max_depth: int = 0


@dataclass
class Shares:
    """How far each queue of a weighted set has come."""

    now: int = 0
    passes: dict[str, int] = field(default_factory=dict)


class Order:
    def __init__(self, jobs: dict[str, Job]) -> None:
        self.jobs = jobs
        self.settings: dict[str, Settings] = {}
        self.turn: dict[tuple[str, str], int] = {}  # of (queue, group)
        self.now_turn: dict[str, int] = {}  # of a queue: the turn that was served last
        self.last_turn: dict[str, int] = {}  # of a queue: the highest turn so far
        self.credit: dict[str, tuple[int, int]] = {}  # of a queue: the credit, and its time
        self.shares: dict[frozenset[tuple[str, int]], Shares] = {}  # least recently used first

    def copy(self, jobs: dict[str, Job]) -> Order:
        other = copy.deepcopy(self, {id(self.jobs): jobs})
        assert other.jobs is jobs
        return other

    def restart(self) -> None:
        """Drop [memory] state."""
        for job in self.jobs.values():
            job.due = False
        self.__init__(self.jobs)  # type: ignore[misc]

    def of(self, queue: str) -> Settings:
        return self.settings.get(queue, Settings())

    def configure(self, now_us: int, queue: str, settings: Settings | None) -> None:
        before, after = self.of(queue), settings or Settings()
        if (before.rate_n, before.rate_per_ms) != (after.rate_n, after.rate_per_ms):
            self.credit[queue] = (0, now_us)
        if settings is None:
            self.settings.pop(queue, None)
        else:
            self.settings[queue] = settings
        self.level(queue)

    # --- jobs come and go -------------------------------------------------------------------------------------------

    def join(self, job: Job) -> None:
        """Add a job that is due."""
        if not self.ready(job.queue, job.group):
            at = (job.queue, job.group)
            self.turn[at] = max(self.turn.get(at, 0), self.now_turn.get(job.queue, 0))
        job.due = True

    def leave(self, job: Job) -> None:
        job.due = False
        self.level(job.queue)

    def serve(self, now_us: int, job: Job) -> None:
        """Account for a lease of this job: its group's turn is over. The job is still among the ready jobs."""
        queue = job.queue
        if self.of(queue).rate_n:
            self.credit[queue] = (self.credit_at(now_us, queue) - self.of(queue).rate_per_ms * 1000, now_us)
        if self.of(queue).fair:
            self.now_turn[queue] = max(self.now_turn.get(queue, 0), self.turn[queue, job.group])
            self.last_turn[queue] = self.turn[queue, job.group] = self.last_turn.get(queue, 0) + 1

    def level(self, queue: str) -> None:
        """If no group can be served, the next group starts level with the others."""
        if not self.heads(queue):
            self.now_turn[queue] = self.last_turn.get(queue, 0)

    # --- the next job -----------------------------------------------------------------------------------------------

    def ready(self, queue: str, group: str | None = None) -> list[Job]:
        return sorted(
            (job for job in self.jobs.values() if job.due and job.queue == queue and group in (None, job.group)),
            key=Job.order,
        )

    def running(self, queue: str, group: str | None = None) -> int:
        return sum(
            job.state == "RUNNING" and job.queue == queue and group in (None, job.group) for job in self.jobs.values()
        )

    def heads(self, queue: str) -> dict[str, Job]:
        """The first job of each group whose own limit allows a lease."""
        heads: dict[str, Job] = {}
        for job in self.ready(queue):
            heads.setdefault(job.group, job)
        limit = self.of(queue).group_concurrency
        return {group: job for group, job in heads.items() if not limit or self.running(queue, group) < limit}

    def head(self, queue: str) -> Job | None:
        """The queue's next job, if its limits allow a lease."""
        heads = self.heads(queue).values()
        if self.of(queue).fair:
            return min(heads, key=lambda job: (self.turn[queue, job.group], job.order()), default=None)
        return min(heads, key=Job.order, default=None)

    def credit_at(self, now_us: int, queue: str) -> int:
        rate_n, rate_per_us = self.of(queue).rate_n, self.of(queue).rate_per_ms * 1000
        credit, at_us = self.credit[queue]
        return min(rate_per_us * rate_n, credit + (now_us - at_us) * rate_n)

    def rate_due_us(self, now_us: int, queue: str) -> int:
        """When the rate limit allows the next lease; 0: now."""
        rate_n, rate_per_us = self.of(queue).rate_n, self.of(queue).rate_per_ms * 1000
        if rate_n == 0 or self.credit_at(now_us, queue) >= rate_per_us:
            return 0
        missing = rate_per_us - self.credit_at(now_us, queue)
        return now_us + -(-missing // rate_n)

    def blocked_by(self, now_us: int, queue: str, group: str) -> str:
        settings = self.of(queue)
        if settings.paused:
            return "paused"
        if settings.concurrency and self.running(queue) >= settings.concurrency:
            return "concurrency"
        if self.rate_due_us(now_us, queue):
            return "rate_limit"
        if settings.group_concurrency and self.running(queue, group) >= settings.group_concurrency:
            return "group_concurrency"
        return ""

    def gives(self, now_us: int, queue: str) -> Job | None:
        """The job of this queue that may be leased now."""
        head = self.head(queue)
        return None if head is None or self.blocked_by(now_us, queue, head.group) else head

    def choose(self, now_us: int, queues: list[str] | dict[str, int]) -> Job | None:
        """The next job of a request for these queues."""
        if isinstance(queues, list):
            return next((job for queue in queues if (job := self.gives(now_us, queue))), None)
        shares = self.shares_of(queues)
        open_queues = sorted(queue for queue in queues if self.gives(now_us, queue))
        if not open_queues:
            return None
        return self.gives(now_us, min(open_queues, key=lambda queue: max(shares.passes.get(queue, 0), shares.now)))

    def shares_of(self, weights: dict[str, int]) -> Shares:
        key = frozenset(weights.items())
        shares = self.shares.pop(key, Shares())
        self.shares[key] = shares
        while len(self.shares) > SHARES_KEPT:
            del self.shares[next(iter(self.shares))]
        return shares

    def share(self, weights: dict[str, int], queue: str) -> None:
        """A queue of this weighted set was served."""
        shares = self.shares_of(weights)
        shares.now = max(shares.passes.get(queue, 0), shares.now)
        shares.passes[queue] = shares.now + STRIDE // weights[queue]
