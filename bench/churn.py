"""Submit, lease and ack millions of jobs: do disk, memory and the latency of single submits stay bounded?

    python -m bench.churn --jobs 500000 [--out docs/benchmarks]

It starts a server with a retention of seconds. Batches of jobs are submitted, leased and acked, while another process
submits single jobs and times them. Writes churn.svg and churn.md into the directory.
"""

from __future__ import annotations

import asyncio
import datetime
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import click
import msgspec
from matplotlib.figure import Figure

from bench.load import Client, Server

QUEUES = ["churn", "single"]
LEASED_AT_ONCE = 1000
SAMPLE_S = 0.5
SINGLE_EVERY_S = 0.01
MB = 1e6


class Leased(msgspec.Struct):
    job_id: str
    lease_token: str


class LeaseAnswer(msgspec.Struct):
    jobs: list[Leased]


@dataclass
class Sample:
    """The server's state at one time."""

    at_s: float
    done: int  # jobs acked so far
    disk_bytes: int
    rss_bytes: int
    oldest_segment: int


@dataclass
class Churn:
    """One run. Counts are of jobs."""

    server: Server
    jobs: int
    batch: int
    submitted: int = 0
    done: int = 0
    refused: int = 0  # requests answered 429 or 503, and repeated
    samples: list[Sample] = field(default_factory=list)

    async def work(self) -> None:
        """Submit a batch and work as many jobs, again and again."""
        payload = "x" * 100
        body = msgspec.json.encode({"jobs": [{"payload": payload, "queue": QUEUES[0]}] * self.batch})
        asks = msgspec.json.encode({"queues": QUEUES, "max": LEASED_AT_ONCE})
        decoder = msgspec.json.Decoder(LeaseAnswer)
        async with Client(self.server.port, self.server.keys["admin"]) as client:
            while self.submitted < self.jobs:
                self.submitted += self.batch
                await self._until_taken(client, "/jobs/batch", body)
                left = self.batch
                while left > 0:
                    leased = decoder.decode(await self._until_taken(client, "/jobs/lease", asks)).jobs
                    if not leased:
                        break
                    acks = [{"job_id": job.job_id, "lease_token": job.lease_token} for job in leased]
                    await self._until_taken(client, "/jobs/ack", msgspec.json.encode({"acks": acks}))
                    left -= len(leased)
                    self.done += len(leased)

    async def _until_taken(self, client: Client, path: str, body: bytes) -> bytes:
        while True:
            status, content = await client.post(path, body)
            if status < 300:
                return content
            if status not in (429, 503):
                raise SystemExit(f"{path}: {status} {content[:300]!r}")
            self.refused += 1
            await asyncio.sleep(0.05)

    async def sample(self, began_s: float) -> None:
        while True:
            segments = [int(path.name[8:]) for path in self.server.directory.glob("segment-*")]
            seen = self.server.disk_bytes(), self.server.rss_bytes(), min(segments)
            self.samples.append(Sample(time.monotonic() - began_s, self.done, *seen))
            await asyncio.sleep(SAMPLE_S)


def submit_singles(port: int, key: str, began_s: float, results: Connection) -> None:
    """Runs in a process of its own until told to end: submits single jobs, then sends (at_s, wait_s) of each."""

    async def run() -> list[tuple[float, float]]:
        times = []
        async with Client(port, key) as client:
            while not results.poll(SINGLE_EVERY_S):
                sent_s = time.monotonic()
                status, _ = await client.call("/jobs", {"payload": "one", "queue": QUEUES[1]})
                if status == 201:
                    times.append((sent_s - began_s, time.monotonic() - sent_s))
        return times

    results.send(asyncio.run(run()))


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def run(server: Server, jobs: int, batch: int, clients: int) -> tuple[Churn, list[tuple[float, float]]]:
    churn = Churn(server, jobs, batch)
    began_s = time.monotonic()
    ours, theirs = multiprocessing.Pipe()
    singles = multiprocessing.Process(target=submit_singles, args=(server.port, server.keys["client"], began_s, theirs))
    singles.start()
    sampling = asyncio.create_task(churn.sample(began_s))
    await asyncio.gather(*(churn.work() for _ in range(clients)))
    sampling.cancel()
    ours.send("enough")
    times: list[tuple[float, float]] = await asyncio.to_thread(ours.recv)
    singles.join()
    return churn, times


def table(churn: Churn, times: list[tuple[float, float]], settings: dict[str, str], load_before: float) -> str:
    """The figures as Markdown."""
    samples, total_s = churn.samples, churn.samples[-1].at_s
    first = samples[0].oldest_segment
    cleaning_s = next((sample.at_s for sample in samples if sample.oldest_segment > first), total_s)
    before = [wait * 1e3 for at, wait in times if 1 < at < cleaning_s]
    after = [wait * 1e3 for at, wait in times if at >= cleaning_s]
    disk = [sample.disk_bytes / MB for sample in samples]
    rss = [sample.rss_bytes / MB for sample in samples]
    middle = len(samples) // 2
    rows = [
        ("jobs submitted, leased and acked", f"{churn.done:,} in {total_s:.0f} s: {churn.done / total_s:,.0f}/s"),
        ("segments given back", f"{samples[-1].oldest_segment - first}"),
        ("disk, MB: largest · at half time · at the end", f"{max(disk):.0f} · {disk[middle]:.0f} · {disk[-1]:.0f}"),
        ("memory (RSS), MB: the same", f"{max(rss):.0f} · {rss[middle]:.0f} · {rss[-1]:.0f}"),
        ("single submits before the first segment went: n, p50, p99, max", _waits(before)),
        ("single submits while segments go: n, p50, p99, max", _waits(after)),
        ("requests refused with 429 or 503, and repeated", f"{churn.refused:,}"),
    ]
    lines = [f"| {what} | {value} |" for what, value in rows]
    set_to = " ".join(f"{name}={value}" for name, value in settings.items())
    today = datetime.datetime.now(datetime.UTC).date()
    about = (
        f"{today}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load average before: {load_before:.1f}. "
        f"Server, load and the single submits share the cores. {set_to}"
    )
    return "\n".join(["# Churn", "", about, "", "| | |", "|---|---|", *lines, "", "![over time](churn.svg)", ""])


def _waits(ms: list[float]) -> str:
    return f"{len(ms):,}, {quantile(ms, 0.5):.1f} ms, {quantile(ms, 0.99):.1f} ms, {max(ms, default=0):.0f} ms"


def draw(churn: Churn, times: list[tuple[float, float]], path: Path) -> None:
    """Disk, memory and the waits of single submits over time."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    disk, memory, waits = figure.subplots(3, 1, sharex=True)
    at_s = [sample.at_s for sample in churn.samples]
    disk.plot(at_s, [sample.disk_bytes / MB for sample in churn.samples])
    disk.set_ylabel("disk, MB")
    disk.set_ylim(bottom=0)
    memory.plot(at_s, [sample.rss_bytes / MB for sample in churn.samples])
    memory.set_ylabel("memory (RSS), MB")
    memory.set_ylim(bottom=0)
    step_s = max(1.0, at_s[-1] / 200)
    slots: dict[int, list[float]] = {}
    for sent_s, wait_s in times:
        slots.setdefault(int(sent_s / step_s), []).append(wait_s * 1e3)
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        waits.plot([slot * step_s for slot in slots], [quantile(ms, share) for ms in slots.values()], label=label)
    waits.set_ylabel("single submit, ms")
    waits.set_yscale("log")
    waits.set_xlabel(f"seconds; {churn.done:,} jobs in all")
    waits.legend()
    figure.savefig(path, metadata={"Date": None})


@click.command()
@click.option("--jobs", default=500_000)
@click.option("--batch", default=1000, help="jobs of one submit")
@click.option("--clients", default=4, help="connections that submit, lease and ack batches")
@click.option("--retention", default="2s", help="RETENTION_ACKED")
@click.option("--segment", default="16MiB", help="WAL_SEGMENT_BYTES")
@click.option("--slack", default="64MiB", help="WAL_SLACK_BYTES")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="where churn.svg and churn.md go")
def main(jobs: int, batch: int, clients: int, retention: str, segment: str, slack: str, out: Path | None) -> None:
    """Run, print the table, and write both files if --out says where."""
    load_before = os.getloadavg()[0]
    settings = {"RETENTION_ACKED": retention, "WAL_SEGMENT_BYTES": segment, "WAL_SLACK_BYTES": slack}
    with tempfile.TemporaryDirectory() as scratch, Server(Path(scratch, "data"), **settings) as server:
        churn, times = asyncio.run(run(server, jobs, batch, clients))
    text = table(churn, times, settings, load_before)
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        Path(out, "churn.md").write_text(text)
        draw(churn, times, Path(out, "churn.svg"))


if __name__ == "__main__":
    main()
