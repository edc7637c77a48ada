"""Each log passes the conformance suite."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Never

import pytest

from fastq._core import RecordPlace
from fastq.errors import CoreFailed, LogDamaged
from fastq.log.conformance import LogSuite
from fastq.log.files.log import LocalLog
from fastq.log.files.segments import segment_path
from fastq.log.memory import MemoryLog
from fastq.log.protocol import Log, Part


def fails(*_: object) -> Never:
    raise OSError(5, "as if the device had failed")


class InMemory:
    def new(self) -> Log:
        return MemoryLog(segment_bytes=64 << 10, cache_bytes=0)

    def again(self, log: Log) -> Log:
        assert isinstance(log, MemoryLog)
        return log.crash()

    async def killed(self, log: Log) -> Log:
        return self.again(log)

    def break_commits(self, log: Log) -> None:
        assert isinstance(log, MemoryLog)
        log.fail_next(OSError(5, "as if the device had failed"))

    def break_reads(self, log: Log) -> None:
        vars(log)["_read"] = fails


class InFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def new(self) -> Log:
        return LocalLog(self._directory, segment_bytes=64 << 10, align=512, cache_bytes=0)

    def again(self, log: Log) -> Log:
        return self.new()

    async def killed(self, log: Log) -> Log:
        assert isinstance(log, LocalLog)
        log._opened_seq = log._durable_seq  # so that close writes no closing frame
        await log.close()
        return self.new()

    def break_commits(self, log: Log) -> None:
        """Open the file for reading only: writes to it fail."""
        assert isinstance(log, LocalLog)
        for number, (fd, *_) in log._files.items():
            read_only = os.open(segment_path(self._directory, number), os.O_RDONLY)
            os.dup2(read_only, fd)
            os.close(read_only)

    def break_reads(self, log: Log) -> None:
        assert isinstance(log, LocalLog)
        vars(log._spans)["read"] = fails


class TestMemory(LogSuite):
    home = InMemory()


class TestFiles(LogSuite):
    @pytest.fixture(autouse=True)
    def _in_files(self, tmp_path: Path) -> None:
        self.home = InFiles(tmp_path)


# --- faulty logs ------------------------------------------------------------------------------------------------------


class Forgetful(InMemory):
    """It loses the last durable frame at a kill."""

    async def killed(self, log: Log) -> Log:
        after = self.again(log)
        del vars(after)["_frames"][-1:]
        return after


class Hasty(InMemory):
    """It reports a commit durable whose outcome is unknown."""

    def break_commits(self, log: Log) -> None:
        assert isinstance(log, MemoryLog)

        def fail(_: BaseException) -> None:
            log._on_durable(log.tail.appended_seq)

        vars(log)["fail"] = fail
        super().break_commits(log)


class Misplacing(InMemory):
    """It reads the neighbour of the requested frame."""

    def again(self, log: Log) -> Log:
        after = super().again(log)
        read = vars(MemoryLog)["_read"]
        vars(after)["_read"] = lambda place: read(after, RecordPlace(max(1, place.frame - 1), 0, place.bytes))
        return after


class Hoarding(InMemory):
    """It drops no part."""

    def new(self) -> Log:
        log = super().new()
        vars(log)["drop_before"] = lambda _frame: None
        return log


class Endless(InMemory):
    """It also offers the open part for dropping."""

    def again(self, log: Log) -> Log:
        after = super().again(log)
        assert isinstance(after, MemoryLog)
        vars(after)["oldest_part"] = lambda: Part(after.oldest_frame, after.tail.durable_seq + 1)
        return after


@pytest.mark.parametrize("kind", [Forgetful, Hasty, Misplacing, Hoarding, Endless])
async def test_the_suite_detects_a_faulty_log(kind: type[InMemory]) -> None:
    found = []
    suite = LogSuite()
    suite.home = kind()
    for name in [name for name in dir(suite) if name.startswith("test_")]:
        try:
            async with asyncio.timeout(5):
                await getattr(suite, name)()
        except (AssertionError, OSError, TimeoutError, LogDamaged, CoreFailed) as error:
            found.append(f"{name}: {error!r}")
    assert found
    assert len(found) < 12, "it breaks one promise, not all of them"
