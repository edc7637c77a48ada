"""`fastq keys` on a running and on a stopped server, with keys in the log and in Redis."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastq import AsyncClient
from tests.served import END_S, ROOT, Served
from tests.server.test_start_refused import QUICK
from tests.services.keys.valkey import Valkey

pytestmark = pytest.mark.slow

MANY = 10_050  # more than the server lists in one answer

Run = Callable[..., subprocess.CompletedProcess[str]]


def keys(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FASTQ_")} | QUICK | settings
    command = (sys.executable, "-m", "fastq", "keys", *arguments)
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=END_S, check=False)


@pytest.fixture(params=["log", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of a server that keeps its keys there."""
    if request.param == "log":
        yield {}
        return
    with Valkey(tmp_path / "valkey") as valkey:
        yield {"REDIS_URL": valkey.url}


@pytest.fixture
def served(tmp_path: Path, store: dict[str, str]) -> Iterator[Served]:
    with Served(tmp_path / "data", **QUICK, **store) as server:
        yield server


def on(server: Served) -> dict[str, str]:
    return {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "FASTQ_KEY": server.keys["admin"]}


def answered(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lifecycle(run: Run, works: Callable[[str], bool]) -> None:
    """Create, list, rotate and revoke. works: whether the server accepts a secret."""
    made = answered(run("create", "--name", "n", "--owner", "ops", "--type", "client", "--json"))
    assert works(made["key"])
    listed = answered(run("list", "--owner", "ops", "--json"))  # one key: one line
    assert listed["key_id"] == made["key_id"]
    assert made["key"] not in json.dumps(listed)
    rotated = answered(run("rotate", made["key_id"], "--overlap", "1m", "--json"))
    assert works(rotated["key"])
    assert works(made["key"])
    revoked = answered(run("revoke", made["key_id"], "--json"))
    assert revoked["key_id"] == made["key_id"]
    assert not works(rotated["key"])
    assert not works(made["key"])
    assert answered(run("revoke", rotated["key"], "--json"))["revoked_at"][:19] == revoked["revoked_at"][:19]
    refused = run("rotate", made["key_id"])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "the key is revoked: make a new one" in refused.stderr


def test_keys_of_a_running_server(served: Served) -> None:
    lifecycle(
        lambda *arguments: keys(*arguments, **on(served)),
        lambda secret: served.call(secret, "GET", "/keys")[0] == 200,
    )


async def test_more_keys_than_one_answer_has(tmp_path: Path) -> None:
    with Served(tmp_path / "data", **QUICK) as server:
        async with AsyncClient(on(server)["FASTQ_URL"], server.keys["admin"], timeout_s=END_S) as client:
            made = await asyncio.gather(*(client.create_key("n", "many", "client") for _ in range(MANY)))
        listed = keys("list", "--json", "--owner", "many", **on(server)).stdout.splitlines()
        assert sorted(json.loads(line)["key_id"] for line in listed) == sorted(key.key_id for key in made)


def test_keys_of_a_stopped_server(served: Served, store: dict[str, str]) -> None:
    client = served.keys["client"]
    served.stop()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return keys(*arguments, "--offline", str(served.directory), **store)

    def works(secret: str) -> bool:
        served.start()
        assert served.call(client, "GET", "/keys")[0] == 200, "the keys that were there are"
        status = served.call(secret, "GET", "/keys")[0]
        served.stop()
        return status == 200

    lifecycle(run, works)


def test_create_sends_all_limits(served: Served, tmp_path: Path) -> None:
    limits = {
        "scopes": ["jobs:lease", "jobs:ack"], "queues": ["mail", "sms"], "rate_limit": 7,
        "expires_at": "2999-01-01T00:00:00Z",
    }  # fmt: skip
    arguments = (
        "create", "--name", "n", "--owner", "o", "--type", "worker", "--scope", "jobs:lease", "--scope", "jobs:ack",
        "--queue", "mail", "--queue", "sms", "--rate-limit", "7", "--expires-at", "2999-01-01T00:00:00Z", "--json",
    )  # fmt: skip
    key_file = tmp_path / "key"
    key_file.write_text(served.keys["admin"] + "\n")
    settings = on(served) | {"FASTQ_KEY": ""}
    made = answered(keys(*arguments, "--key-file", str(key_file), **settings))
    assert {name: made[name] for name in limits} == limits


def test_output_for_people(tmp_path: Path) -> None:
    with Served(tmp_path / "data", **QUICK) as server:
        made = keys("create", "--name", "a\nb", "--owner", "o", "--type", "client", **on(server))
        assert made.returncode == 0
        shown = dict(line.split(maxsplit=1) for line in made.stdout.splitlines())
        assert shown["name"] == "a\\nb"
        assert server.call(shown["key"], "GET", "/keys")[0] == 200
        assert made.stderr == "The key is not shown again.\n"
        assert keys("revoke", shown["key_id"], **on(server)).stdout.startswith(f"{shown['key_id']} revoked at 2")
        head, *rows = keys("list", **on(server)).stdout.splitlines()
        assert head.split() == ["key_id", "type", "owner_id", "name", "state", "created_at", "last_used_at"]
        assert sorted(row.split()[1] for row in rows) == ["admin", "client", "client", "worker"]
        assert sum("revoked 2" in row for row in rows) == 1
        assert shown["key"] not in "".join(rows)


def test_errors_are_one_line(tmp_path: Path) -> None:
    with Served(tmp_path / "data", **QUICK) as server:
        create = ("create", "--name", "n", "--owner", "o", "--type")
        for arguments, settings, code, message in (
            ((*create, "boss"), on(server), 1, "(400 invalid_request)"),
            (("revoke", "client_unknown"), on(server), 1, "key not found (404 key_not_found)"),
            (("list",), on(server) | {"FASTQ_KEY": server.keys["client"]}, 1, "Admin access required (403 forbidden)"),
            (("list",), on(server) | {"FASTQ_KEY": "wrong"}, 1, "Invalid API key (401 unauthenticated)"),
            (("list",), on(server) | {"FASTQ_URL": "http://127.0.0.1:1"}, 3, "refused"),
            (("list", "--offline", str(server.directory)), {}, 75, "fastq: "),
        ):
            done = keys(*arguments, **settings)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
            assert message in done.stderr
        for arguments in (("list",), ("rotate", "k", "--overlap", "soon"), (*create, "client", "--claim-store")):
            assert keys(*arguments, FASTQ_URL=on(server)["FASTQ_URL"]).returncode == 2
        server.stop()
        done = keys(*create, "boss", "--offline", str(server.directory))
        assert (done.returncode, done.stderr) == (
            1, "fastq: invalid key type: \"boss\" (must be 'client', 'worker', or 'admin')\n",
        )  # fmt: skip


def test_claim_store_accepts_an_emptied_redis(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey") as valkey:
        store = {"REDIS_URL": valkey.url}
        with Served(tmp_path / "data", **QUICK, **store) as server:
            server.stop()
            valkey.wipe()
            create = ("create", "--name", "n", "--owner", "o", "--type", "admin", "--json", "--offline")
            refused = keys(*create, str(server.directory), **store)
            assert refused.returncode == 1
            assert "it was emptied" in refused.stderr
            made = answered(keys(*create, str(server.directory), "--claim-store", **store))
            server.start()
            assert server.call(made["key"], "GET", "/admin/keys")[0] == 200
