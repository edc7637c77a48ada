"""Durable submits a second over HTTP, by number of connections: `python -m bench.http_submit` (needs wrk).

For each step it starts a server in a temporary directory, loads it with wrk (-t1, keep-alive, payload of 100 bytes),
and prints answers a second, latency, CPU seconds of the server per 10,000, and the average number of submits in a
frame. It measures the latency of fdatasync on the same disk first: the figures depend on it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from pathlib import Path

import click

from bench.compare.machine import sync_us
from bench.load import Server, pinned
from fastq._core import Core, CoreSettings, Tail
from fastq.log.files.log import LocalLog

LUA = """
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{{"payload":"{payload}"}}'
function done(summary, latency, requests)
  io.write(string.format("FIGURES %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


def batch_size(directory: Path) -> float:
    """The average number of records in a frame of a stopped server's log."""
    log = LocalLog(directory)
    opened = log.open(Core(Tail(512, 0, 4096), CoreSettings()))
    asyncio.run(log.close())
    return opened.records / opened.frames


def load(url: str, script: Path, connections: int, seconds: int, core: str) -> list[int]:
    """wrk's figures: answers, microseconds, errors, and latency p50, p99 and maximum in microseconds."""
    out = subprocess.run(
        [*pinned(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, f"{url}/jobs"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"FIGURES (.*)", out)
    assert found is not None, out
    return [int(figure) for figure in found[1].split()]


@click.command()
@click.option("--seconds", default=5, help="of load at each step")
@click.option("--connections", default="1,16,64,256", help="steps")
@click.option("--pin/--no-pin", default=True, help="server and wrk to a core each")
def main(seconds: int, connections: str, pin: bool) -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as scratch:
        print(f"write and fdatasync of 4 KiB on this disk: {sync_us(Path(scratch), 4096):.0f} µs (median)")
        print("| connections | submits/s | p50 ms | p99 ms | max ms | errors | CPU s per 10,000 | per batch | RSS MB |")
        print("|---|---|---|---|---|---|---|---|---|")
        for step in connections.split(","):
            directory = Path(scratch, step)
            with Server(directory, core="0" if pin else "") as server:
                url, script = f"http://127.0.0.1:{server.port}", Path(scratch, "submit.lua")
                script.write_text(LUA.format(key=server.keys["client"], payload="x" * 100))
                cpu = server.cpu_s()
                figures = load(url, script, int(step), seconds, "1" if pin else "")
                answers, duration_us, errors, p50, p99, slowest = figures
                used_s, rss = (server.cpu_s() - cpu) / answers * 10_000, server.rss_bytes() / 1e6
            print(
                f"| {step} | {answers / duration_us * 1e6:,.0f} | {p50 / 1000:.2f} | {p99 / 1000:.2f} "
                f"| {slowest / 1000:.1f} | {errors} | {used_s:.2f} | {batch_size(directory):.1f} | {rss:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
