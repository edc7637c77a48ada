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
