"""A real server that is killed while schedules fire: the jobs and what the schedule knows of them agree."""

from __future__ import annotations

import contextlib
import http.client
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.served import Served

pytestmark = pytest.mark.slow


def fire_until_it_dies(server: Served, key: str, fired: list[str], enough: threading.Event) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            status, body = server.call(key, "POST", "/schedules/s/run")
            assert status == 201, body
            fired.append(body["job_id"])
            if len(fired) % 20 == 0:
                enough.set()


def test_kill_9_during_a_fire(tmp_path: Path) -> None:
    """Every fire that was answered is there, each job once, and the last one is the one that the schedule names."""
    fired: list[str] = []
    with Served(tmp_path / "data") as server:
        key = server.keys["admin"]
        schedule: dict[str, Any] = {"cron": "0 0 1 1 *", "job": {"payload": "tick"}, "overlap": "allow"}
        assert server.call(key, "PUT", "/schedules/s", schedule)[0] == 200
        for _ in range(3):
            enough = threading.Event()
            firing = threading.Thread(target=fire_until_it_dies, args=(server, key, fired, enough))
            firing.start()
            assert enough.wait(30)
            server.kill()
            firing.join()
            server.start()
            shown = server.call(key, "GET", "/schedules/s")[1]
            leased = server.call(key, "POST", "/jobs/lease", {"max": 1000, "lease_ms": 60_000})[1]["jobs"]
            jobs = [job["job_id"] for job in leased]
            assert len(set(jobs)) == len(jobs)
            assert set(fired) <= set(jobs), "a fire that was answered is gone"
            assert len(set(jobs) - set(fired)) <= 1  # the one that was under way
            assert shown["last_job_id"] == jobs[-1]
            audit = server.call(key, "GET", "/admin/audit?limit=1000")[1]["entries"]
            said = {entry["details"]["job_id"] for entry in audit if entry["action"] == "schedule.run"}
            assert said >= set(jobs), "a fire is not in the audit"
            fired.clear()
