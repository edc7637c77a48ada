"""The original's recorded exchanges, played in order: same statuses, names and messages, but for what DIFFERENCES says.

`exchanges.json` is what the original sent and answered, with its keys replaced by `<client-key>` and the like. "The
same" is: the status; every name of the recorded answer, with the same value unless it is an id, a time, a key or a
payload; a message that begins with the recorded one. Answers may have more names than recorded.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.http.wire import Reply
from tests.http.world import World, running
from tests.services.keys.valkey import Valkey

EXCHANGES = json.loads((Path(__file__).parent / "exchanges.json").read_text())
LEASE_S = 2  # what the recorded server ran with


@dataclass(frozen=True)
class Difference:
    """Where we mean to answer otherwise, and why. `error` is how our message begins; `fields` are our values."""

    reason: str
    status: int | None = None
    error: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


FIRST_IN_FIRST_OUT = "the original leased in no particular order; we lease the oldest first"

DIFFERENCES = {
    "submit wrong type payload": Difference("a payload may be any JSON value but null and an empty string", 201),
    "submit unknown field": Difference("a misspelled delay_ms would run the job now", 400, "unknown field: colour"),
    "unauthorized unknown path": Difference("nobody maps the API without a key", 401, "Missing Authorization header"),
    "authorized unknown path": Difference("every error is JSON", 404, "path not found"),
    "lower case bearer": Difference("a scheme has no case (RFC 9110)", 201),
    "status running": Difference(FIRST_IN_FIRST_OUT, fields={"max_retries": 3}),
    "status acked": Difference(FIRST_IN_FIRST_OUT, fields={"max_retries": 3}),
    "delete job": Difference("DELETE removes a job", 200),
    "submit wrong method": Difference("GET /jobs lists jobs", 200),
    "ack not JSON": Difference("an ack that cannot be read acks nothing", 400, "invalid JSON"),
}

# Lists show keys masked, and the secret is shown once, when a key is made: `key` is compared by its type only.
VOLATILE = {"job_id", "payload", "lease_until", "created_at", "last_used_at", "revoked_at", "key"}
TIMES = {"lease_until", "created_at", "last_used_at", "revoked_at"}
RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


class Player:
    """Plays exchanges on a world; knows which of our ids and keys stand for the recorded ones."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ours: dict[str, str] = {f"<{name}-key>": secret for name, secret in world.secrets.items()}

    async def play(self, exchange: dict[str, Any]) -> None:
        if exchange["case"] == "status dead after expiry":
            await self.let_leases_expire(exchange)
        reply = await self.send(exchange["request"])
        difference = DIFFERENCES.get(exchange["case"], Difference("none"))
        if exchange["case"] == "lower case bearer":  # later exchanges know nothing of this job
            await self.world.call("client", "DELETE", f"/jobs/{reply.json['job_id']}")
        recorded = exchange["response"]
        assert reply.status == (difference.status or recorded["status"]), reply
        if difference.error is not None:
            assert reply.error.startswith(difference.error), reply
        elif difference.status is None:
            self.compare(reply, recorded, difference)

    async def send(self, request: dict[str, Any]) -> Reply:
        headers = tuple((name, self.translate(value)) for name, value in request["headers"].items())
        body = None if request["body"] is None else self.translate(request["body"]).encode()
        return await self.world.call(None, request["method"], self.translate(request["path"]), body, headers)

    def translate(self, text: str) -> str:
        for recorded, ours in self.ours.items():
            text = text.replace(recorded, ours)
        return text

    def compare(self, reply: Reply, recorded: dict[str, Any], difference: Difference) -> None:
        if not recorded["body"]:
            assert reply.body == b""
            assert "content-type" not in reply.headers
        elif recorded["body"] == "OK":
            assert reply.body == b"OK"
            assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        else:
            assert reply.headers["content-type"] == "application/json"
            assert not reply.body.endswith(b"\n")
            self.compare_json(reply.json, json.loads(recorded["body"]), difference)

    def compare_json(self, ours: Any, recorded: Any, difference: Difference) -> None:
        if isinstance(recorded, list):
            assert len(ours) == len(recorded)
            named = {entry["name"]: entry for entry in ours}
            for entry in recorded:
                self.compare_json(named[entry["name"]], entry, difference)
            return
        assert recorded.keys() <= ours.keys()
        for name, value in (recorded | difference.fields).items():
            self.compare_value(name, ours[name], value)
        self.remember(ours, recorded)

    def compare_value(self, name: str, ours: Any, recorded: Any) -> None:
        if name == "error":
            assert ours.startswith(self.translate(recorded))
        elif name in VOLATILE:
            assert type(ours) is type(recorded)
            assert name not in TIMES or RFC3339_UTC.fullmatch(ours)
        else:
            assert ours == recorded, name

    def remember(self, ours: dict[str, Any], recorded: dict[str, Any]) -> None:
        """The newest answer that names a job or makes a key says what stands for it."""
        if "job_id" in recorded:
            self.ours[recorded["job_id"]] = ours["job_id"]
        elif "scopes" in recorded and recorded["key"] not in self.ours:
            self.ours[recorded["key"]] = ours["key"]

    async def let_leases_expire(self, exchange: dict[str, Any]) -> None:
        self.world.hands.ahead_us += (LEASE_S + 1) * 1_000_000
        async with asyncio.timeout(20):
            while (await self.send(exchange["request"])).json["state"] == "RUNNING":
                pass


async def test_the_originals_exchanges_in_order() -> None:
    await play_all(None)


async def test_the_originals_exchanges_with_keys_in_redis(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey") as valkey:
        await play_all(valkey.url)


async def play_all(redis_url: str | None) -> None:
    roles = {"client": "client", "worker": "worker", "admin": "admin"}
    names = {"client": "Dev Client", "worker": "Dev Worker", "admin": "Dev Admin"}
    async with running(roles={}, redis_url=redis_url, lease_ms=LEASE_S * 1000, lease_check_ms=10) as world:
        for role, kind in roles.items():
            secret = await world.make_key(names[role], kind, f"dev-{role}")
            world.secrets[role] = secret
        player = Player(world)
        for exchange in EXCHANGES:
            try:
                await player.play(exchange)
            except AssertionError as error:
                error.add_note(f"in the exchange {exchange['case']!r}: {exchange}")
                raise


def test_every_difference_is_about_a_recorded_exchange() -> None:
    assert DIFFERENCES.keys() <= {exchange["case"] for exchange in EXCHANGES}
    assert len(EXCHANGES) == 69
