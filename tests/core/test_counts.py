"""Many queues, groups and names: no step goes through all of them, and their memory goes when they go."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from bench.bare import Bare
from fastq._core import ALL, Ack, CoreSettings, NewJob, QueueSettings, SubmitOptions
from fastq.errors import QueueFull, QueuesFull

MANY = 20_000
SPARE_BYTES = 4 << 20  # a chunk of each pool, and small indexes


class Many(Bare):
    """A core with many queues."""

    def __init__(self, queues_max: int = 1_000_000) -> None:
        super().__init__(1 << 20, CoreSettings(queues_max=queues_max))

    def submit(self, queue: str, group: str = "", owner_id: str = "ann") -> str:
        self.now_us += 1
        options = SubmitOptions(group=group) if group else None
        job_id, _ = self.core.submit(
            self.now_us, NewJob(b"1", 3, queue=queue, options=options), owner_id=owner_id, key_id="k"
        )
        self.settle()
        return job_id

    def finish(self, queue: str) -> str:
        job_id = self.submit(queue)
        self.now_us += 1
        (leased,) = self.core.lease(self.now_us, [queue], 1, lease_ms=30_000, key_id="k")
        self.core.ack(self.now_us, ALL, Ack(leased.job_id, leased.token), key_id="k")
        self.settle()
        return job_id

    def forget(self, limit: int = 1000) -> int:
        forgotten = 0
        while n := self.core.forget(self.now_us, limit):
            forgotten += n
            self.settle()
        return forgotten


def least_s(step: Callable[[], object]) -> float:
    """The least time of this thread that a step took: other processes do not count."""
    took = []
    for _ in range(7):
        began = time.thread_time()
        for _ in range(200):
            step()
        took.append(time.thread_time() - began)
    return min(took)


def test_no_step_of_every_commit_grows_with_queues_that_have_finished_jobs() -> None:
    """It took 5,000 times as long with so many queues; a factor of 20 is for the processor's cache."""
    took = []
    for queues in (1, MANY):
        bare = Many()
        bare.core.retain(3_600_000, 3_600_000, 10**9, 1 << 50)
        for number in range(queues):
            bare.finish(f"q{number}")
        assert not bare.core.tidy(bare.now_us)
        took.append(least_s(lambda bare=bare: bare.core.tidy(bare.now_us)))  # type: ignore[misc]
        took.append(least_s(lambda bare=bare: bare.core.next_due_us()))  # type: ignore[misc]
    assert took[2] < 20 * took[0] and took[3] < 20 * took[1], took


def test_no_removal_above_the_servers_maximum_grows_with_queues() -> None:
    """A server at its maximum of finished jobs removes one for each one that ends."""
    took = []
    for queues in (10, MANY):
        bare = Many()
        for number in range(queues):
            bare.finish(f"q{number}")
        bare.core.retain(3_600_000, 3_600_000, 0, 1 << 50)

        def remove_one(bare: Many = bare) -> None:
            assert bare.core.forget(bare.now_us, 1) == 1
            bare.settle()

        began = time.thread_time()
        for _ in range(8):
            remove_one()
        took.append(time.thread_time() - began)
        bare.core.check()
    assert took[1] < 30 * took[0], took


@pytest.mark.parametrize("of_queue", [False, True])
def test_the_oldest_of_each_queue_goes_when_it_is_due_whatever_changed_its_time(of_queue: bool) -> None:
    """The server's time, a queue's own, a longer one, a shorter one, and none again: each moves the queue."""
    bare = Many()
    bare.core.retain(1_000, 1_000, 10**9, 1 << 50)
    first = {name: bare.finish(name) for name in "abc"}
    if of_queue:
        bare.core.configure_queue(bare.now_us, "a", QueueSettings(retention_acked_ms=10_000))
        bare.core.configure_queue(bare.now_us, "b", QueueSettings(retention_acked_ms=10))
        bare.core.configure_queue(bare.now_us, "c", QueueSettings(retention_acked_ms=10))
        bare.core.configure_queue(bare.now_us, "c", None)
    bare.core.check()
    gone_ms = {"a": 10_000, "b": 10, "c": 1_000} if of_queue else dict.fromkeys("abc", 1_000)
    ended_us = {name: bare.core.job(bare.now_us, ALL, job_id).ended_us for name, job_id in first.items()}
    for name in sorted(gone_ms, key=lambda name: ended_us[name] + gone_ms[name] * 1000):
        bare.now_us = ended_us[name] + gone_ms[name] * 1000
        assert not bare.core.tidy(bare.now_us) and bare.forget() == 0
        bare.now_us += 1
        assert bare.core.tidy(bare.now_us) and bare.forget() == 1
        assert bare.core.queue(bare.now_us, ALL, name).finished["ACKED"] == 0
        bare.core.check()


def test_queues_groups_and_names_give_their_memory_back() -> None:
    bare = Many()
    empty = bare.core.table_bytes
    jobs = [bare.submit(f"queue-{number}", f"group-{number}", f"owner-{number}") for number in range(MANY)]
    full = bare.core.table_bytes
    for first in range(0, MANY, 1000):
        bare.core.delete(bare.now_us, ALL, jobs[first : first + 1000])
        bare.settle()
    bare.core.check()
    assert bare.core.queues(ALL) == [] and bare.core.counts()["jobs"] == 0
    assert full - empty > 2 * SPARE_BYTES and bare.core.table_bytes - empty < SPARE_BYTES
    bare.submit("queue-1", "group-1", "owner-1")
    assert bare.core.queues(ALL) == ["queue-1"] and bare.core.queue_places < 2 * MANY
    bare.core.check()


def test_settings_alone_keep_a_queue_and_it_goes_with_them() -> None:
    bare = Many()
    for number in range(1000):
        bare.core.configure_queue(bare.now_us, f"q{number}", QueueSettings(paused=True))
    assert len(bare.core.queues(ALL)) == 1000
    for number in range(1000):
        bare.core.configure_queue(bare.now_us, f"q{number}", None)
    assert bare.core.queues(ALL) == []
    bare.core.check()


def test_empty_groups_go_though_no_other_job_is_removed() -> None:
    """Groups of a fair queue that were served stay until their turn is over, also if nothing follows."""
    bare = Many()
    bare.core.retain(0, 0, 10**9, 1 << 50)
    bare.core.configure_queue(bare.now_us, "fair", QueueSettings(fair=True))
    for number in range(1000):
        bare.submit("fair", f"g{number}")
    last = bare.submit("fair", "last")
    bare.now_us += 1
    for leased in bare.core.lease(bare.now_us, ["fair"], 1000, lease_ms=30_000, key_id="k"):
        bare.core.ack(bare.now_us, ALL, Ack(leased.job_id, leased.token), key_id="k")
    bare.settle()
    bare.now_us += 1
    bare.forget()
    bare.core.delete(bare.now_us, ALL, [last])
    for _ in range(100):
        bare.core.tidy(bare.now_us)
    bare.core.check()
    assert bare.core.queue(bare.now_us, ALL, "fair").groups == 0


def test_places_of_queues_list_each_queue_once_while_others_come_and_go() -> None:
    bare = Many()
    stay = {f"stay-{number}": bare.submit(f"stay-{number}") for number in range(500)}
    found: list[str] = []
    for first in range(0, 10_000, 50):
        found += bare.core.queues_in(ALL, first, first + 50, "stay-1")
        job_id = bare.submit(f"zz-{first}")
        bare.core.delete(bare.now_us, ALL, [job_id])
        bare.settle()
    assert sorted(name for name in found if name in stay) == sorted(name for name in stay if name > "stay-1")


def test_a_job_for_one_queue_too_many_is_refused_alone_in_a_batch_and_by_an_edit() -> None:
    bare = Many(queues_max=2)
    bare.submit("a")
    job_id = bare.submit("b")
    with pytest.raises(QueuesFull, match="at most 2 queues"):
        bare.submit("c")
    new = [NewJob(b"1", 3, queue=queue) for queue in ("a", "c", "b")]
    with pytest.raises(QueuesFull):
        bare.core.submit_many(bare.now_us, new, owner_id="ann", key_id="k")
    view = bare.core.job(bare.now_us, ALL, job_id)
    submit = bytes(bare.tail.cached(view.place) or b"")
    with pytest.raises(QueuesFull):
        bare.core.edit(bare.now_us, ALL, job_id, view.place, submit, key_id="k", queue="c")
    assert bare.core.queues(ALL) == ["a", "b"]
    bare.core.delete(bare.now_us, ALL, [job_id])
    bare.submit("c")
    bare.submit("a")
    bare.core.configure_queue(bare.now_us, "a", QueueSettings(max_depth=1))
    with pytest.raises(QueueFull):
        bare.submit("a")


def test_settings_of_a_queue_with_many_groups_put_the_same_groups_in_order() -> None:
    """Changes of order and of limits, each way, while some groups run and some are done: `check` knows the order."""
    bare, rng = Many(), random.Random(7)
    for n in range(3000):
        bare.submit("q", group=f"g{n % 1000}")
    for _ in range(24):
        limit = rng.choice([0, 1, 2])
        bare.core.configure_queue(bare.now_us, "q", QueueSettings(fair=rng.random() < 0.5, group_concurrency=limit))
        bare.core.check()
        bare.now_us += 1
        for leased in bare.core.lease(bare.now_us, ["q"], 100, lease_ms=30_000, key_id="k"):
            if rng.random() < 0.5:
                bare.core.ack(bare.now_us, ALL, Ack(leased.job_id, leased.token), key_id="k")
        bare.settle()
        bare.core.check()
