"""Every answer has an id. A defect is logged, and no answer shows its details."""

from __future__ import annotations

import asyncio
import logging
import re
from operator import attrgetter
from typing import Any

import pytest

from fastq import errors
from fastq.errors import ApiError, DiskFull, Overloaded
from fastq.http.errors import STATUSES, MethodNotAllowed, Wrapped, headers_of, status_of
from tests.http.test_table import refused
from tests.http.wire import request_bytes
from tests.http.world import World

SECRET = "a-secret-that-nobody-may-see"


@pytest.mark.parametrize("offered", ["a", "0f-A_b.9", "x" * 128])
async def test_a_well_formed_request_id_is_used(world: World, offered: str) -> None:
    for who, path in (
        ("client", "/keys"),
        (None, "/keys"),
        ("client", "/nope"),
        (None, "/health"),
        ("client", "/jobs"),
    ):
        reply = await world.call(who, "GET", path, headers=(("X-Request-Id", offered),))
        assert reply.headers["x-request-id"] == offered


@pytest.mark.parametrize("offered", ["", "x" * 129, "a b", "a/b", "é", '"', "a,b"])
async def test_another_request_id_is_replaced(world: World, offered: str) -> None:
    seen = set()
    for _ in range(3):
        reply = await world.call(None, "GET", "/health", headers=(("X-Request-Id", offered),))
        seen.add(reply.headers["x-request-id"])
    assert len(seen) == 3
    assert all(re.fullmatch(r"test-[0-9a-f]+", made) for made in seen)


class Broken:
    """Stands for any defect: its text holds what must not get out."""

    def __call__(self, *_arguments: Any) -> Any:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    ("target", "who", "method", "path", "body"),
    [
        ("engine.submit", "client", "POST", "/jobs", {"payload": SECRET}),
        ("engine.lease", "worker", "POST", "/jobs/lease", None),
        ("engine.ack_many", "worker", "POST", f"/jobs/{SECRET}/ack", None),
        ("engine.job", "client", "GET", f"/jobs/{SECRET}", None),
        ("keys.revoke", "client", "DELETE", f"/keys/{SECRET}", None),
        ("app.auth.principal", "client", "GET", f"/{SECRET}", None),
    ],
)
async def test_a_defect(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: str,
    who: str,
    method: str,
    path: str,
    body: Any,
) -> None:
    part, name = target.rsplit(".", 1)
    monkeypatch.setattr(attrgetter(part)(world), name, Broken())
    reply = await world.call(who, method, path, body, (("X-Request-Id", "id-1"),))
    assert reply.status == 500
    assert reply.json == {"error": "internal error", "code": "internal", "request_id": "id-1"}
    assert reply.headers["x-request-id"] == "id-1"
    (record,) = [record for record in caplog.records if record.name == "fastq.http"]
    assert record.levelno == logging.ERROR
    assert record.__dict__["request_id"] == "id-1"
    assert record.exc_info
    assert SECRET not in record.getMessage(), "the path is not logged"
    assert world.secrets[who] not in caplog.text
    monkeypatch.undo()
    assert (await world.call(None, "GET", "/health")).status == 200, "the connection goes on"


async def test_the_access_log_has_templates_and_no_keys(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastq.http.access")
    await world.call("client", "DELETE", f"/keys/{world.secrets['worker']}")
    await world.call("client", "GET", f"/{world.secrets['client']}")
    lines = [record for record in caplog.records if record.name == "fastq.http.access"]
    assert [record.getMessage() for record in lines] == ["DELETE /keys/{key}", "GET (no route)"]
    assert [record.__dict__["status"] for record in lines] == [403, 404]
    assert not any(secret in caplog.text for secret in world.secrets.values())


async def test_the_access_log_is_off(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await world.call("client", "GET", "/keys")
    assert not caplog.records


async def test_no_answer_repeats_a_key(world: World) -> None:
    """But the one that makes it."""
    for who, method, path, body in (
        ("client", "GET", "/keys", None),
        ("admin", "GET", "/admin/keys", None),
        ("client", "DELETE", f"/keys/{world.secrets['worker']}", None),
        ("admin", "DELETE", f"/keys/{world.secrets['worker']}", None),
        ("admin", "DELETE", f"/keys/{world.secrets['worker']}", None),
        ("worker", "GET", "/keys", None),
        (None, "GET", "/openapi.json", None),
    ):
        reply = await world.call(who, method, path, body)
        said = reply.body + repr(reply.headers).encode()
        assert not any(secret.encode() in said for secret in world.secrets.values()), (method, path)


# --- which status, which headers --------------------------------------------------------------------------------------


def concrete(kind: type[ApiError]) -> set[type[ApiError]]:
    """All kinds of it that have a code."""
    own = {kind} if hasattr(kind, "code") else set()
    return own.union(*(concrete(one) for one in kind.__subclasses__()))


def test_every_error_has_a_status() -> None:
    assert STATUSES.keys() == concrete(ApiError)


async def test_every_status_is_documented_and_no_other(world: World) -> None:
    document = (await world.call(None, "GET", "/openapi.json")).json
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    told = {int(status) for operation in operations for status in operation["responses"]}
    assert {status for status in told if status >= 400} == {*STATUSES.values(), 500}


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.RateLimited(2, 1), {"Retry-After": "1"}),
        (errors.RateLimited(2, 1_000_001), {"Retry-After": "2"}),
        (errors.TooManyFailures(2_000_000), {"Retry-After": "2"}),
        (errors.CleanerBehind(), {"Retry-After": "2"}),
        (errors.IdempotencyFull(), {"Retry-After": "10"}),
        (errors.QueueFull("q", 1), {"Retry-After": "5"}),
        (errors.OwnerFull(1), {"Retry-After": "5"}),
        (errors.QueuesFull(1), {"Retry-After": "5"}),
        (errors.Draining(), {"Retry-After": "5"}),
        (errors.KeyStoreUnavailable("why"), {"Retry-After": "2"}),
        (errors.Overloaded("why"), {"Retry-After": "1"}),
        (Wrapped("failed", errors.Overloaded("why")), {"Retry-After": "1"}),
        (errors.Unauthenticated("why"), {"WWW-Authenticate": "Bearer"}),
        (MethodNotAllowed(["GET", "PUT"]), {"Allow": "GET, PUT"}),
        (errors.DiskFull(), {}),
        (errors.JobNotFound("j"), {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ApiError) else "",
)
def test_headers(error: ApiError, headers: dict[str, str]) -> None:
    assert headers_of(error) == headers
    assert ("Retry-After" in headers) == (status_of(error) in (429, 503))


def test_what_was_wrapped_keeps_its_code_and_its_fields() -> None:
    lost = errors.LeaseLost("ACKED")
    wrapped = Wrapped("failed to ack job", lost)
    assert str(wrapped) == f"failed to ack job: {lost}"
    assert (status_of(wrapped), wrapped.code, wrapped.fields()) == (409, "lease_lost", {"state": "ACKED"})
    assert status_of(Wrapped("failed to ack job", errors.JobNotFound("j"), status=400)) == 400


# --- too much ---------------------------------------------------------------------------------------------------------


class Raises:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, *_arguments: Any) -> Any:
        raise self._error


async def test_overloaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.engine, "submit", Raises(Overloaded("too much waits")))
    reply = await world.call("client", "POST", "/jobs", {"payload": "p"})
    refused(reply, 503, "too much waits", "overloaded")
    assert reply.headers["retry-after"] == "1"


async def test_disk_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.engine, "submit", Raises(DiskFull()))
    reply = await world.call("client", "POST", "/jobs", {"payload": "p"})
    refused(reply, 507, "no space left in the data directory: free some on the server's disk", "disk_full")


# --- nothing is said before it is durable -----------------------------------------------------------------------------


async def test_no_answer_comes_before_its_change_is_durable(world: World) -> None:
    running_id, waiting_id = await world.submit(), await world.submit()
    await world.lease()
    bodies: list[tuple[str, str, str, bytes | None]] = [
        ("client", "POST", "/jobs", b'{"payload":"p"}'),
        ("worker", "POST", "/jobs/lease", None),
        ("worker", "POST", f"/jobs/{running_id}/ack", None),
        ("client", "GET", f"/jobs/{waiting_id}", None),
        ("client", "GET", "/jobs/absent", None),
        ("worker", "POST", f"/jobs/{running_id}/ack", b"{}"),
        ("admin", "POST", "/admin/keys", b'{"name":"n","owner_id":"o","type":"client"}'),
        ("admin", "GET", "/admin/keys", None),
        ("admin", "DELETE", f"/keys/{world.key_ids['stranger']}", None),
        ("stranger", "GET", "/keys", None),
    ]
    world.log.hold()
    wires = []
    for who, method, path, body in bodies:
        wire = await world.connect()
        await wire.send(request_bytes(method, path, (world.bearer(who),), body))
        await world.until_at_work()
        wires.append(wire)
        for _ in range(20):
            await asyncio.sleep(0)
    waiting = [asyncio.create_task(wire.reply()) for wire in wires]
    done, _ = await asyncio.wait(waiting, timeout=0.05)
    assert not done
    world.log.release()
    assert [(await task).status for task in waiting] == [201, 200, 200, 200, 404, 400, 201, 200, 200, 401]


async def test_a_submit_waits_for_the_cleaner_then_names_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastq.engine.admission.LAG_WAIT_S", 0.01)
    is_behind = property(lambda _cleaner: True, lambda _cleaner, _value: None)
    monkeypatch.setattr("fastq.engine.cleaner.Cleaner.is_behind", is_behind, raising=False)
    for _ in range(2):  # the second time the key is known, and the request may be hot
        reply = await world.call("client", "POST", "/jobs", {"payload": 1})
        assert (reply.status, reply.json["code"]) == (429, "cleaner_behind")
