"""The comparison's own pieces: the generator drives every system that is installed, and a run becomes a report."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.compare import generator, machine, measure, report
from bench.compare.systems import SYSTEMS, Fastq, System, resp
from fastq import __version__

pytestmark = pytest.mark.slow

SHORT_S = 0.5
CYCLE = measure.Step("cycle", "cycle", 4, consumers=4)
BATCH = measure.Step("batch", "batch", 2, batch=5)


@pytest.fixture(scope="module")
def place() -> Iterator[measure.Place]:
    with measure.scratch(Path("/var/tmp")) as path:
        yield measure.Place(path, generator.build(path), "", "")


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_submits_leases_and_acks(system: type[System], place: measure.Place) -> None:
    if system.found() is None:
        pytest.skip(f"{system.name} is not installed")
    assert system.version()
    with measure.scratch(place.directory) as path, system(path / system.name) as server:
        submitted = acked = 0
        while not (submitted and acked):  # the disk may be busy
            figures = measure.run_step(place, server, CYCLE, SHORT_S)
            assert figures["errors"] == 0
            submitted += figures["submitted"]
            acked += figures["acked"]
        assert figures["server_cpu_s"] > 0
        figures = measure.run_step(place, server, BATCH, SHORT_S)
        assert figures["errors"] == 0
        assert server.memory_bytes() > 100_000
        server.stop()
        assert server.disk_bytes() > 0


def test_waiting_jobs_are_there_after_kill_9(place: measure.Place) -> None:
    figures = measure.waiting(place, Fastq, 300)
    assert figures["jobs"] >= 294
    assert 100 <= figures["disk_bytes"] / figures["jobs"] < 2000
    assert figures["recovery_s"] > 0


def test_refusals_are_counted(place: measure.Place) -> None:
    with measure.scratch(place.directory) as path, Fastq(path / "fastq") as server:
        server.key = "admin_wrong"
        figures = measure.run_step(place, server, BATCH, SHORT_S)
    assert figures["errors"] > 0
    assert figures["submitted"] == 0


def test_a_server_that_ends_is_no_figure(place: measure.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with measure.scratch(place.directory) as path, Fastq(path / "fastq") as server:
        asked: list[float] = []

        def killing() -> float:
            asked.append(0.0)
            server.kill()
            return 0.0

        monkeypatch.setattr(server, "cpu_s", killing)
        with pytest.raises(RuntimeError, match=r"gave up|closed a connection|reset by peer"):
            measure.run_step(place, server, BATCH, SHORT_S)
        assert asked


def test_requests_of_redis() -> None:
    assert resp("LPUSH", "jobs", b"x", -1) == b"*4\r\n$5\r\nLPUSH\r\n$4\r\njobs\r\n$1\r\nx\r\n$2\r\n-1\r\n"


def test_processor_time_counts_children() -> None:
    """A child that works is in its parent's figure, while it runs and after it was waited for."""
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    before_s = machine.cpu_s(os.getpid())
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in machine.tree(os.getpid())
        assert machine.cpu_s(os.getpid()) - before_s >= 0.1
        child.kill()
    assert child.pid not in machine.tree(os.getpid())
    assert machine.cpu_s(os.getpid()) - before_s >= 0.1


# --- the report -------------------------------------------------------------------------------------------------------


def life(system: str, number: int, per_second: int, **figures: Any) -> dict[str, Any]:
    step = {
        "submitted": per_second * 2, "acked": per_second, "empty": 0, "errors": 0, "seconds": 2.0, "server_cpu_s": 1.0,
        "generator_share": 0.5, "p50_us": 100, "p99_us": 2000,
    } | figures  # fmt: skip
    steps = {step_.name: copy.copy(step) for step_ in measure.STEPS}
    return {"round": number, "system": system, "sync_us": {"4096": 90.0, "65536": 150.0}, "steps": steps}


def run(**figures: Any) -> dict[str, Any]:
    rates = {"fastq": (1000, 2000, 9000), "beanstalkd": (500, 3000, 900)}
    return {
        "date": "2026-01-01", "command": "./dev bench", "machine": {"kernel": "6"},
        "versions": {"fastq": "a1", "beanstalkd": "1.12", "postgres": "15"},
        "options": {"rounds": 3, "seconds": 2, "pinned": True},
        "rounds": [life(name, i, rates[name][i], **figures) for i in range(3) for name in rates],
        "waiting": [{"system": "fastq", "jobs": 1000, "memory_bytes": 5_000_000, "memory_before_bytes": 4_900_000,
                     "disk_bytes": 140_000, "recovery_s": 0.5}],
    }  # fmt: skip


def test_a_report_has_medians_and_ratios_of_the_same_round(tmp_path: Path) -> None:
    text = report.write(json.loads(json.dumps(run())), tmp_path).read_text()
    rates = text.partition("## Figures")[2].partition("## What it costs")[0]
    assert "| **fastq** | 2,000 | 2,000 | 2,000 | 2,000 | 1,000 | 2,000 | 2.500 | 5 | 140 | 0.50 |" in rates
    assert "| beanstalkd | 900 | 900 | 900 | 900 | 450 | 900 | 5.556 |" in rates
    assert "| beanstalkd | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 |" in rates  # of 2, 0.67 and 10
    assert "| **fastq** | 2.500 | 2.500 | 2.500 | 2.500 | 5.000 | 2.500 |" in text.partition("## What it costs")[2]
    assert "4 KiB 90 µs (90 to 90)" in text
    assert "| fastq, 1,000 | 5 | 100 | 140 | 0.50 |" in text
    assert "| postgres" not in text
    assert "<svg" in (tmp_path / "comparison.svg").read_text()


def test_a_report_says_what_was_wrong(tmp_path: Path) -> None:
    sound = report.write(run(), tmp_path).read_text()
    assert "was the limit" not in sound
    assert "requests were refused" not in sound
    text = report.write(run(errors=7, generator_share=0.99), tmp_path).read_text()
    assert "the generator was the limit, at 99% of its core" in text
    assert "7 requests were refused" in text


@pytest.mark.parametrize(("value", "shown"), [(0.1234, "0.123"), (12.34, "12.3"), (1234, "1,230"), (98765, "98,800")])
def test_three_digits(value: float, shown: str) -> None:
    assert report.rounded(value) == shown


def test_fastq_has_a_version_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Fastq.version() == __version__
