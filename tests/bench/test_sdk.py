"""The throughput benchmark of the SDK: fastq's side against a real server, and what is made of the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.sdk import report
from bench.sdk.cases import CASES
from tests.served import ROOT, Served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Served(tmp_path_factory.mktemp("bench") / "data") as server:
        yield server


def side(server: Served, what: str, jobs: int, slots: int) -> dict[str, float]:
    environ = os.environ | {"FASTQ_KEY": server.keys["admin"]}
    url = f"http://127.0.0.1:{server.port}"
    argv = [sys.executable, "-m", "bench.sdk.fastq_side", what, url, str(jobs), str(slots)]
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("case", [case for case in CASES if case.side == "fastq"], ids=lambda case: case.name)
def test_fastqs_side_submits_and_works_on_all(server: Served, case: Any) -> None:
    assert side(server, case.submit, 50, case.at_a_time)["jobs"] == 50
    figures = side(server, case.work, 50, case.slots)
    assert figures["seconds"] > 0 and figures["cpu_s"] > 0
    _, ready = server.call(server.keys["admin"], "GET", "/jobs?state=READY")
    assert ready["jobs"] == []


def figures(jobs: int, seconds: float) -> dict[str, float]:
    return {"jobs": jobs, "seconds": seconds, "cpu_s": 0.5, "server_cpu_s": 0.25, "others_share": 0.2}


def test_the_report_has_medians_and_says_how_quiet_it_was(tmp_path: Path) -> None:
    lives = [
        {"round": number, "side": case.side, "case": case.name, "sync": sync, "load": 1.0,
         "submit": figures(1000, number), "work": figures(1000, 2 * number if case.side == "fastq" else 10 * number)}
        for number in (1, 2, 4) for case in CASES
        for sync in (["fastq"] if case.side == "fastq" else case.syncs)
    ]  # fmt: skip
    data = {"date": "2026-01-01", "command": "python -m bench.sdk", "rounds": 3, "machine": {"processor": "p"},
            "packages": {"rq": ["rq==3"]}, "redis": "Valkey 9", "lives": lives}  # fmt: skip
    text = report.write(data, tmp_path).read_text()
    assert "| **fastq** | synced | 1 slot, sync | 250 | 125 to 500 | 500 | 250 |" in text
    assert "does 50 jobs/s" in text and "250" in text
    assert "others used 20% of its processors" in text
    assert (tmp_path / "sdk.svg").stat().st_size > 1000
    assert json.loads((tmp_path / "sdk.json").read_text())["lives"] == lives
