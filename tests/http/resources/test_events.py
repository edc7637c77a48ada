"""GET /events: what a stream shows, to whom, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

import fastq.http.event_streams as event_streams
from fastq.http.event_streams import COMMENT, EventStreams
from fastq.http.reply import encode
from fastq.services.keys import Grants
from tests.http.wire import PATIENCE_S, Wire, request_bytes
from tests.http.world import World, running

Event = tuple[str, str, Any]
"""name, id, data"""


class Reader:
    """A client of the stream."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.status = 0
        self.headers: dict[str, str] = {}
        self._text = b""

    async def piece(self) -> bytes:
        """The next chunk; empty at the end of the answer."""
        reader = self.wire._reader
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]

    async def event(self, *names: str) -> Event:
        """The next event of these names; of any."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while b"\n\n" not in self._text:
                    piece = await self.piece()
                    if not piece:
                        raise EOFError
                    self._text += piece
                block, _, self._text = self._text.partition(b"\n\n")
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
                if "event" in fields and (not names or fields["event"] in names):
                    return fields["event"], fields.get("id", ""), orjson.loads(fields["data"])

    async def ended(self) -> bool:
        """Whether the answer ends; events before its end are passed over."""
        with contextlib.suppress(EOFError, asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.event()
        return True


async def read(world: World, who: str = "admin", *headers: tuple[str, str], method: str = "GET") -> Reader:
    reader = Reader(await world.connect())
    await reader.wire.send(request_bytes(method, "/events", (world.bearer(who), *headers)))
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.wire._reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.rstrip().split("\r\n")
    reader.status = int(status.split(" ")[1])
    reader.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return reader


def streams(world: World) -> EventStreams:
    return world.app.streams


@contextlib.asynccontextmanager
async def none_left(world: World) -> AsyncIterator[None]:
    """Nothing works or is kept for streams afterwards."""
    yield
    async with asyncio.timeout(PATIENCE_S):
        while streams(world).count or world.engine.feed.subscribers:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
    assert not streams(world)._tasks


async def test_a_stream_begins_with_the_figures_and_tells_each_change(world: World) -> None:
    async with none_left(world):
        reader = await read(world)
        assert reader.status == 200
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert reader.headers["cache-control"] == "no-store"
        name, _, figures = await reader.event()
        assert name == "stats"
        assert figures["runnable"] == 0
        job_id = await world.submit(queue="mail")
        leased = await world.lease({"queues": ["mail"]})
        await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"lease_token": leased["lease_token"]})
        told = [(await reader.event("job"))[2] for _ in range(3)]
        assert [(change["what"], change["state"]) for change in told] == [
            ("submitted", "READY"), ("leased", "RUNNING"), ("acked", "ACKED"),
        ]  # fmt: skip
        assert {(change["job_id"], change["queue"]) for change in told} == {(job_id, "mail")}
        assert (await reader.event("stats"))[2]["states"]["ACKED"] == 1
        await reader.wire.close()


async def test_head_is_answered_without_a_stream(world: World) -> None:
    reader = await read(world, method="HEAD")
    assert reader.status == 200
    assert streams(world).count == 0
    assert (await world.call("admin", "GET", "/stats")).status == 200


async def test_a_caller_gets_only_the_jobs_that_it_sees(world: World) -> None:
    await world.make_key("bound", "worker", grants=Grants(queues=frozenset({"a"})))
    readers = {who: await read(world, who) for who in ("client", "stranger", "bound", "admin")}
    for who, queue in (("client", "a"), ("stranger", "a"), ("stranger", "b"), ("client", "last"), ("stranger", "last")):
        await world.submit(who=who, queue=queue)
    await world.submit(who="client", queue="a")
    wanted = {"client": ["a", "last", "a"], "stranger": ["a", "b", "last"], "bound": ["a", "a", "a"]}
    for who, queues in wanted.items():
        assert [(await readers[who].event("job"))[2]["queue"] for _ in queues] == queues
    assert "rates" not in (await readers["client"].event("stats"))[2]
    assert "owner_id" not in (await readers["admin"].event("job"))[2]


async def test_nothing_is_told_before_it_is_durable() -> None:
    async with running() as world:
        reader = await read(world)
        await reader.event("stats")
        world.log.hold()
        submitting = asyncio.create_task(world.call("client", "POST", "/jobs", {"payload": 1}))
        told = asyncio.create_task(reader.event("job", "stats"))
        await asyncio.sleep(1.5)  # the figures would be told once a second
        assert not told.done()
        world.log.release()
        await told
        assert (await submitting).status == 201


async def test_a_reader_that_comes_back_misses_nothing(world: World) -> None:
    reader = await read(world)
    first = await world.submit()
    _, last_id, told = await reader.event("job")
    assert told["job_id"] == first
    await reader.wire.close()
    missed = [await world.submit() for _ in range(5)]
    reader = await read(world, "admin", ("Last-Event-ID", last_id))
    assert [(await reader.event("job", "left_out"))[2]["job_id"] for _ in missed] == missed
    more = await world.submit()
    assert (await reader.event("job", "left_out"))[2]["job_id"] == more


async def test_the_figures_id_stands_for_all_before_it(world: World) -> None:
    reader = await read(world)
    await world.submit()
    await reader.event("job")
    _, last_id, _ = await reader.event("stats")
    job_id = await world.submit()
    back = await read(world, "admin", ("Last-Event-ID", last_id))
    assert (await back.event("job"))[2]["job_id"] == job_id


@pytest.mark.parametrize("last_id", ["", "x", "-1", "9" * 30, "1e3", "\u00e4"])
async def test_an_id_that_is_none_of_ours_is_as_none(world: World, last_id: str) -> None:
    reader = await read(world, "admin", ("Last-Event-ID", last_id))
    assert reader.status == 200
    assert (await reader.event())[0] == "stats"


async def test_what_can_no_longer_be_told_is_said(world: World) -> None:
    """Of more than 200 changes a second the others are counted; a client key gets no count of others' jobs."""
    readers = {who: await read(world, who) for who in ("admin", "stranger")}
    jobs = {"jobs": [{"payload": n} for n in range(500)]}
    assert (await world.call("client", "POST", "/jobs/batch", jobs)).status == 201
    _, _, data = await readers["admin"].event("left_out")
    assert data["count"] >= 1
    assert (await readers["stranger"].event("left_out", "job"))[2] == {}
    back = await read(world, "admin", ("Last-Event-ID", "1"))
    assert (await back.event("left_out"))[2] == {}


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_streams_end_when_their_key_is_revoked_and_others_go_on(world: World) -> None:
    async with none_left(world):
        reader, other = await read(world, "client"), await read(world, "stranger")
        await reader.event("stats")
        assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['client']}")).status == 200
        assert await reader.ended()
        job_id = await world.submit(who="stranger")
        assert (await other.event("job"))[2]["job_id"] == job_id
        await other.wire.close()


async def test_a_stream_ends_when_its_key_expires(world: World) -> None:
    await world.make_key("brief", "client", grants=Grants(expires_us=world.engine.now_us() + 60_000_000))
    reader = await read(world, "brief")
    await reader.event("stats")
    world.hands.ahead_us += 61_000_000
    assert await reader.ended()


async def test_all_streams_end_at_once_when_the_server_drains(world: World) -> None:
    async with none_left(world):
        readers = [await read(world, who) for who in ("client", "admin", "admin")]
        for reader in readers:
            await reader.event("stats")
        world.engine.drain()
        async with asyncio.timeout(0.9):
            for reader in readers:
                assert await reader.ended()
        refused = await world.call("admin", "GET", "/events")
        assert (refused.status, refused.json["code"]) == (503, "draining")


async def test_a_client_that_goes_leaves_nothing(world: World) -> None:
    async with none_left(world):
        for _ in range(20):
            reader = await read(world)
            reader.wire.abort()
        stopped = Reader(await world.connect())  # it goes before the answer
        await stopped.wire.send(request_bytes("GET", "/events", (world.bearer("admin"),)))
        stopped.wire.abort()


async def test_at_most_so_many_streams_and_no_key_takes_them_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "STREAMS_MAX", 4)
    greedy = [await read(world, "client") for _ in range(4)]
    refused = await world.call("client", "GET", "/events")
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (503, "too_many_streams", "10")
    admin = await read(world, "admin")
    assert (await admin.event())[0] == "stats"
    assert await greedy[0].ended()
    assert streams(world).count == 4


async def test_a_slow_reader_is_dropped_and_the_others_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "UNREAD_BYTES_MAX", 20_000)
    slow, quick = await read(world), await read(world)
    slow.wire._reader._transport.pause_reading()  # type: ignore[attr-defined]
    figures = b"x" * 10_000
    (readers,) = streams(world)._readers.values()
    async with asyncio.timeout(PATIENCE_S):
        while streams(world).count == 2:
            await streams(world)._tell(readers, b"event: big\ndata: %d\n\n" % len(figures) + b": " + figures + b"\n\n")
            await quick.event("big")
    assert streams(world).count == 1
    job_id = await world.submit()
    assert (await quick.event("job"))[2]["job_id"] == job_id


async def test_streams_end_and_can_begin_again_after_a_defect(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_who: object) -> None:
        raise ZeroDivisionError

    async with none_left(world):
        reader = await read(world)
        await reader.event("stats")
        figures = streams(world)._figures
        monkeypatch.setattr(streams(world), "_figures", fails)
        assert await reader.ended()
        monkeypatch.setattr(streams(world), "_figures", figures)
        back = await read(world)
        await back.event("stats")
        assert (await back.event("stats"))[0] == "stats"
        await back.wire.close()


async def test_a_quiet_stream_has_a_comment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "COMMENT_S", 1)
    reader = await read(world)
    async with asyncio.timeout(PATIENCE_S):
        while COMMENT not in await reader.piece():
            pass


async def test_a_session_of_the_console_reads_it_until_its_key_ends(world: World) -> None:
    sessions = world.app.pages.sessions  # type: ignore[union-attr]
    token, _ = await sessions.open(world.secrets["client"], "")
    reader = Reader(await world.connect())
    await reader.wire.send(request_bytes("GET", "/events", (("Cookie", f"{sessions.cookie}={token}"),)))
    await reader.wire._reader.readuntil(b"\r\n\r\n")
    assert (await reader.event())[0] == "stats"
    await world.make_key("another", "client")  # a change of another key ends nobody's stream
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['another']}")).status == 200
    job_id = await world.submit()
    assert (await reader.event("job"))[2]["job_id"] == job_id
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['client']}")).status == 200
    assert await reader.ended()


async def test_a_thousand_readers_share_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []

    def counted(value: Any) -> bytes:
        encoded.append(value)
        return encode(value)

    async with running() as world, none_left(world):
        readers = [await read(world) for _ in range(event_streams.STREAMS_MAX)]
        assert (await world.call("admin", "GET", "/events")).json["code"] == "too_many_streams"
        monkeypatch.setattr(event_streams, "encode", counted)
        job_id = await world.submit()
        told = await asyncio.gather(*(reader.event("job") for reader in readers))
        assert {data["job_id"] for _, _, data in told} == {job_id}
        assert len([one for one in encoded if "job_id" in one]) == 1
        encoded.clear()
        await asyncio.gather(*(reader.event("stats") for reader in readers))
        await asyncio.gather(*(reader.event("stats") for reader in readers))
        assert 1 <= len(encoded) <= 5
        for reader in readers:
            reader.wire.abort()
