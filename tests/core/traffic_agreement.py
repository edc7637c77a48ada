"""The invariant of core and model on what happened: counts, rates, durations, and the ages of ready jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fastq import _core
from fastq._core import ALL
from tests.core.model_traffic import CHANGES_KEPT, Told, Traffic
from tests.core.world import World

AGE_OFF_US, AGE_SHARE = 100_000, 0.03  # how far from the truth the age of the oldest ready job may be


def agree_on_traffic(world: World) -> None:
    traffic = world.model.traffic
    agree_on_counts(world, None, 0)
    agree_on_changes(world)
    agree_on_failures(world)
    names = world.core.queues(ALL)
    for name in names:
        agree_on_age(world, name)
        emptied = traffic.emptied.get(name, [0])
        if world.model.order.last_turn.get(name):  # when its turns are over it ends and begins anew, unseen
            shown = fields(world.core.traffic(name), traffic)
            begins = [0, *emptied]
            assert shown in [traffic.counts(name, since) for since in begins]
        else:
            agree_on_counts(world, name, emptied[-1])
            agree_on_rates(world, name, emptied[-1])
    agree_on_the_worst(world, names)
    active = [name for names in iter(lambda: world.core.active_queues(2), []) for name in names]
    assert len(set(active)) == len(active) and set(active) <= set(names)
    told = {one.queue: at for at, one in enumerate(traffic.told) if at >= traffic.looked_at}
    since = {name: traffic.emptied.get(name, [0])[-1] for name in names}
    assert {name for name in names if told.get(name, -1) >= since[name]} <= set(active) <= set(told)
    traffic.looked_at = len(traffic.told)


def fields(shown: _core.Traffic, traffic: Traffic) -> dict[str, int]:
    return {name: getattr(shown, name) for name in traffic.counts(None, 0)}


def agree_on_counts(world: World, queue: str | None, since: int) -> None:
    traffic = world.model.traffic
    assert fields(world.core.traffic(queue), traffic) == traffic.counts(queue, since)
    latencies = world.core.latencies(queue)
    if latencies is not None:
        assert (latencies.wait, latencies.wait_sum_us) == traffic.durations(queue, "leased", since)
        assert (latencies.run, latencies.run_sum_us) == traffic.durations(queue, "acked", since)
    else:
        assert traffic.counts(queue, since)["leased"] == traffic.counts(queue, since)["acked"] == 0


def agree_on_rates(world: World, queue: str, since: int) -> None:
    view = world.core.queue(world.now_us, ALL, queue)
    for name, rate in world.model.traffic.rates(world.now_us, queue, since).items():
        assert getattr(view, name) == pytest.approx(rate), name


def agree_on_age(world: World, queue: str) -> None:
    ready = [job.run_at_us for job in world.model.jobs.values() if job.due and job.queue == queue]
    shown_us = world.core.queue(world.now_us, ALL, queue).oldest_ready_us
    assert bool(ready) == bool(shown_us)
    if ready:
        off_us = max(AGE_OFF_US, (world.now_us - min(ready)) * AGE_SHARE)
        assert abs(shown_us - min(ready)) <= off_us, "the age of the oldest ready job is wrong"


def agree_on_the_worst(world: World, names: list[str]) -> None:
    oldest = {name: world.core.queue(world.now_us, ALL, name).oldest_ready_us for name in names}
    worst = world.core.worst_queues(ALL, 0, world.core.queue_places, 100)
    assert set(worst) == {name for name in names if oldest[name]}
    assert [oldest[name] for name in worst] == sorted(oldest[name] for name in worst)
    assert [oldest[name] for name in world.core.worst_queues(ALL, 0, 1 << 20, 2)] == [
        oldest[name] for name in worst[:2]
    ]
    bound = world.core.worst_queues(_core.Access(queues=frozenset(["mail"])), 0, 1 << 20, 9)
    assert bound == [name for name in worst if name == "mail"]
    for owner_id in ("o1", "o2", "nobody"):
        ready = {name: world.core.queue(world.now_us, _core.Access(owner_id), name).ready for name in names}
        worst = world.core.worst_queues(_core.Access(owner_id), 0, world.core.queue_places, 100)
        assert set(worst) == {name for name in names if ready[name]}
        assert [ready[name] for name in worst] == sorted((ready[name] for name in worst), reverse=True)


CHANGE = ("at_us", "what", "job_id", "state", "queue", "group", "owner_id", "attempt")


def agree_on_changes(world: World) -> None:
    """The feed has the newest changes, and shows none that is not durable when it is asked not to."""
    kept, left_out = world.model.traffic.kept()
    changes, core_left_out, first = world.core.changes(0, 1 << 62, CHANGES_KEPT)
    assert shown(changes) == shown(kept[-CHANGES_KEPT:]) and core_left_out == left_out
    numbers = [change.seq for change in changes]
    assert numbers == list(range(first, first + len(changes))) and world.core.last_change == first + len(changes) - 1
    durable, _, _ = world.core.changes(0, world.tail.durable_seq, CHANGES_KEPT)
    durable_kept, _ = world.durable_model.traffic.kept()
    modelled = world.durable_model_seq == world.tail.durable_seq  # not between two frames of one step
    if modelled and len(kept) <= CHANGES_KEPT and durable_kept == kept[: len(durable_kept)]:
        assert shown(durable) == shown(durable_kept)
    after, read = 0, []
    while page := world.core.changes(after, world.tail.durable_seq, 7)[0]:
        after, read = page[-1].seq, read + page
    assert shown(read) == shown(durable) == shown(changes[: len(durable)])
    assert all(change.frame <= world.tail.durable_seq for change in durable)
    assert all(change.frame > world.tail.durable_seq for change in changes[len(durable) :])


def shown(changes: Sequence[_core.JobChange | Told]) -> list[list[object]]:
    return [[getattr(change, name) for name in CHANGE] for change in changes]


def agree_on_failures(world: World) -> None:
    expected = world.model.traffic.failures()
    names = ("queue", "owner_id", "error_code", "error", "count", "first_us", "last_us", "job_id")

    def found(*asked: Any) -> list[dict[str, object]]:
        return [{name: getattr(group, name) for name in names} for group in world.core.failures(*asked)]

    assert found(ALL, None, 0, 10_000) == expected
    assert found(ALL, "mail", 0, 1) == [group for group in expected if group["queue"] == "mail"][:1]
    owned = [group for group in expected if group["owner_id"] == "o1"]
    assert found(_core.Access("o1"), None, 0, 10_000) == owned
    mail = _core.Access("o1", frozenset(["mail"]))
    assert found(mail, None, 0, 10_000) == [group for group in owned if group["queue"] == "mail"]
    assert found(ALL, None, world.now_us, 10_000) == [group for group in expected if group["last_us"] == world.now_us]
