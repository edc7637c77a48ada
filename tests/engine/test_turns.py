"""Long work in slices: one slice of all in each turn of the loop, one piece of work at a time."""

from __future__ import annotations

import asyncio

import pytest

from fastq.engine.turns import Turns


async def work(turns: Turns, name: int, slices: int, seen: list[int]) -> None:
    async with turns:
        for _ in range(slices):
            seen.append(name)
            await turns.pause()


async def by_turn_of_the_loop(tasks: list[asyncio.Task[None]], seen: list[int]) -> list[int]:
    """How many slices each turn of the loop had."""
    counts = []
    while not all(task.done() for task in tasks):
        before = len(seen)
        await asyncio.sleep(0)
        counts.append(len(seen) - before)
    return counts


async def test_one_slice_in_a_turn_of_the_loop_and_one_at_work_in_order() -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]
    tasks = [asyncio.create_task(work(turns, name, 5, seen)) for name in range(10)]
    assert max(await by_turn_of_the_loop(tasks, seen)) == 1
    assert seen == [name for name in range(10) for _ in range(5)]
    assert turns.waiting == 0


async def test_who_comes_at_an_end_begins_in_a_later_turn_of_the_loop() -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]

    async def short(name: int) -> None:
        async with turns:
            seen.append(name)
        async with turns:
            seen.append(-name)

    tasks = [asyncio.create_task(short(name)) for name in range(1, 5)]
    assert max(await by_turn_of_the_loop(tasks, seen)) == 1
    assert sorted(seen) == [-4, -3, -2, -1, 1, 2, 3, 4]


@pytest.mark.parametrize("at", range(6))
async def test_a_cancelled_one_passes_its_turn_on(at: int) -> None:
    turns, seen = Turns(), []  # type: tuple[Turns, list[int]]
    tasks = [asyncio.create_task(work(turns, name, 2, seen)) for name in range(3)]
    for _ in range(at):
        await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert seen.count(2) == 2 and turns.waiting == 0
    await work(turns, 9, 1, seen)
    assert seen[-1] == 9


async def test_an_error_passes_the_turn_on() -> None:
    turns = Turns()
    for _ in range(3):
        with pytest.raises(ValueError, match="it"):
            async with turns:
                raise ValueError("it")
