"""A whole server with its keys in Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served import Served, run_to_its_end
from tests.server.test_start_refused import QUICK
from tests.services.keys.valkey import Valkey

pytestmark = pytest.mark.slow

LIMITED = QUICK | {"REDIS_OUTAGE_GRACE": "24h"}


def test_first_keys_are_made_once_whatever_becomes_of_redis(tmp_path: Path, valkey: Valkey) -> None:
    with Served(tmp_path / "data", REDIS_URL=valkey.url, **LIMITED) as server:
        client, worker, admin = (server.keys[kind] for kind in ("client", "worker", "admin"))
        server.submit(client)
        assert server.call(worker, "POST", "/jobs/lease", {})[0] == 200
        status, made = server.call(admin, "POST", "/admin/keys", {"name": "n", "owner_id": "o", "type": "client"})
        assert status == 201
        assert server.call(made["key"], "GET", "/keys")[1][0]["key_id"] == made["key_id"]
        assert server.call(admin, "DELETE", f"/keys/{made['key_id']}")[0] == 200
        assert server.call(made["key"], "GET", "/keys")[0] == 401
        assert server.stop() == 0
        assert worker not in server.stderr
        for secret in (client, worker, admin, made["key"]):
            tail = secret.partition("_")[2]
            assert tail.encode() not in server.segments()
            assert tail not in valkey.everything()
        used = valkey.do("HGET", f"api_key:{made['key_id']}", "last_used_at")
        assert int(used) >= int(valkey.do("HGET", f"api_key:{made['key_id']}", "created_at"))
        valkey.wipe()
        server.start()
        assert server.keys == {}, "an empty Redis makes no keys on a used data directory"
        status, answer = server.call(admin, "GET", "/keys")
        assert (status, answer["code"]) == (503, "key_store_unavailable")
        assert valkey.do("KEYS", "*") == []
        server.kill()
        settings = {"REDIS_URL": ""}
        with Served(tmp_path / "data", **LIMITED, **settings) as in_the_log:
            assert in_the_log.keys == {}, "nor does the log, whose keys were elsewhere"


def test_a_first_start_without_redis(tmp_path: Path, valkey: Valkey) -> None:
    valkey.stop()
    ended = run_to_its_end(tmp_path / "data", REDIS_URL=valkey.url, **QUICK)
    assert ended.returncode == 78
    message = "fastq: REDIS_URL: the key store must answer at a first start: Redis: "
    assert ended.stderr.splitlines()[-1].startswith(message)
