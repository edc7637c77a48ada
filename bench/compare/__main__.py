"""`./dev bench`: measure, write the figures as JSON, make a table and a chart."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from bench.compare import generator, machine, measure, report
from bench.compare.install import installed
from bench.compare.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
NAMES = [system.name for system in SYSTEMS]


def say(line: str) -> None:
    click.echo(line, err=True)


def chosen(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    names = value.split(",")
    for name in names:
        if name not in NAMES:
            raise click.BadParameter(f"{name}: allowed are {', '.join(NAMES)}")
    return names


def cores(pinned: bool) -> tuple[str, str]:
    """The server's core and the generator's, by number; empty: any."""
    usable = sorted(os.sched_getaffinity(0))
    if not pinned:
        return "", ""
    if len(usable) < 2 or shutil.which("taskset") is None:
        say("not pinned to cores: pinning needs two cores and taskset")
        return "", ""
    return str(usable[0]), str(usable[1])


@click.command()
@click.option("--systems", default=",".join(NAMES), callback=chosen, help="systems to compare, in this order")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="of load for each figure")
@click.option("--pin/--no-pin", default=True, show_default=True, help="server and generator to a core each")
@click.option("--waiting", default=1_000_000, show_default=True, help="jobs, for memory and disk; 0: none")
@click.option("--quick", is_flag=True, help="one round, 1 s each, 100,000 waiting jobs; written to build/bench")
@click.option("--directory", default=Path("/var/tmp"), type=click.Path(path_type=Path, exists=True, file_okay=False),
              show_default=True, help="where the systems have their data: the disk that is measured")  # fmt: skip
@click.option("--out", default=None, type=click.Path(path_type=Path, file_okay=False), help="of table and chart")
@click.option("--from", "source", default=None, type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="make table and chart of this JSON; measure nothing")  # fmt: skip
def main(
    systems: list[str], rounds: int, seconds: float, pin: bool, waiting: int, quick: bool, directory: Path,
    out: Path | None, source: Path | None,
) -> None:  # fmt: skip
    """Compare fastq with other durable queues on this machine: docs/benchmarks/comparison.md, .svg and .json."""
    if quick:
        rounds, seconds, waiting = 1, 1.0, min(waiting, 100_000)
    out = out or ROOT / ("build/bench" if quick else "docs/benchmarks")
    if source is not None:
        click.echo(report.write(json.loads(source.read_text()), out))
        return
    here = installed([system for system in SYSTEMS if system.name in systems], say)
    here.sort(key=lambda system: systems.index(system.name))
    begun_s = time.monotonic()
    with measure.scratch(directory) as scratch:
        place = measure.Place(scratch, generator.build(scratch), *cores(pin))
        data: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": " ".join(["./dev", "bench", *sys.argv[1:]]),
            "machine": machine.described(scratch),
            "versions": {system.name: system.version() for system in here},
            "options": {"rounds": rounds, "seconds": seconds, "pinned": bool(place.server_core)},
            "rounds": [],
            "waiting": [],
        }
        for life in measure.rounds(place, here, rounds, seconds, say):
            data["rounds"].append(life)
            write_down(data, out)
        for system in here if waiting else []:
            say(f"[{time.monotonic() - begun_s:4.0f} s] {waiting:,} waiting jobs: {system.name}")
            data["waiting"].append(measure.waiting_or_why(place, system, waiting))
            write_down(data, out)
        data["took_s"] = round(time.monotonic() - begun_s)
        write_down(data, out)
    click.echo(report.write(data, out))


def write_down(data: dict[str, Any], out: Path) -> None:
    """Write table and chart. Called after every part, so that a later failure loses no figures."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main(prog_name="./dev bench")
