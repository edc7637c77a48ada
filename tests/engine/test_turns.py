"""Long work in slices: one slice of all in each turn of the loop, and the askers take turns."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fastq.engine.turns import AT_WORK_MAX, Turns


async def work(turns: Turns, name: int, slices: int, seen: list[int], asker: str = "a") -> None:
    async with turns.of(asker) as turn:
        for _ in range(slices):
            seen.append(name)
            await turn.pause()


async def by_turn_of_the_loop(tasks: list[asyncio.Task[None]], seen: list[int]) -> list[int]:
    """How many slices each turn of the loop had."""
    counts = []
    while not all(task.done() for task in tasks):
        before = len(seen)
        await asyncio.sleep(0)
        counts.append(len(seen) - before)
    return counts


async def test_one_slice_in_a_turn_of_the_loop_and_the_work_of_one_asker_in_order() -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]
    tasks = [asyncio.create_task(work(turns, name, 5, seen)) for name in range(10)]
    assert max(await by_turn_of_the_loop(tasks, seen)) == 1
    assert seen == [name for name in range(10) for _ in range(5)]
    assert turns.waiting == 0


async def test_askers_take_turns_slice_by_slice() -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]
    tasks = [asyncio.create_task(work(turns, 1, 50, seen, "many")) for _ in range(100)]
    while len(seen) < 30:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    other = asyncio.create_task(work(turns, 2, 5, seen, "other"))
    third = asyncio.create_task(work(turns, 3, 5, seen, "third"))
    assert max(await by_turn_of_the_loop([*tasks, other, third], seen)) == 1
    assert [name for name in seen[30:50] if name != 1] == [2, 3] * 5
    assert seen.count(1) == 5000 and turns.waiting == 0


async def test_what_is_half_made_is_bounded_and_new_askers_wait_for_an_end_only() -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]
    askers = 3 * AT_WORK_MAX
    tasks = [asyncio.create_task(work(turns, n % askers, 4, seen, f"{n % askers}")) for n in range(4 * askers)]
    await by_turn_of_the_loop(tasks, seen)
    counts: Counter[int] = Counter()
    for name in seen:
        counts[name] += 1
        assert sum(count % 4 != 0 for count in counts.values()) <= AT_WORK_MAX
    assert [seen.count(name) for name in range(askers)] == [16] * askers
    assert {seen.index(name) // (4 * AT_WORK_MAX) for name in range(askers)} == {0, 1, 2}  # all before a second piece
    assert turns.waiting == 0 and not turns._begun and not turns._line


async def test_who_comes_at_an_end_begins_in_a_later_turn_of_the_loop() -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]

    async def short(name: int) -> None:
        async with turns.of("a"):
            seen.append(name)
        async with turns.of("a"):
            seen.append(-name)

    tasks = [asyncio.create_task(short(name)) for name in range(1, 5)]
    assert max(await by_turn_of_the_loop(tasks, seen)) == 1
    assert sorted(seen) == [-4, -3, -2, -1, 1, 2, 3, 4]


@pytest.mark.parametrize("askers", ["aaa", "abc", "aab", "aba"])
@pytest.mark.parametrize("at", range(12))
async def test_a_cancelled_one_passes_its_turn_on(at: int, askers: str) -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]
    tasks = [asyncio.create_task(work(turns, name, 3, seen, asker)) for name, asker in enumerate(askers)]
    for _ in range(at):
        await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert seen.count(2) == 3 and turns.waiting == 0
    async with asyncio.timeout(10):
        for asker in "abc":
            await work(turns, 9, 1, seen, asker)
    assert seen[-3:] == [9, 9, 9]
    await asyncio.sleep(0)
    assert not turns._has_slice and not turns._begun and not turns._ring and not turns._line


async def test_an_error_passes_the_turn_on() -> None:
    turns = Turns()
    for _ in range(3):
        with pytest.raises(ValueError, match="it"):
            async with turns.of("a"):
                raise ValueError("it")
