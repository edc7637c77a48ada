"""A log in files with documents: tests write it, kill it, and read it back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastq.log.conformance import KIND, Writer, bodies_of
from fastq.log.files.log import LocalLog
from tests.engines import Running

__all__ = ["KIND", "SMALL", "Writer", "abandon", "bodies_of", "local", "quiet", "read_back", "write", "write_log"]

SMALL = 64 << 10  # the smallest segment


def local(directory: Path, *, segment_bytes: int = SMALL, align: int = 512, cache_bytes: int = 0) -> LocalLog:
    return LocalLog(directory, segment_bytes=segment_bytes, align=align, cache_bytes=cache_bytes)


async def write_log(
    directory: Path, bodies: list[bytes], *, close: bool = True, first: int = 0, when_quiet: bool = False, **shape: int
) -> None:
    """One life of a local log: a frame for each body, named by its number from `first` on.

    Without `close` the files are left as a killed process leaves them. With `when_quiet` the log's background work
    ends first.
    """
    writer = await Writer(local(directory, **shape)).open().start()
    for number, body in enumerate(bodies, first):
        await writer.write(str(number), body)
    if when_quiet:
        await quiet(writer)
    if close:
        await writer.log.close()
    else:
        await abandon(writer)


async def quiet(on: Writer | Running) -> None:
    """Wait until the log's background work is done."""
    log = on.log
    assert isinstance(log, LocalLog) and log._ready is not None
    while log._ready._work is not None:
        await asyncio.wait([log._ready._work])


def write(directory: Path, bodies: list[bytes], **how: int) -> None:
    """`write_log` for tests that have no loop."""
    asyncio.run(write_log(directory, bodies, **how))  # type: ignore[arg-type]


async def abandon(writer: Writer) -> None:
    """Release a local log's threads and lock without a closing frame, as after a kill."""
    log = writer.log
    assert isinstance(log, LocalLog)
    log._opened_seq = log._durable_seq  # so that close writes no closing frame
    await log.close()


def read_back(directory: Path, **shape: int) -> Writer:
    """Open a local log as the next process would, and release it."""
    log = local(directory, **shape)
    writer = Writer(log).open()
    log._release()
    return writer
