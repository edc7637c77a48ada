"""`./dev kills --kills 3000`: kill -9 under mixed operations, with other settings at each start; check every answer."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.kills.run import Plan, Run


def show(run: Run) -> None:
    kills, answered = run.counts["kills"] + run.counts["stops"], run.line.counts["answered"]
    print(f"\r{kills:,} kills, {answered:,} answers, {run.seconds:,.0f} s ", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--actors", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="fastq-kills-"))
    run = asyncio.run(Run(Plan(asked.kills, asked.actors, asked.seed), directory, show).whole())
    print(f"\r{run.text()}")
    if run.faults.counts:
        print(f"the server's directory: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
