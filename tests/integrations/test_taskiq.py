"""Tasks of taskiq on a real server, run by taskiq's own receiver."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Any

import pytest
from taskiq import AsyncTaskiqTask, Context, SimpleRetryMiddleware, TaskiqDepends
from taskiq.receiver import Receiver
from taskiq.serializers import PickleSerializer

from fastq import AsyncClient, Failure, NewJob, Snooze, Success, Unauthenticated
from fastq.integrations.taskiq import FastqBroker
from tests.client.served import WAIT_S, Place, outcome
from tests.integrations.brokers import Make, end_of, working


async def test_a_task_runs_and_its_result_comes_back(broker_of: Make) -> None:
    broker = broker_of()

    @broker.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with working(broker):
        result = await end_of(await add.kiq(20, b=22))
        assert (result.is_err, result.return_value) == (False, 42)


async def test_a_worker_holds_no_more_tasks_than_it_runs(broker_of: Make, place: Place, queue: str) -> None:
    """Beside the one that taskiq waits for. So two workers share the tasks."""
    ran: list[str] = []

    def broker(name: str) -> FastqBroker:
        one = broker_of()

        @one.task(task_name="slow")
        async def slow() -> None:
            ran.append(name)
            held = [job["worker_id"] for job in place.jobs(queue=queue, state="RUNNING")]
            assert max(held.count(worker) for worker in held) <= 3
            await asyncio.sleep(0.2)

        return one

    first, second = broker("first"), broker("second")
    async with working(first, slots=2), working(second, slots=2):
        task = first.find_task("slow")
        assert task is not None
        sent = [await task.kiq() for _ in range(24)]
        for one in sent:
            (await end_of(one)).raise_for_error()
    assert min(ran.count("first"), ran.count("second")) >= 6


async def test_labels_say_queue_priority_and_delay(broker_of: Make, aclient: AsyncClient, queue: str) -> None:
    broker = broker_of()

    @broker.task(priority=3)
    async def task() -> None:
        pass

    sent = await task.kicker().with_labels(delay="60", queue_name=f"{queue}.slow").kiq()
    job = await aclient.get(broker.job_id_of(sent.task_id), with_payload=True)
    assert (job.queue, job.priority, job.state) == (f"{queue}.slow", 3, "SCHEDULED")
    assert job.run_at is not None and 59 <= (job.run_at - job.created_at).total_seconds() <= 61
    assert job.payload["task_name"] == task.task_name  # people can read it


async def test_a_task_that_raises_is_a_dead_letter_with_its_error(broker_of: Make, aclient: AsyncClient) -> None:
    broker = broker_of()

    @broker.task
    def pay(cents: int) -> None:
        raise ValueError(f"no card for {cents}")

    async with working(broker):
        sent = await pay.kiq(5)
        with pytest.raises(ValueError, match="no card for 5"):
            (await end_of(sent)).raise_for_error()
        job = await aclient.get(broker.job_id_of(sent.task_id))
        assert (job.state, job.attempts, job.error) == ("DEAD", 1, "ValueError: no card for 5")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_task_that_raises_what_no_future_carries_has_failed(broker_of: Make, kind: str) -> None:
    broker = broker_of()
    raised = {
        one.__name__: one for one in (StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, KeyboardInterrupt)
    }

    @broker.task
    def leave(how: str) -> None:
        raise raised[how]

    @broker.task
    async def leave_async(how: str) -> None:
        raise raised[how]

    async with working(broker):
        for how in raised:
            result = await end_of(await (leave if kind == "sync" else leave_async).kiq(how))
            assert result.is_err and (how in str(result.error) or how == type(result.error).__name__)


async def test_a_fork_of_a_task_ends_with_it(broker_of: Make) -> None:
    broker = broker_of()

    @broker.task
    def fork() -> int:
        child = os.fork()
        if not child:
            sys.exit(3)
        return os.waitpid(child, 0)[1]

    async with working(broker):
        assert (await end_of(await fork.kiq())).return_value == 0


async def test_retry_failed_lets_the_server_try_again(broker_of: Make, aclient: AsyncClient) -> None:
    broker, runs = broker_of(retry_failed=True, max_retries=3), 0

    @broker.task
    async def third_time_lucky() -> int:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError("not yet")
        return runs

    async with working(broker):
        sent = await third_time_lucky.kiq()
        assert (await end_of(sent)).return_value == 3
        assert (await aclient.get(broker.job_id_of(sent.task_id))).attempts == 3


async def test_a_task_that_a_middleware_sends_again_has_the_last_result(broker_of: Make) -> None:
    broker, runs = broker_of().with_middlewares(SimpleRetryMiddleware(default_retry_count=5)), 0

    @broker.task(retry_on_error=True)
    async def third_time_lucky() -> int:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError("not yet")
        return runs

    async with working(broker):
        assert (await end_of(await third_time_lucky.kiq())).return_value == 3


async def test_a_sender_follows_what_the_worker_sent_again(broker_of: Make) -> None:
    """Sender and worker are separate brokers, as in two processes. The sender knows only the first job."""
    sender, worker = broker_of(), broker_of().with_middlewares(SimpleRetryMiddleware())
    runs = 0

    @worker.task(task_name="again", retry_on_error=True)
    async def work() -> int:
        nonlocal runs
        runs += 1
        if runs < 2:
            raise ValueError("not yet")
        return runs

    again = sender.register_task(lambda: None, task_name="again", retry_on_error=True)
    async with working(worker):
        sent: AsyncTaskiqTask[Any] = await again.kiq()
        assert (await end_of(sent)).return_value == 2
        assert await worker.result_backend.is_result_ready(sender.job_id_of(sent.task_id))


async def test_an_unknown_task_is_a_dead_letter(broker_of: Make, aclient: AsyncClient) -> None:
    sender, worker = broker_of(), broker_of()
    stranger = sender.register_task(lambda: None, task_name="stranger")
    async with working(worker):
        sent: AsyncTaskiqTask[Any] = await stranger.kiq()
        job = await aclient.wait_for_completion(sender.job_id_of(sent.task_id), WAIT_S)
        assert (job.state, job.error) == ("DEAD", "unknown task 'stranger'")
        error = (await end_of(sent)).error
        assert isinstance(error, RuntimeError) and "is DEAD: unknown task 'stranger'" in str(error)


async def test_a_payload_that_is_no_message_is_a_dead_letter(broker_of: Make, aclient: AsyncClient, queue: str) -> None:
    async with working(broker_of()):
        assert (await outcome(aclient, queue, {"not": "a task"})).state == "DEAD"
        job = await outcome(aclient, queue, 7)
        assert job.state == "DEAD" and "not a taskiq message" in job.error


async def test_other_serializers(broker_of: Make) -> None:
    broker = broker_of().with_serializer(PickleSerializer())

    @broker.task
    async def double(numbers: list[int]) -> list[int]:
        return [2 * n for n in numbers]

    async with working(broker):
        assert (await end_of(await double.kiq([1, 2]))).return_value == [2, 4]


async def test_a_long_task_keeps_its_lease(broker_of: Make, aclient: AsyncClient) -> None:
    broker, runs = broker_of(), 0

    @broker.task
    async def long(context: Annotated[Context, TaskiqDepends()]) -> str:
        nonlocal runs
        runs += 1
        job_id = broker.job_id_of(context.message.task_id)
        first = (await aclient.get(job_id)).lease_until
        async with asyncio.timeout(WAIT_S):
            while (await aclient.get(job_id)).lease_until == first:  # noqa: ASYNC110 -- no event for it
                await asyncio.sleep(0.05)
        return "extended"

    async with working(broker):
        assert (await end_of(await long.kiq())).return_value == "extended"
    assert runs == 1


async def until(aclient: AsyncClient, job_id: str, state: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await aclient.get(job_id)).state != state:  # noqa: ASYNC110 -- no event for it
            await asyncio.sleep(0.01)


async def test_a_stop_finishes_running_tasks_and_releases_the_others(broker_of: Make, aclient: AsyncClient) -> None:
    broker, started, go_on = broker_of(prefetch=4), asyncio.Event(), asyncio.Event()

    @broker.task
    async def slow() -> str:
        started.set()
        await go_on.wait()
        return "done"

    sent = [await slow.kiq() for _ in range(5)]
    jobs = [broker.job_id_of(task.task_id) for task in sent]
    async with working(broker, slots=1) as stop:
        await asyncio.wait_for(started.wait(), WAIT_S)
        for job_id in jobs:
            await until(aclient, job_id, "RUNNING")
        stop.set()
        for job_id in jobs[2:]:
            await until(aclient, job_id, "READY")
        go_on.set()
    states = [await aclient.get(job_id) for job_id in jobs]
    assert (states[0].state, states[0].result["return_value"]) == ("ACKED", "done")
    assert {(job.state, job.attempts) for job in states[2:]} == {("READY", 0)}
    assert states[1].state in ("ACKED", "READY")  # taskiq may have taken it already


async def test_the_result_of_a_cancelled_job_names_its_state(broker_of: Make, aclient: AsyncClient) -> None:
    broker = broker_of()

    @broker.task
    async def never() -> None:
        pass

    sent = await never.kiq()
    await aclient.cancel(broker.job_id_of(sent.task_id))
    result = await end_of(sent)
    assert result.is_err and "is CANCELLED" in str(result.error)


async def test_a_rejected_key_stops_the_worker(place: Place, queue: str) -> None:
    broker = FastqBroker(place.url, "worker_" + "x" * 32, queue=queue)
    broker.is_worker_process = True
    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.wait_for(Receiver(broker, max_async_tasks=1).listen(asyncio.Event()), WAIT_S)
    assert caught.group_contains(Unauthenticated)


async def test_a_task_raises_an_outcome(broker_of: Make, aclient: AsyncClient, queue: str) -> None:
    broker = broker_of(retry_failed=True, max_retries=3)
    runs: list[str] = []

    @broker.task
    def decide(how: str) -> str:
        runs.append(how)
        if runs.count(how) == 2:
            return "second"
        raise {
            "snooze": Snooze(1),
            "retry": Failure("later", retry_after_ms=1),
            "discard": Failure("no card", code="declined", discard=True),
            "success": Success("early", [NewJob(payload="next", queue=f"{queue}.next")]),
        }[how]

    async with working(broker):
        sent = {how: await decide.kiq(how) for how in ("snooze", "retry", "discard", "success")}
        results = {how: await end_of(one) for how, one in sent.items()}
        jobs = {how: await aclient.get(broker.job_id_of(one.task_id)) for how, one in sent.items()}
        (attempt,) = await aclient.attempts(jobs["discard"].job_id)
    assert {how: job.attempts for how, job in jobs.items()} == {"snooze": 1, "retry": 2, "discard": 1, "success": 1}
    assert [results[how].return_value for how in ("snooze", "retry", "success")] == ["second", "second", "early"]
    assert (jobs["discard"].state, jobs["discard"].error, attempt.error_code) == ("DEAD", "no card", "declined")
    assert results["discard"].error == Failure("no card")
    assert [job.queue async for job in aclient.jobs(queue=f"{queue}.next")] == [f"{queue}.next"]
