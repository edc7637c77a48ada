"""The effect of settings on a real server, for those that no other test sets."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fastq.server.settings import SETTINGS
from tests.served import ROOT, Served

pytestmark = pytest.mark.slow


def read_of_settings(path: Path) -> set[str]:
    """The fields that a module reads as `settings.<field>`."""
    tree = ast.parse(path.read_text())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "settings"
    }


def test_every_setting_is_used() -> None:
    modules = [path for path in (ROOT / "fastq").rglob("*.py") if path.name != "settings.py"]
    read = set().union(*map(read_of_settings, modules))
    assert {setting.field for setting in SETTINGS} <= read


def test_owner_max_depth(tmp_path: Path) -> None:
    with Served(tmp_path / "data", OWNER_MAX_DEPTH="2") as server:
        key = server.keys["client"]
        server.submit(key)
        server.submit(key)
        status, body = server.call(key, "POST", "/jobs", {"payload": 1})
        assert (status, body["code"]) == (429, "owner_full")
        server.submit(server.keys["admin"])


def test_idempotency_keys_max(tmp_path: Path) -> None:
    with Served(tmp_path / "data", IDEMPOTENCY_KEYS_MAX="1") as server:
        key = server.keys["client"]
        server.submit(key, idempotency_key="first")
        status, body = server.call(key, "POST", "/jobs", {"payload": 1, "idempotency_key": "second"})
        assert (status, body["code"]) == (429, "idempotency_full"), "the first is younger than a minute"


def test_poison_expiries(tmp_path: Path) -> None:
    settings = {"POISON_EXPIRIES": "1", "LEASE_DURATION": "1s", "LEASE_CHECK_INTERVAL": "50ms"}
    with Served(tmp_path / "data", **settings) as server:
        job_id = server.submit(server.keys["client"])
        assert server.call(server.keys["worker"], "POST", "/jobs/lease", {})[0] == 200
        path = f"/jobs/{job_id}?wait_ms=20000"
        assert server.call(server.keys["client"], "GET", path)[1]["state"] == "DEAD"


PLACES = {"HOST", "PORT", "WAL_DIR", "TLS_CERT", "TLS_KEY", "ADMIN_KEY_FILE", "REDIS_URL", "WAL_SEGMENT_BYTES"}
"""Settings that name where something is, or what the log's files are like once they are made."""

OTHERWISE = {
    "TRUSTED_PROXIES": "10.0.0.0/8",
    "ROOT_PATH": "/queue",
    "LOG_FORMAT": "json",
    "SEED_DEV_KEYS": "false",
    "REDIS_OUTAGE_GRACE": "1h",
    "OWNER_ISOLATION": "false",
    "LEASE_DURATION": "1s",
    "LEASE_CHECK_INTERVAL": "10ms",
    "DEFAULT_MAX_RETRIES": "0",
    "BACKOFF_BASE": "1ms",
    "BACKOFF_FACTOR": "9",
    "BACKOFF_CAP": "1ms",
    "WAL_ALIGN": "512",
    "PAYLOAD_CACHE_BYTES": "0",
    "RETENTION_ACKED": "1h",
    "RETENTION_DEAD": "1h",
    "MAX_FINISHED_JOBS": "100",
    "IDEMPOTENCY_WINDOW": "1m",
    "IDEMPOTENCY_KEYS_MAX": "100",
    "QUEUES_MAX": "1",
    "POISON_EXPIRIES": "1",
    "OWNER_MAX_DEPTH": "1",
    "WAL_SLACK_BYTES": "1MiB",
    "WAL_ZERO_CLEANED": "true",
    "ACCEPT_CLOCK_BACK": "true",
}


def test_a_restart_with_every_setting_changed_shows_the_same_jobs_and_gives_the_same_answers(tmp_path: Path) -> None:
    assert set(OTHERWISE) == {setting.name for setting in SETTINGS} - PLACES
    with Served(tmp_path / "data") as server:
        keys = server.keys
        jobs = {name: server.submit(keys["client"], name, idempotency_key=name) for name in ("a", "b", "c")}
        for outcome in ("ok", "discard"):
            _, lease = server.call(keys["worker"], "POST", "/jobs/lease", {})
            body = {"lease_token": lease["lease_token"], "outcome": outcome}
            assert server.call(keys["worker"], "POST", f"/jobs/{lease['job_id']}/ack", body)[0] == 200
        shown = {job_id: server.call(keys["client"], "GET", f"/jobs/{job_id}") for job_id in jobs.values()}
        server.kill()
    for settings in (OTHERWISE, {}):
        with Served(tmp_path / "data", **settings) as server:
            assert {job_id: server.call(keys["client"], "GET", f"/jobs/{job_id}") for job_id in shown} == shown
            for name, job_id in jobs.items():
                asked = {"payload": name, "idempotency_key": name}
                assert server.call(keys["client"], "POST", "/jobs", asked) == (200, {"job_id": job_id})
            assert server.stop() == 0
