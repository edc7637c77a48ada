"""The log in memory's own functions: hold a batch, fail, and crash during a commit."""

from __future__ import annotations

import asyncio

import pytest

from fastq._core import RecordPlace
from fastq.errors import LogFailed
from fastq.log.memory import MemoryLog
from tests.log.files.writer import Writer


async def started() -> tuple[MemoryLog, Writer]:
    log = MemoryLog()
    return log, await Writer(log).open().start()


async def test_a_held_batch_is_durable_when_it_is_released() -> None:
    log, writer = await started()
    log.hold()
    seq = writer.append("a", b"1")
    writer.kick()
    for _ in range(5):
        await asyncio.sleep(0)
    assert writer.log.tail.durable_seq == seq - 1
    log.release()
    await writer.settled()
    assert writer.log.tail.durable_seq == seq


@pytest.mark.parametrize("keep", [False, True])
async def test_a_crash_keeps_or_loses_the_batch_in_flight(keep: bool) -> None:
    log, writer = await started()
    await writer.write("durable", b"1")
    log.hold()
    writer.append("under way", b"2")
    writer.kick()
    writer.append("not even that", b"3")
    after = Writer(log.crash(keep_under_way=keep)).open()
    assert list(after.documents()) == (["durable", "under way"] if keep else ["durable"])
    await after.start()
    await after.write("new", b"4")
    log.release()
    await asyncio.sleep(0)
    assert list(after.documents())[-1] == "new"


async def test_a_crashed_log_makes_no_more_calls() -> None:
    log, writer = await started()
    seq = writer.append("a", b"1")
    writer.kick()
    log.crash()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert writer.log.tail.durable_seq == seq - 1
    assert not log.idle


async def test_a_failed_batch_is_reported_once_and_the_log_stays_failed() -> None:
    log, writer = await started()
    log.hold()
    writer.append("a", b"1")
    writer.kick()
    log.fail(OSError(5, "the device is gone"))
    assert isinstance(writer.failure, LogFailed)
    assert not log.idle
    await log.close()


async def test_reading_a_place_without_a_record_is_an_error() -> None:
    log = MemoryLog()
    writer = Writer(log).open()
    (error,) = await log.read([RecordPlace(1, 0, 8)])
    assert isinstance(error, FileNotFoundError) and "frame 1 is not in the log" in str(error)
    await writer.start()
    (error,) = await log.read([RecordPlace(1, 10_000, 8)])
    assert isinstance(error, FileNotFoundError) and "there is nothing at" in str(error)
