"""The scheduler's order, fairness, limits and shares, on loads too large for the model.

The oracle here uses no turns, heaps or parked groups. It keeps a sorted list of each group's waiting jobs, and checks
each lease: whether the limits allow it, and how many leases of others each group has waited through.
"""

from __future__ import annotations

import bisect
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import accumulate, combinations

import pytest

from fastq import _core
from fastq._core import ALL, CoreSettings, Leased, NewJob, QueueSettings, SubmitOptions
from tests.core.actions import RandomDraw, configure_queue
from tests.core.agreement import agree
from tests.core.disk import Disk
from tests.core.model import Server
from tests.core.model_jobs import Ack, New
from tests.core.model_order import SHARES_KEPT
from tests.core.world import START_US, World

GROUPS = 1_000
LEASES = int(os.environ.get("FASTQ_SCHEDULER_LEASES", "200000"))
SECOND_US = 1_000_000

Key = tuple[int, int, int, str]
"""-priority, run_at_us, number, job_id"""


class Groups:
    """The waiting and running jobs of each group of one queue, and since when each group may be served."""

    def __init__(self, group_concurrency: int, fair: bool) -> None:
        self.group_concurrency = group_concurrency
        self.fair = fair
        self.waiting: dict[str, list[Key]] = defaultdict(list)
        self.running: Counter[str] = Counter()
        self.heads: list[tuple[Key, str]] = []  # of the groups that may be served, sorted
        self.since: dict[str, int] = {}  # group -> the number of the lease after which its wait began
        self.served: dict[str, list[int]] = defaultdict(list)  # group -> the numbers of its leases
        self.leases = 0

    def may_be_served(self, group: str) -> bool:
        return bool(self.waiting[group]) and self.running[group] < (self.group_concurrency or 1 << 40)

    def change(self, group: str, change: Callable[[], object]) -> None:
        """Change a group, and update since when it may be served."""
        if group in self.since:
            del self.heads[bisect.bisect_left(self.heads, (self.waiting[group][0], group))]
        change()
        if self.may_be_served(group):
            bisect.insort(self.heads, (self.waiting[group][0], group))
            self.since.setdefault(group, self.leases)
        else:
            self.since.pop(group, None)

    def add(self, group: str, key: Key) -> None:
        self.change(group, lambda: bisect.insort(self.waiting[group], key))

    def end(self, group: str) -> None:
        self.change(group, lambda: self.running.subtract([group]))

    def take(self, leased: Leased) -> Key:
        """Assert that this lease is allowed, and note it."""
        group = leased.group
        assert group in self.since, "a group is served that has no ready job or has reached its limit"
        key = self.waiting[group][0]
        assert key[3] == leased.job_id, "not the first of its group"
        if self.fair:
            self.assert_fair(group)
        else:
            assert self.heads[0] == (key, group), "not the first of its queue"
        self.leases += 1
        self.served[group].append(self.leases)
        self.since[group] = self.leases  # its next one waits from now on

        def start() -> None:
            self.waiting[group].pop(0)
            self.running[group] += 1

        self.change(group, start)
        return key

    def assert_fair(self, group: str) -> None:
        """Assert that no group that waited longer has waited through two leases of the group served now."""
        earlier = self.served[group]
        if earlier:
            overtaken = [other for other, since in self.since.items() if other != group and since < earlier[-1]]
            assert not overtaken, f"{group} is served again before {overtaken[0]}, which waits"


def zipf(rng: random.Random, n: int) -> Callable[[], int]:
    """Draws from 0 to n - 1, where k comes 1 / (k + 1) as often as 0."""
    weights = list(accumulate(1 / (k + 1) for k in range(n)))
    return lambda: bisect.bisect_left(weights, rng.random() * weights[-1])


class Load(Disk):
    """A core with one queue under a load, and the oracle beside it."""

    def __init__(self, settings: dict[str, int | bool], seed: int) -> None:
        super().__init__(64 << 20, 1 << 20)
        self.rng = random.Random(seed)
        self.now_us = START_US
        self.open(self.now_us, 1, CoreSettings())
        self.settings = settings
        self.core.configure_queue(self.now_us, "q", QueueSettings(**settings))  # type: ignore[arg-type]
        self.groups = Groups(int(settings.get("group_concurrency", 0)), bool(settings.get("fair")))
        self.draw_group = zipf(self.rng, GROUPS)
        self.options = [SubmitOptions(group=f"g{k}") for k in range(GROUPS)]
        self.delayed: list[tuple[int, str, Key]] = []
        self.held: list[tuple[str, str, str, Key]] = []  # job_id, token, group, key
        self.submitted = 0
        self.credit = 0  # of the rate limit, in millionths of a lease
        self.credit_us = self.now_us

    def settle(self) -> None:
        while (batch := self.tail.take()) is not None:
            self.tail.durable(batch.seq)
        self.offer()

    def submit(self) -> None:
        k = self.draw_group()
        priority, delay_us = self.rng.choice([0, 0, 0, 1, 5, -2]), self.rng.choice([0, 0, 0, 0, SECOND_US // 50])
        new = NewJob(b"1", 3, priority, self.now_us + delay_us, "q", self.options[k])
        job_id, _ = self.core.submit(self.now_us, new, owner_id="o", key_id="k")
        self.submitted += 1
        key = (-priority, self.now_us + delay_us, self.submitted, job_id)
        if delay_us:
            bisect.insort(self.delayed, (self.now_us + delay_us, f"g{k}", key))
        else:
            self.groups.add(f"g{k}", key)

    def time_passes(self, step_us: int) -> None:
        self.now_us += step_us
        self.core.advance(self.now_us, 1_000_000)
        while self.delayed and self.delayed[0][0] <= self.now_us:
            _, group, key = self.delayed.pop(0)
            self.groups.add(group, key)
        rate_n, rate_per_us = int(self.settings.get("rate_n", 0)), int(self.settings.get("rate_per_ms", 0)) * 1000
        self.credit = min(rate_n * rate_per_us, self.credit + (self.now_us - self.credit_us) * rate_n)
        self.credit_us = self.now_us

    def room(self) -> int:
        """How many leases the queue's own limits allow."""
        room = int(self.settings.get("concurrency", 0)) or 1_000_000
        room -= len(self.held)
        if self.settings.get("rate_n"):
            room = min(room, self.credit // (int(self.settings["rate_per_ms"]) * 1000))
        return room

    def lease(self, limit: int) -> None:
        room = self.room()
        granted = self.core.lease(self.now_us, ["q"], limit, lease_ms=3_600_000, key_id="k")
        for leased in granted:
            key = self.groups.take(leased)
            self.held.append((leased.job_id, leased.token, leased.group, key))
            self.credit -= int(self.settings.get("rate_per_ms", 0)) * 1000
        assert len(granted) <= room, "more than the queue's limits allow"
        if len(granted) < min(limit, room):
            assert not self.groups.heads, "a job is held back though no limit is reached"

    def ack(self) -> None:
        at = self.rng.randrange(len(self.held))
        self.held[at], self.held[-1] = self.held[-1], self.held[at]
        job_id, token, group, key = self.held.pop()
        outcome = self.rng.choice(["ok", "ok", "ok", "release"])
        self.core.ack(self.now_us, ALL, _core.Ack(job_id, token, outcome), key_id="k")
        self.groups.end(group)
        if outcome == "release":
            self.groups.add(group, key)

    def run(self, leases: int) -> None:
        waiting_wanted = 0
        while self.groups.leases < leases:
            if self.rng.random() < 0.002:
                waiting_wanted = self.rng.choice([0, 50, 500, 10_000])  # from famine to flood
            if self.submitted - self.groups.leases < waiting_wanted + 20:
                for _ in range(self.rng.choice([1, 30])):
                    self.submit()
            self.time_passes(self.rng.choice([0, 1, 50, SECOND_US // 100]))
            self.lease(self.rng.choice([1, 1, 1, 10]))
            while self.held and self.rng.random() < (0.6 if len(self.held) < 2_000 else 0.95):
                self.ack()
            self.settle()


LOADS: dict[str, dict[str, int | bool]] = {
    "exact order": {},
    "exact order under limits": {"group_concurrency": 3, "concurrency": 200},
    "fair": {"fair": True},
    "fair under limits": {"fair": True, "group_concurrency": 2, "concurrency": 300},
    "fair with a rate": {"fair": True, "group_concurrency": 5, "rate_n": 700, "rate_per_ms": 1_000},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADS)
def test_a_thousand_groups_with_skewed_loads(name: str) -> None:
    load = Load(LOADS[name], seed=len(name))
    load.run(LEASES // len(LOADS))
    load.core.check()
    assert len(load.groups.served) > GROUPS // 2, "hardly a group was served"


# --- small loads, compared with the model lease by lease --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_every_lease_agrees_with_the_model(seed: int) -> None:
    """Queues whose settings change, with few groups that are often empty or held back."""
    rng = random.Random(seed)
    draw = RandomDraw(rng)
    world = World(Server(lease_ms=20_000))
    queues: list[list[str] | dict[str, int]] = [["q"], ["r", "q"], {"q": 2, "r": 3}, {"q": 7, "r": 1, "s": 2}]
    for step in range(700):
        if rng.random() < 0.04:
            configure_queue(world, draw, rng.choice("qrs"))
        groups = rng.choice(["ab", "abcdefghijkl"])
        news = [New(queue=rng.choice("qqrs"), group=rng.choice(groups), priority=rng.choice([0, 0, 1])) for _ in "123"]
        if rng.random() < 0.5:
            world.submit(news[: rng.randrange(4)])
        world.lease(rng.choice(queues), rng.choice([1, 1, 5]))
        running = [job for job in world.model.jobs.values() if job.state == "RUNNING"]
        for job in rng.sample(running, k=min(len(running), rng.choice([0, 1, 1, 4]))):
            world.ack(Ack(job.job_id, job.token, rng.choice(["ok", "ok", "release"])))
        world.time_passes(rng.choice([0, 1, SECOND_US // 3]))
        world.forget(0, 0)
        if step % 50 == 0:
            agree(world, step)


# --- by weight --------------------------------------------------------------------------------------------------------


class Weighted:
    """Queues that always have jobs, and the leases of each."""

    def __init__(self, names: str) -> None:
        self.disk = Disk(64 << 20, 1 << 20)
        self.disk.open(START_US, 1, CoreSettings())
        self.names = names
        self.given: Counter[str] = Counter()

    def fill(self, names: str, jobs: int) -> None:
        for _ in range(jobs):
            for name in names:
                self.disk.core.submit(START_US, NewJob(b"1", 1, queue=name), owner_id="o", key_id="k")
            self.disk.sync()
            self.disk.offer()

    def lease(self, weights: dict[str, int], limit: int = 1) -> list[str]:
        granted = self.disk.core.lease(START_US, weights, limit, lease_ms=1000, key_id="k")
        self.given.update(leased.queue for leased in granted)
        self.disk.sync()
        self.disk.offer()
        return [leased.queue for leased in granted]


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 3, "b": 1}, {"a": 997, "b": 1000}, {"a": 7, "b": 2}])
def test_two_queues_get_their_shares_within_one_lease(weights: dict[str, int]) -> None:
    weighted = Weighted("ab")
    weighted.fill("ab", 4_000)
    total = sum(weights.values())
    for leases in range(1, 4_001):
        weighted.lease(weights)
        for name, weight in weights.items():
            ideal = leases * weight / total
            assert abs(weighted.given[name] - ideal) <= 1, f"{name} has {weighted.given[name]} of {leases}"


def test_weighted_queues_stay_within_one_lease_of_each_other() -> None:
    rng = random.Random(5)
    weights = {name: rng.choice([1, 2, 3, 5, 8, 100]) for name in "abcdefghij"}
    weighted = Weighted("abcdefghij")
    weighted.fill("abcdefghij", 1_500)
    for _ in range(300):
        weighted.lease(weights, rng.choice([1, 7, 13]))
        for one, other in combinations(weights, 2):
            apart = weighted.given[one] * weights[other] - weighted.given[other] * weights[one]
            assert abs(apart) <= max(weights[one], weights[other])


def test_a_queue_gains_no_share_while_it_is_empty() -> None:
    weighted = Weighted("ab")
    weights = {"a": 1, "b": 1}
    weighted.fill("a", 500)
    weighted.lease(weights, 200)
    weighted.fill("b", 300)
    weighted.given.clear()
    weighted.lease(weights, 100)
    assert abs(weighted.given["a"] - weighted.given["b"]) <= 1


def test_sets_of_weights_are_independent_and_the_oldest_is_dropped() -> None:
    weighted = Weighted("ab")
    weighted.fill("ab", SHARES_KEPT + 50)
    assert weighted.lease({"a": 1, "b": 1}) == ["a"]
    assert weighted.lease({"a": 2, "b": 1}) == ["a"]
    assert weighted.lease({"a": 1, "b": 1}) == ["b"]
    assert weighted.lease({"a": 1, "b": 1}) == ["a"]
    for weight in range(3, SHARES_KEPT + 2):
        assert weighted.lease({"a": weight, "b": 1}) == ["a"]
    assert weighted.lease({"a": 1, "b": 1}) == ["b"], "it was used later than the one with weight 2"
    assert weighted.lease({"a": SHARES_KEPT + 2, "b": 1}) == ["a"]
    assert weighted.lease({"a": 2, "b": 1}) == ["a"], "forgotten: it begins anew"


def test_a_list_is_strict_order() -> None:
    weighted = Weighted("ab")
    weighted.fill("ab", 5)
    granted = weighted.disk.core.lease(START_US, ["b", "none", "a"], 8, lease_ms=1000, key_id="k")
    assert [leased.queue for leased in granted] == ["b"] * 5 + ["a"] * 3


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate_n", "rate_per_ms"), [(1, 1_000), (7, 1_000), (1_000, 60_000), (3, 7)])
def test_no_interval_exceeds_the_rate_and_one_burst(rate_n: int, rate_per_ms: int) -> None:
    rng = random.Random(rate_n)
    load = Load({"rate_n": rate_n, "rate_per_ms": rate_per_ms}, seed=3)
    for _ in range(5 * rate_n):
        load.submit()
        load.settle()
    load.core.advance(load.now_us + SECOND_US, 1_000_000)
    load.now_us += SECOND_US
    load.core.configure_queue(load.now_us, "q", None)
    load.core.configure_queue(load.now_us, "q", QueueSettings(rate_n=rate_n, rate_per_ms=rate_per_ms))
    times: list[int] = []
    start_us = load.now_us
    while len(times) < 4 * rate_n:
        due_us = load.core.rate_due_us("q")
        load.now_us = max(load.now_us, due_us) + rng.choice([0, 0, 0, rate_per_ms * 2_500])
        granted = load.core.lease(load.now_us, ["q"], rng.choice([1, 5, rate_n]), lease_ms=1000, key_id="k")
        assert granted, "a token was promised for now"
        times += [load.now_us] * len(granted)
        load.settle()
    assert times[0] - start_us >= rate_per_ms * 1000 // rate_n, "the bucket was not empty at the start"
    for first, last in combinations(range(0, len(times), 1 + len(times) // 200), 2):
        stretch_us = times[last] - times[first]
        assert last - first + 1 <= rate_n + 1 + stretch_us * rate_n // (rate_per_ms * 1000)
