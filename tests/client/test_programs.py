"""Workers in processes of their own: signals, the end of the process, child processes, and what a worker says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastq import Client
from tests.client.programs import Program, until_gone
from tests.client.served import WAIT_S, Place
from tests.served import Served, free_port

pytestmark = pytest.mark.slow

Run = Callable[..., Program]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """On a port of its own, so that it can be started again."""
    directory = tmp_path_factory.mktemp("programs") / "data"
    with Served(directory, PORT=str(free_port()), BACKOFF_BASE="10ms", BACKOFF_CAP="10ms") as server:
        yield Place(server)


@pytest.fixture
def queue(queue: str) -> str:
    return queue[-40:]


@pytest.fixture
def run(place: Place, tmp_path: Path, queue: str) -> Iterator[Run]:
    """Runs a script, in which QUEUE is the queue of the test."""
    with ExitStack() as stack:

        def start(script: str, *app: str) -> Program:
            return stack.enter_context(Program(place, tmp_path, f"QUEUE = {queue!r}\n{script}", *app))

        yield start


# --- the end of the process -------------------------------------------------------------------------------------------

STUCK = {
    "thread": """
def stuck(job):
    print("stuck", flush=True)
    threading.Event().wait()
""",
    "executor": """
async def stuck(job):
    print("stuck", flush=True)
    await asyncio.to_thread(threading.Event().wait)
""",
    "deaf": """
async def stuck(job):
    print("stuck", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass
""",
    "blocking": """
async def stuck(job):
    print("stuck", flush=True)
    while True:
        pass
""",
    "process": """
def stuck(job):
    print("stuck", flush=True)
    while True:
        pass
""",
}
STUCK_RUN = """
worker = fastq.Worker(stop_s=0.3, lease_ms=2000)
worker.handles(QUEUE, in_process=IN_PROCESS)(stuck)
worker.run()
print("run has returned", flush=True)
"""


@pytest.mark.parametrize("how", [*STUCK])
def test_a_stuck_handler_keeps_neither_the_worker_nor_the_process(
    run: Run, client: Client, queue: str, how: str
) -> None:
    program = run(f"IN_PROCESS = {how == 'process'}\n{STUCK[how]}{STUCK_RUN}")
    job_id = client.submit("x", queue=queue).job_id
    program.until_said("stuck\n")
    assert program.ends(signal.SIGTERM) == 0
    assert program.said.count("run has returned") == 1
    job = client.get(job_id)
    assert (job.state, job.attempts, job.outcome) == ("READY", 0, "released")


def test_a_second_signal_interrupts_a_handler_that_blocks_the_event_loop(run: Run, client: Client, queue: str) -> None:
    program = run("IN_PROCESS = False" + STUCK["blocking"] + STUCK_RUN.replace("stop_s=0.3", "stop_s=60"))
    job_id = client.submit("x", queue=queue).job_id
    program.until_said("stuck\n")
    assert program.ends(signal.SIGINT, signal.SIGINT) == 0
    assert client.get(job_id).outcome == "released"


def test_a_third_signal_ends_the_process(run: Run, client: Client, queue: str) -> None:
    program = run(
        """
async def deaf(job):
    print("stuck", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
worker = fastq.Worker(stop_s=60)
worker.handles(QUEUE)(deaf)
worker.run()
"""
    )
    job_id = client.submit("x", queue=queue).job_id
    program.until_said("stuck\n")
    assert program.ends(signal.SIGINT, signal.SIGINT, signal.SIGINT) == 128 + signal.SIGINT
    client.cancel(job_id, force=True)


GOES_ON = """
async def harm(job):
    loop = asyncio.get_running_loop()
    if job.payload == "stop":
        loop.stop()
        await asyncio.sleep(0.1)
    elif job.payload == "exit":
        task = asyncio.create_task(leave())
        await asyncio.wait([task])
    elif job.payload == "close":
        try:
            loop.close()
        except RuntimeError as error:
            return str(error)
    elif job.payload == "callback":
        loop.call_soon(sys.exit, 3)
        await asyncio.sleep(0.1)
    elif job.payload == "set":
        asyncio.set_event_loop(None)
    elif job.payload == "signals":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    return job.payload

async def leave():
    sys.exit(3)

worker = fastq.Worker()
worker.handles(QUEUE)(harm)
worker.run()
"""


def test_a_worker_goes_on_when_a_handler_stops_its_event_loop(run: Run, client: Client, queue: str) -> None:
    program = run(GOES_ON)
    for harm in ("stop", "exit", "close", "callback", "set", "signals"):
        done = client.submit_and_wait(harm, queue=queue, timeout_s=WAIT_S)
        assert (done.state, done.attempts) == ("ACKED", 1), harm
    program.until_said("a handler took SIGTERM")
    assert program.ends(signal.SIGTERM) == 0


# --- child processes --------------------------------------------------------------------------------------------------

NO_GUARD = """
import dataclasses

print("script", flush=True)

@dataclasses.dataclass
class Pair:
    one: int
    two: int

worker = fastq.Worker(concurrency=2)

@worker.handles(QUEUE, in_process=True)
def add(job: fastq.Job[Pair]) -> Pair:
    job.log.info("adding in a process")
    return Pair(job.payload.one + job.payload.two, os.getpid())

worker.run()
print("run has returned", flush=True)
"""


def test_a_script_without_a_main_guard_runs_handlers_in_processes(run: Run, client: Client, queue: str) -> None:
    """The child runs the script up to `run`, and starts no second worker."""
    program = run(NO_GUARD)
    done = client.submit_and_wait({"one": 1, "two": 2}, queue=queue, timeout_s=WAIT_S)
    assert (done.result["one"], done.attempts) == (3, 1)
    assert program.ends(signal.SIGTERM) == 0
    assert (program.said.count("script\n"), program.said.count("run has returned\n")) == (2, 1)
    assert (program.said.count("slots"), program.said.count(f"job {done.job_id}: adding in a process")) == (1, 1)


def test_a_pool_of_a_script_without_a_main_guard_starts_no_second_worker(run: Run, client: Client, queue: str) -> None:
    program = run(
        """
import multiprocessing

def pool(job):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(abs, [-1, -2])

worker = fastq.Worker()
worker.handles(QUEUE)(pool)
worker.handles(QUEUE + ".p", in_process=True)(pool)
worker.run()
"""
    )
    for name in (queue, f"{queue}.p"):
        assert client.submit_and_wait("x", queue=name, timeout_s=WAIT_S).result == [1, 2]
    assert program.ends(signal.SIGTERM) == 0
    assert program.said.count("slots") == 1


LEFT = """
def parent(job):
    pid = subprocess.Popen(["sleep", "60"]).pid
    print("pids", os.getpid(), pid, "", flush=True)
    time.sleep(job.payload)
    return "done"

worker = fastq.Worker(lease_ms=1000)
worker.handles(QUEUE, in_process=True)(parent)
worker.run()
"""


def test_the_children_of_a_killed_worker_die_with_all_that_they_started(run: Run, client: Client, queue: str) -> None:
    program = run(LEFT)
    job_id = client.submit(60, queue=queue, max_retries=1).job_id
    pids = program.until_said("pids").split("pids ")[1].split()[:2]
    program.process.kill()
    for pid in pids:
        until_gone(int(pid))
    client.cancel(job_id, force=True)


def test_a_signal_to_the_process_group_lets_handlers_in_processes_finish(run: Run, client: Client, queue: str) -> None:
    """As of a service manager, which signals every process of the service."""
    program = run(LEFT)
    job_id = client.submit(1.0, queue=queue).job_id
    child, started = (int(pid) for pid in program.until_said("pids").split("pids ")[1].split()[:2])
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGINT)
    os.killpg(program.process.pid, signal.SIGTERM)
    assert program.process.wait(WAIT_S) == 0
    job = client.get(job_id)
    assert (job.state, job.result, job.attempts) == ("ACKED", "done", 1)
    until_gone(child)
    until_gone(started)


FORKS = """
def fork(job):
    if job.payload == "fork":
        import warnings
        warnings.simplefilter("ignore")
        pid = os.fork()
        if not pid:
            time.sleep(30)
            os._exit(0)
        print("forked", pid, "", flush=True)
    return "done"

worker = fastq.Worker(lease_ms=60_000)
worker.handles(QUEUE)(fork)
worker.run()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_a_handler_left_behind_keeps_no_connection(
    run: Run, client: Client, queue: str, end: signal.Signals
) -> None:
    """The worker ends while the server waits for a job for it. The next job does not go to that request."""
    program = run(FORKS)
    assert client.submit_and_wait("fork", queue=queue, timeout_s=WAIT_S).result == "done"
    left = int(program.until_said("forked").split("forked ")[1].split()[0])
    os.kill(left, 0)
    program.ends(end)
    os.kill(left, 0)
    job_id = client.submit("next", queue=queue).job_id
    again = run(FORKS)
    assert client.wait_for_completion(job_id, WAIT_S).result == "done"
    again.ends(signal.SIGTERM)
    os.kill(left, signal.SIGKILL)


# --- the event loop ---------------------------------------------------------------------------------------------------


def test_a_handler_that_blocks_the_event_loop_keeps_its_lease_and_is_named(
    run: Run, client: Client, queue: str
) -> None:
    program = run(
        """
async def slow(job):
    time.sleep(3)
    return "done"

worker = fastq.Worker(lease_ms=1000)
worker.handles(QUEUE)(slow)
worker.run()
"""
    )
    done = client.submit_and_wait("x", queue=queue, timeout_s=WAIT_S)
    assert (done.result, done.attempts) == ("done", 1)
    said = program.until_said("the event loop is free again")
    assert f"handler __main__.slow of job {done.job_id} has blocked the event loop for 1." in said
    assert "time.sleep(3)" in said
    assert program.ends(signal.SIGTERM) == 0


# --- what it says -----------------------------------------------------------------------------------------------------

TALKS = """
def talk(job):
    job.log.info("hello %s", job.payload)

worker = fastq.Worker(worker_id="talker", concurrency=3, lease_ms=1000)
worker.handles(QUEUE)(talk)
if __name__ == "__main__":
    worker.run()
"""


@pytest.mark.parametrize("app", [(), ("script:worker",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_worker_says_what_it_is_and_what_its_handlers_say(
    run: Run, place: Place, client: Client, queue: str, app: tuple[str, ...], number: signal.Signals
) -> None:
    """Also if the program has not configured logging. An idle worker ends at once."""
    program = run(TALKS, *app)
    said = program.until_said("worker talker: ")
    assert f"queues {queue}; 3 slots; 127.0.0.1:{place.server.port}" in said
    done = client.submit_and_wait("you", queue=queue, timeout_s=WAIT_S)
    program.until_said(f"job {done.job_id}: hello you\n")
    assert program.ends(number, within_s=5) == 0
    assert program.said.count("worker talker has stopped") == 1


def test_a_worker_ends_at_once_if_the_server_is_away_and_says_so_once(
    run: Run, place: Place, client: Client, queue: str
) -> None:
    program = run(TALKS)
    assert client.submit_and_wait("you", queue=queue, timeout_s=WAIT_S).is_successful
    place.server.kill()
    try:
        program.until_said(" is away")
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(4) == 0
    finally:
        place.server.start()
    said = program.said
    assert said.count(" is away") == 1
    assert "not extended" not in said and "not acknowledged" not in said


def test_a_worker_says_once_that_the_server_is_back(run: Run, place: Place, client: Client, queue: str) -> None:
    program = run(TALKS)
    assert client.submit_and_wait("you", queue=queue, timeout_s=WAIT_S).is_successful
    place.server.kill()
    try:
        program.until_said(" is away")
    finally:
        place.server.start()
    said = program.until_said(" is back after ")
    assert (said.count(" is away"), said.count(" is back after ")) == (1, 1)
    assert client.submit_and_wait("again", queue=queue, timeout_s=WAIT_S).is_successful
    assert program.ends(signal.SIGTERM) == 0
