"""A handler raises an outcome from any depth. It means the same as if the handler had returned it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import pickle
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fastq
from fastq import AsyncClient, Failure, Job, NewJob, Outcome, Snooze, Success, Worker
from tests.client.served import WAIT_S, Place, Starts, outcome


class Declined(Failure):
    """A program's own outcome, with arguments of its own."""

    def __init__(self, cents: int) -> None:
        super().__init__(f"{cents} cents were declined", code="declined", discard=True, result={"cents": cents})


class Unlike(Failure):
    """It does not call the constructor of its base class."""

    def __init__(self) -> None:
        pass


DECLINED = Failure("always the same object", discard=True)


def _deep(raised: Callable[[], BaseException], depth: int = 50) -> None:
    if depth:
        try:
            _deep(raised, depth - 1)
        finally:
            depth -= 1  # a frame on the way
    else:
        try:
            raise KeyError("why")
        except KeyError as error:
            raise raised() from error


def _in_a_generator(raised: Callable[[], BaseException]) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise raised()

    list(numbers())


def _in_a_context(raised: Callable[[], BaseException]) -> None:
    @contextlib.contextmanager
    def context() -> Iterator[None]:
        yield
        raise raised()

    with contextlib.ExitStack() as stack:
        stack.enter_context(context())


def _in_a_thread(raised: Callable[[], BaseException]) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(_deep, raised).result()


def _in_a_loop(raised: Callable[[], BaseException]) -> None:
    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(_deep, raised))

    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, together()).result()


ENDS: dict[str, tuple[Callable[[], BaseException], str, Any, str, str]] = {
    # what is raised: state, result, error, code
    "text": (lambda: Failure("no"), "DEAD", None, "no", ""),
    "failure": (lambda: Failure(error="no", code="c", result=[1]), "DEAD", [1], "no", "c"),
    "discard": (lambda: Failure("never", discard=True), "DEAD", None, "never", ""),
    "subclass": (lambda: Declined(5), "DEAD", {"cents": 5}, "5 cents were declined", "declined"),
    "constant": (lambda: DECLINED, "DEAD", None, "always the same object", ""),
    "unlike": (Unlike, "DEAD", None, "AttributeError: 'Unlike' object has no attribute 'error'", "AttributeError"),
    "any result": (lambda: Failure("no", discard=True, result=object()), "DEAD", None, "no", ""),
    "success": (lambda: Success({"n": 1}), "ACKED", {"n": 1}, "", ""),
    "nothing": (Success, "ACKED", None, "", ""),
}
WAYS = {"deep": _deep, "generator": _in_a_generator, "context": _in_a_context, "thread": _in_a_thread,
        "loop": _in_a_loop}  # fmt: skip


def thread(job: Job[list[str]]) -> Any:
    way, end = job.payload
    if end == "snooze":
        return WAYS[way](lambda: Snooze(1)) if _is_first(job.job_id) else "awake"
    if end == "retry":
        return WAYS[way](lambda: Failure("later", retry_after_ms=1)) if job.attempt == 1 else job.attempt
    if end == "then":
        return WAYS[way](lambda: Success("split", then=[NewJob(payload=[way, "nothing"], queue=job.queue)]))
    return WAYS[way](ENDS[end][0])


def _is_first(job_id: str) -> bool:
    with contextlib.suppress(FileExistsError), (Path(os.environ["FASTQ_SNOOZED"]) / job_id).open("x"):
        return True
    return False


async def loop(job: Job[list[str]]) -> Any:
    await asyncio.sleep(0)
    return thread(job)


def awaitable(job: Job[list[str]]) -> Any:
    return loop(job)


def process(job: Job[list[str]]) -> Any:
    return thread(job)


@pytest.fixture(params=["async", "thread", "awaitable", "process"])
def worker(
    place: Place, queue: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Worker:
    monkeypatch.setenv("FASTQ_SNOOZED", str(tmp_path))
    worker = Worker(url=place.url, key=place.keys["worker"], concurrency=4, lease_ms=2000)
    handler: Any = {"async": loop, "thread": thread, "awaitable": awaitable, "process": process}[request.param]
    worker.handles(queue, in_process=request.param == "process")(handler)
    return worker


async def test_a_raised_outcome_is_the_outcome(
    place: Place, aclient: AsyncClient, queue: str, worker: Worker, at_work_with: Starts
) -> None:
    pairs = [(way, end) for way in WAYS for end in ENDS]
    async with at_work_with(worker):
        ended = await asyncio.gather(*(outcome(aclient, queue, pair, max_retries=1) for pair in pairs))
    wrong = {}
    for (way, end), job in zip(pairs, ended, strict=True):
        (attempt,) = place.attempts(job.job_id)
        told = (job.state, job.result, job.error, attempt.get("error_code", ""))
        if told != ENDS[end][1:]:
            wrong[way, end] = told
    assert wrong == {}


async def test_a_raised_outcome_can_be_a_retry_a_snooze_and_follow_up_jobs(
    place: Place, aclient: AsyncClient, queue: str, worker: Worker, at_work_with: Starts
) -> None:
    async with at_work_with(worker):
        for way in WAYS:
            snoozed = await outcome(aclient, queue, (way, "snooze"), max_retries=1)
            assert (snoozed.result, snoozed.attempts) == ("awake", 1)
            retried = await outcome(aclient, queue, (way, "retry"), max_retries=2)
            assert (retried.result, retried.attempts) == (2, 2)
            before = len(place.jobs(queue=queue))
            assert (await outcome(aclient, queue, (way, "then"))).result == "split"
            assert len(place.jobs(queue=queue)) == before + 2


async def test_middleware_sees_a_raised_outcome_as_if_it_were_returned_and_may_raise_one(
    aclient: AsyncClient, queue: str, worker: Worker, at_work_with: Starts
) -> None:
    seen: list[Any] = []

    async def see(job: Job[Any], rest: Callable[[], Awaitable[Any]]) -> Any:
        seen.append(await rest())
        if seen[-1] == Success({"n": 1}):
            raise Failure("the middleware declines", code="m", discard=True)
        return seen[-1]

    worker.middleware.append(see)
    async with at_work_with(worker):
        assert (await outcome(aclient, queue, ("deep", "failure"), max_retries=1)).error == "no"
        assert (await outcome(aclient, queue, ("deep", "success"))).error == "the middleware declines"
    assert seen == [Failure("no", code="c", result=[1]), Success({"n": 1})]


async def test_a_group_of_outcomes_has_failed(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    """No one can tell which of them counts."""

    async def two(_: Job[Any]) -> Any:
        raise ExceptionGroup("two", [Success(1), Snooze(1)])

    async with at_work(two):
        assert (await outcome(aclient, queue, max_retries=1)).error == "ExceptionGroup: two (2 sub-exceptions)"


def test_outcomes_are_values() -> None:
    """They are equal by their fields, can be copied and pickled with them, and show them."""
    outcomes: list[Outcome] = [Success(1, [NewJob(payload=2)]), Failure("f", code="c", result=[1]), Snooze(3),
                               Declined(5)]  # fmt: skip
    for one in outcomes:
        assert one == copy.copy(one) == pickle.loads(pickle.dumps(one)) != Snooze(4)
        assert hash(one) == hash(copy.copy(one))
        assert type(one).__name__ in repr(one)
    assert [str(one) for one in outcomes[1:]] == ["f", "3", "5 cents were declined"]
    assert fastq.Success[int](5).result == 5
    with pytest.raises(Outcome):
        raise outcomes[0]


async def test_a_broad_except_lets_outcomes_pass_by_name(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    def broad(_: Job[Any]) -> Any:
        try:
            raise Failure("passed", discard=True)
        except fastq.Outcome:
            raise
        except Exception:  # noqa: BLE001 -- what the docs say of it
            return "swallowed"

    async with at_work(broad):
        assert (await aclient.submit_and_wait("x", queue=queue, timeout_s=WAIT_S)).error == "passed"
