"""Runs of the harness, small enough for tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fastq.chaos.plan import Plan
from fastq.chaos.run import run
from fastq.chaos.target import OwnServer
from fastq.chaos.verdict import Outcome


async def ran(directory: Path, server: str = "fastq", **changes: Any) -> Outcome:
    """Do a short run. `server`: the module to run as a server."""
    plan = Plan(**{"jobs": 600, "workers": 8, "kills": 3, "serve": (sys.executable, "-m", server, "serve")} | changes)
    return await run(plan, OwnServer(plan, directory))
