"""The alert rules, the dashboard and their runbooks: they fit the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.http.world import running

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "deploy/monitoring"
PROMTOOL = Path("/usr/bin/promtool")
METRIC = re.compile(r"\b((?:fastq|process)_[a-z_]+)\b")
RULES = (MONITORING / "alerts.yml").read_text()
BOOK = (ROOT / "docs/monitoring.md").read_text()


@pytest.mark.skipif(not PROMTOOL.exists(), reason=f"there is no {PROMTOOL}")
@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_accepts_the_rules_and_their_tests(command: tuple[str, ...]) -> None:
    done = subprocess.run([PROMTOOL, *command], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_and_a_test() -> None:
    alerts = re.findall(r"alert: (\w+)", RULES)
    assert len(alerts) == len(set(alerts)) >= 10
    links = re.findall(r"runbook_url: docs/monitoring.md#(\w+)", RULES)
    assert links == [alert.lower() for alert in alerts]
    assert re.findall(r"^### (\w+)$", BOOK, re.MULTILINE) == alerts
    assert set(re.findall(r"alertname: (\w+)", (MONITORING / "alerts_test.yml").read_text())) == set(alerts)


async def test_every_metric_that_is_named_exists() -> None:
    """In the rules, the dashboard, the KEDA example and the documents."""
    async with running() as world:
        await world.submit()
        assert (await world.call("admin", "POST", "/queues/default/pause")).status == 200
        assert (await world.call("admin", "GET", "/jobs")).status == 200
        text = (await world.call("admin", "GET", "/metrics")).body.decode()
    there = {name for line in text.splitlines() if not line.startswith("#") for name in METRIC.findall(line)[:1]}
    there |= set(re.findall(r"^# TYPE (\w+) histogram$", text, re.MULTILINE))
    there |= {"fastq_fsync_seconds", "fastq_fsync_seconds_bucket"}  # a log in memory syncs nothing
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown += [variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]]
    for text in (RULES, (MONITORING / "keda.yml").read_text(), BOOK, *shown):
        assert set(METRIC.findall(text)) <= there
    assert len(shown) > 15
