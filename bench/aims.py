"""Measure fastq's aims beyond rates: `./dev bench aims` writes docs/benchmarks/aims.md.

`--only half-load,backlog` measures some of them, `--quick` all on a small scale (into build/bench). The server runs on
one core, the load on another. Two run only when named, since each takes some minutes: `large`, ten million waiting jobs
of 1 KiB (13 GB of disk), and `acked`, ten million cycles. With `--only` the table also goes to build/bench, unless
`--out` names a directory.
"""

from __future__ import annotations

import asyncio
import datetime
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click
import msgspec

from bench import idle
from bench.compare import generator, machine
from bench.compare.__main__ import ROOT, cores
from bench.compare.generator import Figures, Plan
from bench.compare.measure import FAULTS, reason, scratch
from bench.compare.systems import Fastq
from bench.load import Client, Server, pinned

PIPELINED = 32
FILL_BATCH = 100
KEYED_BATCH = 10_000
FILL_S = 900.0  # at most
AROUND_S = 2.0  # single submits are timed for this long after the jobs' scheduled time


@dataclass(frozen=True)
class Scale:
    seconds: float  # of a load
    jobs: int  # waiting jobs
    backlogs: tuple[int, ...]  # larger than a thousand
    repeats: int
    lead_s: float  # enough time to schedule `jobs`


FULL = Scale(seconds=6.0, jobs=1_000_000, backlogs=(100_000, 1_000_000, 10_000_000), repeats=3, lead_s=30.0)
QUICK = Scale(seconds=1.0, jobs=50_000, backlogs=(10_000, 100_000), repeats=2, lead_s=6.0)


@dataclass(frozen=True)
class Row:
    what: str
    aim: str
    measured: str


@dataclass(frozen=True)
class Bench:
    """Directory, cores and scale of the measurements."""

    directory: Path
    program: Path
    server_core: str
    generator_core: str
    scale: Scale

    def server(self, name: str) -> Fastq:
        return Fastq(self.directory / name, self.server_core)

    def load(
        self, server: Fastq, plan: Plan, producers: int, consumers: int = 0, *,
        seconds: float = 0, rate: float = 0, limit: int = 0,
    ) -> Figures:  # fmt: skip
        figures = generator.load(
            self.program, plan, server.port, producers=producers, consumers=consumers, rate=rate, limit=limit,
            seconds=seconds or self.scale.seconds, command=pinned(self.generator_core), server_cpu_s=server.cpu_s,
        )  # fmt: skip
        if figures.errors:
            raise RuntimeError(f"{figures.errors:,} requests were refused")
        return figures

    def fill(self, server: Fastq, jobs: int, payload: bytes = b"x" * 100) -> None:
        """Add `jobs` waiting jobs, and those in flight when the last one is answered."""
        job = b'{"payload":"%s"}' % payload
        body = b'{"jobs":[' + b",".join([job] * FILL_BATCH) + b"]}"
        plan = replace(server.plan(), submit=server.request("/jobs/batch", body), submit_jobs=FILL_BATCH)
        done = self.load(server, plan, producers=4, seconds=FILL_S, limit=jobs)
        if done.submitted < jobs:
            raise RuntimeError(f"only {done.submitted:,} jobs were taken in {done.seconds:.0f} s")


def in_ms(us: float) -> str:
    return f"{us / 1000:.2f}"


def half_load(bench: Bench) -> Iterator[Row]:
    """Latency of single submits at half the server's full rate."""
    with bench.server("half") as server:
        most = bench.load(server, server.plan(), 64)
        rate = most.submitted / most.seconds / 2
        half = bench.load(server, server.plan(), 64, rate=rate, seconds=bench.scale.seconds * 2)
    yield Row(
        f"submit, 64 connections, half load ({half.submitted / half.seconds:,.0f}/s): p99", "below 2 ms",
        f"{in_ms(half.p99_us)} ms (p50 {in_ms(half.p50_us)}, p99.9 {in_ms(half.p999_us)}, generator at "
        f"{half.generator_share:.0%} of its core)",
    )  # fmt: skip
    yield Row("the longest that one of these submits took", "20 ms", f"{in_ms(half.max_us)} ms")


def worked(bench: Bench, server: Fastq) -> float:
    """Leases and acks a second by 16 connections. One more connection refills the backlog in batches."""
    batches = server.plan(FILL_BATCH)
    figures = bench.load(server, batches, 1, 16, seconds=bench.scale.seconds / 2)
    return figures.acked / figures.seconds


def backlog(bench: Bench) -> Iterator[Row]:
    """Lease and ack, and single submits, with growing backlogs, beside a server with a thousand waiting jobs."""
    with ExitStack() as both:
        few = both.enter_context(bench.server("few"))
        many = both.enter_context(bench.server("many"))
        waiting = 0
        for level in bench.scale.backlogs:
            bench.fill(many, level - waiting)
            waiting = level
            pairs = [(worked(bench, many), worked(bench, few)) for _ in range(bench.scale.repeats)]
            ratio = statistics.median(with_many / with_few for with_many, with_few in pairs)
            rates = [statistics.median(each) for each in zip(*pairs, strict=True)]
            yield Row(
                f"lease and ack, 16 connections, {level:,} jobs wait, of the rate with 1,000", "85% and more",
                f"{ratio:.0%} ({rates[0]:,.0f}/s, {rates[1]:,.0f}/s)",
            )  # fmt: skip
        half = [bench.load(server, server.plan(), 64, rate=5_000) for server in (many, few)]
        memory = many.memory_bytes()
    yield Row(
        f"p99 of submits, 5,000/s by 64 connections, {waiting:,} jobs wait; with 1,000", "the same",
        f"{in_ms(half[0].p99_us)} ms; {in_ms(half[1].p99_us)} ms",
    )  # fmt: skip
    yield Row(f"memory of that server with {waiting:,} jobs", "", f"{memory / 1e6:,.0f} MB")


def empty_leases(bench: Bench) -> Iterator[Row]:
    with bench.server("empty") as server:
        plan = replace(server.plan(), lease=server.request("/jobs/lease", b'{"wait_ms":0}'))
        figures = bench.load(server, plan, 0, 64)
    yield Row(
        "empty leases a second, 64 connections", "60,000",
        f"{figures.empty / figures.seconds:,.0f} (generator at {figures.generator_share:.0%} of its core)",
    )  # fmt: skip


def pipelining(bench: Bench) -> Iterator[Row]:
    with bench.server("pipelining") as server:
        one = server.plan()
        plan = replace(one, submit=one.submit * PIPELINED, submit_replies=PIPELINED, submit_jobs=PIPELINED)
        for connections in (1, 16, 64):
            figures = bench.load(server, plan, connections, seconds=bench.scale.seconds / 2)
            yield Row(
                f"submits a second, {PIPELINED} pipelined, connections: {connections}", "150,000",
                f"{figures.submitted / figures.seconds:,.0f} (generator at {figures.generator_share:.0%} of its core)",
            )  # fmt: skip


async def submit_keyed(server: Fastq, jobs: int) -> None:
    """Submit jobs with a unique key each, in a thousand groups."""
    async with Client(server.port, server.key) as client:
        for start in range(0, jobs, KEYED_BATCH):
            numbers = range(start, min(start + KEYED_BATCH, jobs))
            many = [{"payload": "x" * 100, "unique_key": f"order-{n:08}", "group": f"g{n % 1000}"} for n in numbers]
            await submitted(client, msgspec.json.encode({"jobs": many}))


async def submitted(client: Client, body: bytes) -> None:
    """Submit a batch, and repeat it while the server refuses it as busy."""
    while (status := (await client.post("/jobs/batch", body))[0]) != 201:
        if status not in (429, 503):
            raise RuntimeError(f"a batch was answered {status}")
        await asyncio.sleep(0.05)


def memory(bench: Bench) -> Iterator[Row]:
    jobs = bench.scale.jobs
    fills: list[tuple[str, str, Callable[[Fastq], None]]] = [
        ("plain", "at most 120", lambda server: bench.fill(server, jobs)),
        ("with unique key and group", "at most 200", lambda server: asyncio.run(submit_keyed(server, jobs))),
    ]
    for kind, aim, fill in fills:
        with bench.server(kind.split()[0]) as server:
            before = server.memory_bytes()
            fill(server)
            each = (server.memory_bytes() - before) / jobs
        yield Row(f"bytes of memory a waiting job, {jobs:,} {kind}", aim, f"{each:.0f}")


def large(bench: Bench) -> Iterator[Row]:
    jobs = bench.scale.backlogs[-1]
    with bench.server("large") as server:
        bench.fill(server, jobs, b"x" * 1024)
        yield Row(
            f"memory of {jobs:,} waiting jobs of 1 KiB", "at most 2,000 MB", f"{server.memory_bytes() / 1e6:,.0f} MB"
        )


def acked(bench: Bench) -> Iterator[Row]:
    """Cycles by 64 producers and 64 consumers until that many jobs are acked: the last rate against the first."""
    jobs, done = bench.scale.backlogs[-1], 0
    rates: list[float] = []
    with bench.server("acked") as server:
        while done < jobs or len(rates) < 2:
            figures = bench.load(server, server.plan(), 64, 64)
            rates.append(figures.acked / figures.seconds)
            done += figures.acked
    yield Row(
        f"cycles a second, 64 + 64 connections, after {done:,} acked jobs, of the rate at first", "the same",
        f"{rates[-1] / rates[0]:.0%} ({rates[-1]:,.0f}, {rates[0]:,.0f}; lowest between {min(rates):,.0f})",
    )  # fmt: skip


async def watch(server: Fastq, begun: asyncio.Event, until_s: float) -> list[float]:
    """Submit single jobs until a time of the wall clock. Returns the seconds that each took."""
    took_s = []
    async with Client(server.port, server.key) as client:
        while time.time() < until_s:
            sent_s = time.monotonic()
            status, content = await client.post("/jobs", b'{"queue":"watched","payload":"x"}')
            if status != 201:
                raise RuntimeError(f"a submit was answered {status}: {content!r}")
            took_s.append(time.monotonic() - sent_s)
            begun.set()
    return took_s


async def burst_of(server: Fastq, jobs: int, lead_s: float) -> tuple[float, list[float]]:
    """Schedule jobs for one time. Returns the seconds until the last is leasable, and those of submits meanwhile."""
    at_s = float(int(time.time() + lead_s))
    run_at = datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat().replace("+00:00", "Z")
    job = {"payload": "x" * 100, "run_at": run_at}
    async with Client(server.port, server.key) as client:
        for start in range(0, jobs, KEYED_BATCH):
            many = [job] * min(KEYED_BATCH, jobs - start)
            await submitted(client, msgspec.json.encode({"jobs": many}))
        # The job that becomes due last is the first in order: once it is leased, all others are leasable.
        status, last = await client.call("/jobs", job | {"priority": 1})
        if status != 201:
            raise RuntimeError(f"a submit was answered {status}: {last}")
        if time.time() > at_s - 1:
            raise RuntimeError(f"{jobs:,} jobs could not be scheduled in {lead_s:.0f} s")
        await asyncio.sleep(at_s - time.time() - 0.5)
        begun = asyncio.Event()
        watching = asyncio.create_task(watch(server, begun, at_s + AROUND_S))
        await begun.wait()
        await asyncio.sleep(max(0.0, at_s - time.time()))
        leased: dict[str, object] = {}
        while leased.get("job_id") != last["job_id"] and time.time() < at_s + 30:
            _, leased = await client.call("/jobs/lease", {"queues": ["default"], "wait_ms": 100})
        return time.time() - at_s, await watching


def burst(bench: Bench) -> Iterator[Row]:
    jobs = bench.scale.jobs
    with bench.server("burst") as server:
        leasable_s, took_s = asyncio.run(burst_of(server, jobs, bench.scale.lead_s))
    yield Row(f"{jobs:,} jobs scheduled for one instant: all leasable after", "1 s", f"{leasable_s:.2f} s")
    yield Row(
        "the longest that a submit took meanwhile", "20 ms",
        f"{max(took_s) * 1000:.1f} ms (median {statistics.median(took_s) * 1000:.2f}, {len(took_s):,} submits)",
    )  # fmt: skip


def idling(bench: Bench) -> Iterator[Row]:
    jobs, seconds = max(bench.scale.jobs, idle.BATCH), bench.scale.seconds * 2
    with Server(bench.directory / "idle", bench.server_core) as server:
        share = asyncio.run(idle.measure(server, jobs, 100, seconds))
    yield Row(f"idle, {jobs:,} jobs and 100 workers wait: of a core", "below 0.5%", f"{share:.2%}")


AIMS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "half-load": half_load, "backlog": backlog, "empty-leases": empty_leases, "pipelining": pipelining,
    "memory": memory, "burst": burst, "idle": idling, "large": large, "acked": acked,
}  # fmt: skip
LONG = ("large", "acked")
WHOLE = [name for name in AIMS if name not in LONG]


def markdown(rows: list[tuple[str, Row]], head: list[str]) -> str:
    lines = [f"| {row.what} | {row.aim} | {row.measured} | `{name}` |" for name, row in rows]
    return "\n".join(
        [
            "# Aims", "",
            "Rates beside other systems are in [comparison.md](comparison.md). Here is what else fastq aims at, with",
            "what was measured. The last column names the part of `bench/aims.py`: `./dev bench aims --only NAME`.", "",
            *head, "",
            "| | aim | measured | |", "|---|---:|---:|---|", *lines, "",
        ]
    )  # fmt: skip


def conditions(directory: Path, began_s: float) -> list[str]:
    found = machine.described(directory)
    syncs = ", ".join(
        f"{size // 1024} KiB {machine.sync_us(directory, size):.0f} µs" for size in machine.SYNC_SIZES_BYTES
    )
    today, minutes = datetime.datetime.now(datetime.UTC).date(), (time.monotonic() - began_s) / 60
    return [
        f"- {today}, `{' '.join(['./dev', 'bench', 'aims', *sys.argv[1:]])}`, {minutes:.1f} minutes",
        f"- fastq {Fastq.version()}",
        *[f"- {name}: {value}" for name, value in found.items()],
        f"- write and fdatasync at the end, median: {syncs}",
    ]


def chosen(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    names = value.split(",")
    for name in names:
        if name not in AIMS:
            raise click.BadParameter(f"{name}: allowed are {', '.join(AIMS)}")
    return names


@click.command()
@click.option("--only", default=",".join(WHOLE), callback=chosen, help="some of them: " + ", ".join(AIMS))
@click.option("--quick", is_flag=True, help="on a small scale; written to build/bench")
@click.option("--directory", default=Path("/var/tmp"), type=click.Path(path_type=Path, exists=True, file_okay=False),
              show_default=True, help="where the servers have their data: the disk that is measured")  # fmt: skip
@click.option("--out", default=None, type=click.Path(path_type=Path, file_okay=False), help="of the table")
def main(only: list[str], quick: bool, directory: Path, out: Path | None) -> None:
    """Measure and write docs/benchmarks/aims.md."""
    began_s = time.monotonic()
    whole = out or (ROOT / "docs/benchmarks" if only == WHOLE and not quick else ROOT / "build/bench")
    path = whole / "aims.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, Row]] = []
    for name in only:
        with scratch(directory) as place:
            bench = Bench(place, generator.build(place), *cores(pinned=True), scale=QUICK if quick else FULL)
            try:
                for row in AIMS[name](bench):
                    rows.append((name, row))
                    click.echo(f"[{time.monotonic() - began_s:4.0f} s] {row.what}: {row.measured}", err=True)
            except FAULTS as error:
                rows.append((name, Row(name, "", f"failed: {reason(error)}")))
                click.echo(f"{name} failed: {reason(error)}", err=True)
    with scratch(directory) as place:
        path.write_text(markdown(rows, conditions(place, began_s)))
    click.echo(path)


if __name__ == "__main__":
    main(prog_name="./dev bench aims")
