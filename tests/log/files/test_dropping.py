"""Dropped segments: reads in flight still get their records, and no file stays."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path

from fastq._core import RecordPlace
from fastq.log.files._index import Span
from fastq.log.files.log import READERS, LocalLog
from fastq.log.files.places import GAP_BYTES_MAX, OPEN_FILES_MAX, RUN_BYTES_MAX, SpanReader, runs
from fastq.log.files.segments import segment_path
from tests.log.files.frames import read_segment
from tests.log.files.writer import SMALL, Writer, bodies_of, local, quiet

BODY_BYTES = 3000


async def started(directory: Path, *, zero_cleaned: bool = False) -> Writer:
    """A log of five segments or more, all before the last to be dropped."""
    log = LocalLog(directory, segment_bytes=SMALL, align=512, cache_bytes=0, zero_cleaned=zero_cleaned)
    writer = await Writer(log).open().start()
    for number, body in enumerate(bodies_of([BODY_BYTES] * 100)):
        await writer.write(str(number), body)
    await quiet(writer)
    return writer


def segments(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("segment-*"))


def open_files(directory: Path) -> list[str]:
    """The open files of `directory`, once for each descriptor; a deleted one ends in " (deleted)"."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the listing's own, or closed since
            continue
        if path.startswith(f"{directory}/"):
            found.append(path)
    return found


def deleted_but_open(directory: Path) -> list[str]:
    """Deleted files of `directory` that still take space because they are open."""
    return [path for path in open_files(directory) if path.endswith(" (deleted)")]


# --- reads in flight --------------------------------------------------------------------------------------------------


async def test_a_segment_stays_until_reads_in_flight_are_done(tmp_path: Path) -> None:
    """The cleaner moved the record and dropped its segment between the request and a reader thread's turn."""
    writer = await started(tmp_path)
    log = writer.log
    assert isinstance(log, LocalLog)
    place, expected = RecordPlace(3, 40, 200), read_segment(segment_path(tmp_path, 1)).frames[2].records[40:240]
    newest = RecordPlace(writer.log.tail.durable_seq, 0, 10)
    end = log._segment
    go_on = threading.Event()
    busy = [log._loop.run_in_executor(log._readers, go_on.wait) for _ in range(READERS)]
    reading = asyncio.ensure_future(log.read([RecordPlace(60, 0, 10), place]))
    later = asyncio.ensure_future(log.read([newest]))
    await asyncio.sleep(0)  # both wait for a thread
    log.drop_before(newest.frame)
    await quiet(writer)
    go_on.set()
    assert (await reading)[1] == expected
    await asyncio.gather(later, *busy)
    await quiet(writer)
    assert segments(tmp_path)[0] == segment_path(tmp_path, end).name
    assert deleted_but_open(tmp_path) == []
    await log.close()


async def test_a_cancelled_read_releases_its_segment_and_descriptor(tmp_path: Path) -> None:
    """Its segment is dropped at once; the descriptor is closed when the reading thread ends."""
    writer = await started(tmp_path)
    log = writer.log
    assert isinstance(log, LocalLog)
    fd = log._spans._get(1)  # as its thread does
    log.drop_before(log.tail.durable_seq)
    await quiet(writer)
    assert not segment_path(tmp_path, 1).exists()
    log._spans._put(1, fd)
    assert deleted_but_open(tmp_path) == []
    await log.close()


# --- many places at once ----------------------------------------------------------------------------------------------


def test_spans_are_returned_in_the_order_of_the_request(tmp_path: Path) -> None:
    rng = random.Random(1)
    files = {number: rng.randbytes(3 << 20) for number in (1, 2)}
    for number, content in files.items():
        segment_path(tmp_path, number).write_bytes(content)
    reader = SpanReader(tmp_path)
    for _ in range(30):
        spans = [Span(rng.choice((1, 2)), rng.randrange(2 << 20), rng.choice((0, 1, 600, 20_000))) for _ in range(60)]
        spans += [*spans[:3], Span(1, 100, 500), Span(1, 200, 10), Span(2, 0, 3 << 20)]
        rng.shuffle(spans)
        assert reader.read_many(spans) == [files[n][offset : offset + length] for n, offset, length in spans]
    reader.close()


def test_neighbours_are_read_together_and_a_read_is_bounded() -> None:
    near = [Span(1, 4096 * n + 64, 600) for n in range(100)]
    assert [span for span, _ in runs(near[::-1])] == [(1, 64, 99 * 4096 + 600)]
    far = [Span(1, n * (GAP_BYTES_MAX + 601), 600) for n in range(5)]
    assert [span for span, _ in runs(far)] == far
    assert len(list(runs([Span(n, 0, 600) for n in range(5)]))) == 5
    large = [Span(1, n * 20_480, 20_000) for n in range(100)]
    spans = list(runs(large))
    assert len(spans) == 2
    assert all(span.bytes <= RUN_BYTES_MAX for span, _ in spans)
    assert [span for _, part in spans for span in part] == large


def test_a_file_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    segment_path(tmp_path, 1).write_bytes(bytes(1000))
    reader = SpanReader(tmp_path)
    _, error = reader.read_many([Span(1, 0, 100), Span(1, 500, 600)])
    assert "the file ends before offset 1100" in str(error)
    reader.close()


def test_a_bounded_number_of_files_stays_open(tmp_path: Path) -> None:
    spans = [Span(number, 0, 10) for number in range(1, 2 * OPEN_FILES_MAX)]
    for span in spans:
        segment_path(tmp_path, span.segment).write_bytes(b"0123456789")
    reader = SpanReader(tmp_path)
    for _ in range(2):
        assert reader.read_many(spans) == [b"0123456789"] * len(spans)
        assert len(open_files(tmp_path)) == OPEN_FILES_MAX
    reader.close()
    assert open_files(tmp_path) == []


# --- overwritten before they are deleted ------------------------------------------------------------------------------


def blocks(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


async def test_cleaned_segments_are_overwritten(tmp_path: Path) -> None:
    writer = await started(tmp_path, zero_cleaned=True)
    held = [os.open(segment_path(tmp_path, number), os.O_RDONLY) for number in (1, 2, 3)]
    assert all(any(blocks(fd)) for fd in held)
    writer.log.drop_before(read_segment(segment_path(tmp_path, 3)).frames[0].seq)
    await quiet(writer)
    first, second, kept = (any(blocks(fd)) for fd in held)
    assert not first
    assert not second
    assert kept, "a segment that is needed was overwritten"
    assert all(os.fstat(fd).st_nlink == 0 for fd in held[:2])
    assert not [name for name in os.listdir(tmp_path) if name.startswith("cleaned-")]
    for fd in held:
        os.close(fd)
    await writer.log.close()


async def test_without_the_setting_cleaned_data_stays_on_the_disk(tmp_path: Path) -> None:
    """docs/log-format.md warns of this. It also shows that the test above examines the right blocks."""
    writer = await started(tmp_path)
    fd = os.open(segment_path(tmp_path, 1), os.O_RDONLY)
    writer.log.drop_before(read_segment(segment_path(tmp_path, 3)).frames[0].seq)
    await quiet(writer)
    assert os.fstat(fd).st_nlink == 0
    assert any(blocks(fd))
    os.close(fd)
    await writer.log.close()


async def test_segments_left_by_an_earlier_server_are_overwritten(tmp_path: Path) -> None:
    """The server was killed between the rename and the zeros; the setting may be off since then."""
    await (await started(tmp_path)).log.close()
    (tmp_path / "cleaned-00000007").write_bytes(b"payload" * 10_000)
    fd = os.open(tmp_path / "cleaned-00000007", os.O_RDONLY)
    writer = await Writer(local(tmp_path)).open().start()
    await quiet(writer)
    assert not any(blocks(fd))
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)
    await writer.log.close()
