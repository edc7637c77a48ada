"""A first start that is killed at any moment leaves no keys that nobody has seen, and nothing that cannot start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fastq.server.first_start import DEVELOPMENT_KEYS
from tests.kills.commands import build_library
from tests.served import END_S, ROOT, SERVE, Served
from tests.server.test_start_refused import QUICK
from tests.services.keys.valkey import Valkey

pytestmark = pytest.mark.slow

CALLS_MAX = 400


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("killed"))


@pytest.fixture(params=["log", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    if request.param == "log":
        yield {}
        return
    with Valkey(tmp_path / "valkey") as valkey:
        yield {"REDIS_URL": valkey.url}


def first_start(directory: Path, library: Path, call: int, **settings: str) -> tuple[int, str]:
    """A server that kills itself before its n-th write, sync or rename. Returns its exit code and what it printed.

    It gets SIGTERM when it has printed all, or has done so many calls.
    """
    environ = os.environ | QUICK | {"PORT": "0", "WAL_DIR": str(directory), "LD_PRELOAD": str(library)} | settings
    environ["KILLED_AT"] = str(call)
    with subprocess.Popen(
        SERVE, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as p:
        assert p.stdout is not None
        printed = ""
        for line in p.stdout:
            printed += line
            if line.startswith("  curl "):
                p.send_signal(signal.SIGTERM)
        return p.wait(END_S), printed


def active(server: Served, admin: str) -> list[str]:
    """The types of the keys that are not revoked."""
    status, keys = server.call(admin, "GET", "/admin/keys")
    assert status == 200, keys
    return sorted(key["type"] for key in keys if key.get("revoked_at") is None)


def test_development_keys_are_seen_whenever_the_first_start_is_killed(
    tmp_path: Path, library: Path, store: dict[str, str]
) -> None:
    """Every seventh moment, from a different one each time; FASTQ_KILL_STEP=1 takes each."""
    step = int(os.environ.get("FASTQ_KILL_STEP", "7"))
    call, was_whole = 1, False
    while not was_whole and call < CALLS_MAX:
        directory = tmp_path / f"data-{call}"
        if store:
            with redis.Redis.from_url(store["REDIS_URL"]) as emptied:
                emptied.flushall()
        code, printed = first_start(directory, library, call, **store)
        was_whole = code == 0
        seen = {line.split()[1]: line.split()[3] for line in printed.splitlines() if line.startswith("Created ")}
        with Served(directory, **QUICK, **store) as server:
            again = server.keys
            keys = again or seen
            assert set(keys) == {kind for kind, _, _ in DEVELOPMENT_KEYS}, f"call {call}: {printed}"
            server.submit(keys["client"], "x")
            assert active(server, keys["admin"]) == sorted(keys), f"call {call}"
            assert server.stop() == 0
        shutil.rmtree(directory)
        call += step
    assert was_whole


def test_an_admin_key_file_is_whole_whenever_the_first_start_is_killed(tmp_path: Path, library: Path) -> None:
    call, code = 1, -1
    while code != 0 and call < CALLS_MAX:
        directory = tmp_path / f"data-{call}"
        code, _ = first_start(directory, library, call, SEED_DEV_KEYS="false")
        with Served(directory, **QUICK, SEED_DEV_KEYS="false") as server:
            assert any("admin.key" in line for line in server.lines), f"call {call}"
            admin = (directory / "admin.key").read_text().strip()
            assert active(server, admin) == ["admin"]
            assert server.stop() == 0
        shutil.rmtree(directory)
        call += 7
    assert code == 0


def test_a_later_start_makes_no_keys(tmp_path: Path) -> None:
    with Served(tmp_path / "data", **QUICK) as server:
        keys = server.keys
        server.kill()
        server.start()
        assert server.keys == {}
        assert active(server, keys["admin"]) == ["admin", "client", "worker"]
