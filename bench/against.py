"""Compare the instructions of an operation here and at a git revision: `./dev bench --against REV`.

Times are noisy, instruction counts hardly. A server of each tree runs under valgrind's callgrind and gets the same
requests; the counters are reset before and read after each load. The load uses HTTP only, so any two revisions can be
compared. The revision is built in a worktree of its own; this checkout is measured as it is.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from bench.compare.install import apt_install
from bench.load import Client, Server

ROOT = Path(__file__).resolve().parents[1]
PREPARED_S = 2.0  # while a segment is prepared, the disk that the server takes grows in less time
CONNECTIONS = 16
BATCH = 100
JOB = b'{"payload":"%s"}' % (b"x" * 100)
JOBS = b'{"jobs":[' + b",".join([JOB] * BATCH) + b"]}"


@dataclass(frozen=True)
class Scenario:
    """`run(clients, n)` does about n operations and returns their exact number."""

    name: str
    run: Callable[[list[Client], int], Awaitable[int]]
    connections: int = 1


async def posted(client: Client, path: str, body: bytes, count: int) -> None:
    for _ in range(count):
        status, content = await client.post(path, body)
        if status >= 400:
            raise click.ClickException(f"POST {path}: {status} {content[:200]!r}")


async def submit_alone(clients: list[Client], n: int) -> int:
    await posted(clients[0], "/jobs", JOB, n)
    return n


async def submit_together(clients: list[Client], n: int) -> int:
    each = max(1, n // len(clients))
    await asyncio.gather(*[posted(client, "/jobs", JOB, each) for client in clients])
    return each * len(clients)


async def submit_batches(clients: list[Client], n: int) -> int:
    batches = max(1, n // BATCH * 5)  # a job in a batch is cheap: more of them
    await posted(clients[0], "/jobs/batch", JOBS, batches)
    return batches * BATCH


async def lease_and_ack(clients: list[Client], n: int) -> int:
    for _ in range(n):
        status, leased = await clients[0].call("/jobs/lease", {"worker_id": "bench"})
        if status != 200:
            raise click.ClickException(f"POST /jobs/lease: {status} {leased}")
        ack = {"lease_token": leased["lease_token"]}
        status, answer = await clients[0].call(f"/jobs/{leased['job_id']}/ack", ack)
        if status != 200:
            raise click.ClickException(f"POST /jobs/{{id}}/ack: {status} {answer}")
    return n


async def submit_with_keys(clients: list[Client], n: int) -> int:
    for number in range(n):
        body = b'{"payload":"%s","idempotency_key":"key-%d","tags":["bench"],"group":"g%d"}' % (
            b"x" * 100,
            number,
            number % 8,
        )
        await posted(clients[0], "/jobs", body, 1)
    return n


async def extend(clients: list[Client], n: int) -> int:
    status, leased = await clients[0].call("/jobs/lease", {"worker_id": "bench"})
    if status != 200:
        raise click.ClickException(f"POST /jobs/lease: {status} {leased}")
    leases = [{"job_id": leased["job_id"], "lease_token": leased["lease_token"]}]
    for _ in range(n):
        status, answer = await clients[0].call("/workers/heartbeat", {"worker_id": "bench", "leases": leases})
        if status != 200:
            raise click.ClickException(f"POST /workers/heartbeat: {status} {answer}")
    return n


SCENARIOS = (
    Scenario("submit, one connection", submit_alone),
    Scenario(f"submit, {CONNECTIONS} connections", submit_together, CONNECTIONS),
    Scenario(f"submit in batches of {BATCH}, a job", submit_batches),
    Scenario("lease and ack, one connection", lease_and_ack),
    Scenario("submit with key, group and tag, one connection", submit_with_keys),
    Scenario("heartbeat of one lease, one connection", extend),
)


class Counted:
    """A server under callgrind."""

    def __init__(self, server: Server, counts: Path) -> None:
        self.server = server
        self._counts = counts
        self._dumps = 0

    def control(self, option: str) -> None:
        done = subprocess.run(
            ["callgrind_control", option, str(self.server.pid)], capture_output=True, text=True, check=False
        )
        if "OK." not in done.stdout:
            raise click.ClickException(f"callgrind_control {option}: {done.stdout}{done.stderr}")

    def zero(self) -> None:
        self.control("--zero")

    def instructions(self) -> int:
        """Instructions since the last `zero`, of all threads."""
        self.control("--dump")
        self._dumps += 1
        return counted_in(Path(f"{self._counts}.{self._dumps}").read_text())


def counted_in(dump: str) -> int:
    """The instructions in a callgrind file."""
    found = re.findall(r"^(?:summary|totals): (\d+)", dump, re.MULTILINE)
    if not found:
        raise click.ClickException("callgrind wrote no counts")
    return max(map(int, found))


async def prepared(server: Server) -> None:
    """Return when the server prepares no segments: the counts of its first loads would include that thread's."""
    before = -1
    while (now := server.disk_bytes()) != before:
        before = now
        await asyncio.sleep(PREPARED_S)


async def operations(server: Server, scenario: Scenario, n: int, before: Callable[[], None]) -> int:
    """Run a scenario on new connections: under valgrind an idle one times out. Returns the number of operations."""
    async with AsyncExitStack() as stack:
        each = [Client(server.port, server.keys["admin"]) for _ in range(scenario.connections)]
        clients = [await stack.enter_async_context(client) for client in each]
        await scenario.run(clients, max(n // 4, scenario.connections))  # fill caches and free lists
        before()
        return await scenario.run(clients, n)


async def measured(counted: Counted, n: int, repeats: int) -> list[list[float]]:
    """Instructions an operation: for each scenario, of each repeat."""
    figures = []
    for scenario in SCENARIOS:
        repeated = []
        for _ in range(repeats):
            done = await operations(counted.server, scenario, n, counted.zero)
            repeated.append(counted.instructions() / done)
        figures.append(repeated)
    return figures


def instructions(tree: Path, n: int, repeats: int) -> list[list[float]]:
    """Measure a tree whose extensions are built: see `measured`."""
    with tempfile.TemporaryDirectory(prefix="fastq-against-", dir="/var/tmp") as scratch:
        counts = Path(scratch, "counts")
        valgrind = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={counts}"]
        settings = {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"}
        with Server(Path(scratch, "data"), before=valgrind, **settings) as server:
            asyncio.run(prepared(server))
            return asyncio.run(measured(Counted(server, counts), n, repeats))


@contextmanager
def built(revision: str) -> Iterator[Path]:
    """A worktree of the revision, with its extensions."""
    with tempfile.TemporaryDirectory(prefix="fastq-against-") as scratch:
        tree = Path(scratch, "tree")
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, revision], cwd=ROOT, check=True)
        try:
            build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
            environ = os.environ | {"PYTHONPATH": str(tree)}
            done = subprocess.run(build, cwd=tree, env=environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise click.ClickException(f"{revision} does not build:\n{done.stderr[-4000:]}")
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def compared(revision: str, here: list[list[float]], there: list[list[float]]) -> Iterator[str]:
    """A Markdown table. The least of the repeats counts: disturbances only add."""
    yield f"| instructions an operation | {revision} | here | change | spread of the repeats |"
    yield "|---|---|---|---|---|"
    for scenario, new, old in zip(SCENARIOS, here, there, strict=True):
        spread = max((max(each) - min(each)) / min(each) for each in (new, old))
        change = (min(new) - min(old)) / min(old)
        yield f"| {scenario.name} | {min(old):,.0f} | {min(new):,.0f} | {change:+.1%} | {spread:.1%} |"


@click.command()
@click.option("--against", "revision", required=True, help="a git revision")
@click.option("--operations", default=400, show_default=True, help="of each kind, in each repeat")
@click.option("--repeats", default=3, show_default=True)
def main(revision: str, operations: int, repeats: int) -> None:
    """Compare this checkout with a git revision by the instructions that an operation takes."""
    if shutil.which("valgrind") is None:
        apt_install(["valgrind"], lambda line: click.echo(line, err=True))
    if shutil.which("valgrind") is None:
        raise click.ClickException("valgrind is not installed (as root: apt-get install valgrind)")
    click.echo(f"building {revision}", err=True)
    with built(revision) as tree:
        click.echo(f"counting at {revision}", err=True)
        there = instructions(tree, operations, repeats)
    click.echo("counting here", err=True)
    here = instructions(ROOT, operations, repeats)
    for line in compared(revision, here, there):
        click.echo(line)


if __name__ == "__main__":
    main(prog_name="./dev bench")
