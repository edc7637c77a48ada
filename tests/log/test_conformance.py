"""What every log does, whatever it is kept in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastq._core import RecordPlace
from fastq.log.memory import MemoryLog
from fastq.log.protocol import Log
from tests.log.files.writer import SMALL, Writer, bodies_of, local


@dataclass
class Home:
    """One kind of log: how to make it, and how to have what the next process finds."""

    make: Callable[[], Log]
    again: Callable[[Log], Log]


@pytest.fixture(params=["memory", "local"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    if request.param == "local":
        return Home(lambda: local(tmp_path), lambda _: local(tmp_path))

    def crash(log: Log) -> Log:
        assert isinstance(log, MemoryLog)
        return log.crash()

    return Home(lambda: MemoryLog(segment_bytes=SMALL, cache_bytes=0), crash)


async def test_a_new_log_is_empty_and_has_an_identity(home: Home) -> None:
    writer = Writer(home.make()).open()
    assert (writer.opened.epoch, writer.opened.frames, writer.opened.records) == (1, 0, 0)
    assert len(writer.opened.database_id) == 16
    await writer.log.close()


async def test_what_was_durable_comes_back_in_order(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    bodies = bodies_of([0, 1, 100, 511, 512, 4096, 20_000])
    for number, body in enumerate(bodies):
        await writer.write(str(number), body)
    await writer.log.close()
    again = Writer(home.again(writer.log)).open()
    assert list(again.documents().items()) == [(str(n), body) for n, body in enumerate(bodies)]
    assert again.core.state_hash() == writer.core.state_hash()
    assert again.opened.database_id == writer.opened.database_id
    assert again.opened.frames == len(bodies) + 1
    assert again.opened.records == len(bodies) + 1
    await again.log.close()


async def test_the_epoch_rises_at_every_opening_that_wrote_something(home: Home) -> None:
    log, epochs = home.make(), []
    for _ in range(4):
        writer = await Writer(log).open().start()
        epochs.append(writer.opened.epoch)
        await log.close()
        log = home.again(log)
    assert epochs == [1, 2, 3, 4]


async def test_sequence_numbers_go_on_after_a_restart(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    last = await writer.write("a", b"1")
    await writer.log.close()
    again = await Writer(home.again(writer.log)).open().start()
    assert await again.write("b", b"2") == last + 2  # one frame said that the server is back
    await again.log.close()


async def test_records_appended_while_a_batch_is_under_way_share_the_next_one(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    first = writer.append("first", b"x")
    writer.kick()
    assert not writer.log.idle
    others = {writer.append(f"{n}", b"y") for n in range(50)}
    assert others == {first + 1}
    await writer.settled()
    assert writer.log.tail.durable_seq == first + 1
    await writer.log.close()
    again = Writer(home.again(writer.log)).open()
    assert len(again.documents()) == 51
    await again.log.close()


async def test_a_log_larger_than_a_segment_goes_on_in_the_next(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    bodies = bodies_of([20_000] * 20)
    for number, body in enumerate(bodies):
        await writer.write(str(number), body)
    await writer.log.close()
    again = Writer(home.again(writer.log)).open()
    assert list(again.documents().values()) == bodies
    assert again.log.parts >= 3
    await again.log.close()


async def test_a_place_is_read_back_also_after_a_restart(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    for number, body in enumerate(bodies_of([3000] * 60)):
        await writer.write(str(number), body)
    await writer.log.close()
    again = await Writer(home.again(writer.log)).open().start()
    for place, records in again.places:
        assert await again.log.read([place]) == [records]
    last, records = again.places[-1]
    assert await again.log.read([RecordPlace(last.frame, 3, last.bytes - 5)]) == [records[3:-2]]
    with pytest.raises(FileNotFoundError, match="is not in the log"):
        await again.log.read([RecordPlace(last.frame + 50, 0, 10)])
    await again.log.close()


async def test_what_was_not_committed_is_not_there(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    await writer.write("kept", b"1")
    writer.append("lost", b"2")
    await writer.log.close()
    again = Writer(home.again(writer.log)).open()
    assert again.documents() == {"kept": b"1"}
    await again.log.close()


async def test_close_waits_for_the_batch_under_way(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    seq = writer.append("last", b"words")
    writer.kick()
    await writer.log.close()
    assert writer.log.tail.durable_seq == seq
    again = Writer(home.again(writer.log)).open()
    assert again.documents() == {"last": b"words"}
    await again.log.close()


async def test_a_closed_log_takes_nothing(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    await writer.log.close()
    assert not writer.log.idle
    writer.append("late", b"x")
    batch = writer.log.tail.take()
    assert batch is not None
    with pytest.raises(AssertionError, match="between start and close"):
        writer.log.commit(batch)
    await writer.log.close()  # again: nothing


async def test_a_log_that_was_opened_only_can_be_closed(home: Home) -> None:
    log = home.make()
    Writer(log).open()
    await log.close()


async def test_one_batch_at_a_time(home: Home) -> None:
    writer = await Writer(home.make()).open().start()
    writer.append("a", b"1")
    writer.kick()
    writer.append("b", b"2")
    batch = writer.log.tail.take()
    assert batch is not None
    with pytest.raises(AssertionError, match="one batch at a time"):
        writer.log.commit(batch)
    await asyncio.sleep(0)
    await writer.log.close()


async def test_an_empty_life_changes_nothing(home: Home) -> None:
    log = home.make()
    writer = await Writer(log).open().start()
    await writer.write("a", b"1")
    await log.close()
    for _ in range(5):
        log = home.again(log)
        idle = Writer(log).open()
        assert idle.documents() == {"a": b"1"}
        await log.close()
