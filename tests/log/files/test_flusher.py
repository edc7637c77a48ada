"""The native module: checksums against another implementation, frames, and the thread."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import select
from pathlib import Path

import google_crc32c
import pytest

from fastq._core import LATENCY_BOUNDS_US
from fastq.log.files._flusher import (
    CLOSED,
    FRAME_HEAD_BYTES,
    SEAL,
    Flusher,
    crc32c,
    crc32c_by_instruction,
    fill_head,
    find_later_frame,
    scan_frames,
    used_bytes,
)
from tests.log.files.frames import read_frame

SALT, EPOCH, SEGMENT, ALIGN = 0x1122334455667788, 7, 3, 512


# --- checksums --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_table", [False, True])
def test_checksums_agree_with_another_implementation(by_table: bool) -> None:
    rng = random.Random(1)
    lane = 3 * 1024  # where the three streams begin and end
    sizes = [*range(130), *range(lane - 9, lane + 10), 2 * lane - 1, 2 * lane, 2 * lane + 7, 100_003]
    for size in sizes:
        data = rng.randbytes(size)
        assert crc32c(data, by_table=by_table) == google_crc32c.value(data), f"{size} bytes"


def test_checksums_of_bytes_that_are_not_aligned() -> None:
    data = random.Random(2).randbytes(20_000)
    for start in range(16):
        part = memoryview(data)[start : start + 9001]
        assert crc32c(part) == google_crc32c.value(bytes(part)) == crc32c(part, by_table=True)


def test_the_instruction_is_used_where_there_is_one() -> None:
    flags = Path("/proc/cpuinfo").read_text()
    assert crc32c_by_instruction() == ("sse4_2" in flags)


# --- frames -----------------------------------------------------------------------------------------------------------


def frame(seq: int, records: bytes, prev_crc: int, *, flags: int = 0, durable_seq: int | None = None) -> bytes:
    size = (FRAME_HEAD_BYTES + len(records) + ALIGN - 1) // ALIGN * ALIGN
    made = bytearray(size)
    made[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + len(records)] = records
    fill_head(
        made, seq=seq, durable_seq=seq - 1 if durable_seq is None else durable_seq, epoch=EPOCH, salt=SALT,
        segment=SEGMENT, record_bytes=len(records), count=len(records), prev_crc=prev_crc, flags=flags,
    )  # fmt: skip
    return bytes(made)


def head_crc(made: bytes) -> int:
    return int.from_bytes(made[60:64], "little")


def chain(count: int) -> bytes:
    """Frames 1 to `count`."""
    made, prev_crc = b"", 0
    for seq in range(1, count + 1):
        one = frame(seq, bytes([seq]) * seq, prev_crc)
        made, prev_crc = made + one, head_crc(one)
    return made


def scan(data: bytes, *, next_seq: int = 1, prev_crc: int = 0, stop_seq: int = 0) -> tuple[list[int], int, str]:
    scanned = scan_frames(
        data, start=0, align=ALIGN, segment=SEGMENT, epoch=EPOCH, salt=SALT, next_seq=next_seq, prev_crc=prev_crc,
        stop_seq=stop_seq,
    )  # fmt: skip
    return [frame.seq for frame in scanned.frames], scanned.end, scanned.why


def test_a_frame_has_the_documented_format() -> None:
    made = frame(5, b"records", 99, durable_seq=3)
    read = read_frame(made, 0)
    assert read is not None
    assert (read.seq, read.durable_seq, read.epoch, read.salt, read.segment) == (5, 3, EPOCH, SALT, SEGMENT)
    assert (read.records, read.count, read.prev_crc, read.flags) == (b"records", 7, 99, 0)


def test_frames_are_read_back_with_their_places() -> None:
    scanned = scan_frames(
        chain(3) + bytes(512), start=0, align=ALIGN, segment=SEGMENT, epoch=EPOCH, salt=SALT, next_seq=1, prev_crc=0
    )
    assert [(one.seq, one.offset, one.record_bytes, one.count, one.durable_seq) for one in scanned.frames] == [
        (1, 0, 1, 1, 0),
        (2, 512, 2, 2, 1),
        (3, 1024, 3, 3, 2),
    ]
    assert (scanned.end, scanned.next_seq, scanned.proven_seq, scanned.why) == (1536, 4, 2, "nothing")
    assert scanned.prev_crc == head_crc(chain(3)[1024:])


@pytest.mark.parametrize(
    ("what", "made", "why"),
    [
        ("a frame too early", lambda last: frame(5, b"x", head_crc(last)), "order"),
        ("the same frame again", lambda last: frame(3, b"x", head_crc(last)), "order"),
        ("another chain", lambda _: frame(4, b"x", 1), "order"),
        ("durable before it was written", lambda last: frame(4, b"x", head_crc(last), durable_seq=4), "order"),
        ("a seal of another frame", lambda last: frame(4, b"", head_crc(last), flags=SEAL), "order"),
        ("a seal with records", lambda last: frame(3, b"x", head_crc(last), flags=SEAL), "order"),
        ("a later version's flag", lambda last: frame(4, b"x", head_crc(last), flags=64), "format"),
        ("a seal", lambda last: frame(3, b"", head_crc(last), flags=SEAL), "seal"),
        ("an orderly stop", lambda last: frame(3, b"", head_crc(last), flags=CLOSED), "closed"),
        ("zeros", lambda _: bytes(512), "nothing"),
        ("half a head", lambda last: frame(4, b"x", head_crc(last))[:40], "nothing"),
        ("a frame longer than the file", lambda last: frame(4, b"x" * 900, head_crc(last))[:512], "order"),
    ],
)  # fmt: skip
def test_a_scan_ends_before_a_frame_that_does_not_follow(what: str, made: object, why: str) -> None:
    assert callable(made)
    last = chain(3)[1024:]
    assert scan(chain(3) + made(last)) == ([1, 2, 3], 1536, why), what


def test_a_scan_ends_where_the_next_segment_begins() -> None:
    assert scan(chain(3), stop_seq=3) == ([1, 2], 1024, "stop")
    assert scan(chain(3), stop_seq=4) == ([1, 2, 3], 1536, "end")


def test_find_later_frame_finds_a_frame_by_its_durable_seq() -> None:
    data = bytes(512) + chain(4)

    def find(durable_min: int, salt: int = SALT) -> tuple[int, int, int] | None:
        return find_later_frame(
            data, start=0, align=ALIGN, segment=SEGMENT, epoch=EPOCH, salt=salt, durable_min=durable_min
        )

    assert find(0) == (512, 1, 0)
    assert find(2) == (1536, 3, 2)
    assert find(4) is None
    assert find(0, salt=SALT + 1) is None


def test_used_bytes_end_with_the_last_that_is_not_zero() -> None:
    for size in (0, 1, 7, 8, 9, 100):
        assert used_bytes(b"abc" + b"x" * size + bytes(50), start=3) == size
    assert used_bytes(b"abc", start=3) == 0


def test_a_head_that_would_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        fill_head(bytearray(70), seq=1, durable_seq=0, epoch=1, salt=1, segment=1, record_bytes=7, count=1, prev_crc=0)
    with pytest.raises(BufferError):
        fill_head(bytes(100), seq=1, durable_seq=0, epoch=1, salt=1, segment=1, record_bytes=7, count=1, prev_crc=0)


# --- the thread -------------------------------------------------------------------------------------------------------


def flusher(fd: int, *, segment: int = 1) -> Flusher:
    return Flusher(epoch=EPOCH, align=ALIGN, fd=fd, segment=segment, salt=SALT, end=0, seq=0, prev_crc=0)


def give(flush: Flusher, seq: int, *, fd: int, offset: int, segment: int = 1, bytes_in: int = 10) -> bytearray:
    size = (FRAME_HEAD_BYTES + bytes_in + ALIGN - 1) // ALIGN * ALIGN
    batch = bytearray(size)
    batch[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + bytes_in] = b"r" * bytes_in
    flush.commit(
        batch, fd=fd, salt=SALT, segment=segment, offset=offset, seq=seq, durable_seq=seq - 1, record_bytes=bytes_in,
        count=1,
    )  # fmt: skip
    return batch


def wait(flush: Flusher) -> int:
    assert select.select([flush.fileno()], [], [], 10)[0], "the flusher did not answer"
    return flush.finish()


@pytest.fixture
def file(tmp_path: Path) -> int:
    return os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)


def test_batches_are_written_in_a_chain(file: int) -> None:
    flush = flusher(file)
    offset = 0
    for seq in range(1, 6):
        batch = give(flush, seq, fd=file, offset=offset, bytes_in=seq * 300)
        assert wait(flush) == seq
        offset += len(batch)
    assert flush.end == (1, offset)
    assert (flush.syncs, flush.written_bytes) == (5, offset)
    flush.stop()
    scanned = scan_frames(
        os.pread(file, 1 << 20, 0), start=0, align=ALIGN, segment=1, epoch=EPOCH, salt=SALT, next_seq=1, prev_crc=0
    )
    assert ([frame.seq for frame in scanned.frames], scanned.end) == ([1, 2, 3, 4, 5], offset)


def test_a_batch_of_the_next_segment_seals_the_one_before(file: int, tmp_path: Path) -> None:
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    flush = flusher(file)
    give(flush, 1, fd=file, offset=0)
    wait(flush)
    give(flush, 2, fd=other, offset=512, segment=2)
    assert wait(flush) == 2
    flush.mark_closed()
    assert wait(flush) == 2
    flush.stop()
    seal = read_frame(os.pread(file, 1024, 0), 512)
    moved, closed = (read_frame(os.pread(other, 2048, 0).ljust(2048, b"\0"), at) for at in (512, 1024))
    assert seal is not None and moved is not None and closed is not None
    assert (seal.flags, seal.seq, seal.durable_seq, seal.count) == (SEAL, 1, 1, 0)
    assert (moved.prev_crc, moved.seq, moved.segment) == (seal.head_crc, 2, 2)
    assert (closed.flags, closed.seq, closed.prev_crc) == (CLOSED, 2, moved.head_crc)


def test_the_batch_buffer_is_held_until_it_is_written(file: int) -> None:
    flush = flusher(file)
    batch = give(flush, 1, fd=file, offset=0)
    with pytest.raises(BufferError):
        batch.extend(b"more")
    wait(flush)
    batch.extend(b"more")


def test_an_error_stays_and_no_write_is_retried(file: int, tmp_path: Path) -> None:
    read_only = os.open(tmp_path / "file", os.O_RDONLY)
    flush = flusher(read_only)
    give(flush, 1, fd=read_only, offset=0)
    with pytest.raises(OSError, match=r"write in segment 1") as caught:
        wait(flush)
    assert caught.value.errno == errno.EBADF
    give(flush, 1, fd=file, offset=0)
    with pytest.raises(OSError, match=r"write in segment 1"):
        wait(flush)
    assert os.fstat(file).st_size == 0


def test_a_full_device_is_an_error() -> None:
    full = os.open("/dev/full", os.O_RDWR)
    flush = flusher(full)
    give(flush, 1, fd=full, offset=0)
    with pytest.raises(OSError, match=r"No space left") as caught:
        wait(flush)
    assert caught.value.errno == errno.ENOSPC


def test_misuse_is_an_assertion_error(file: int) -> None:
    flush = flusher(file)
    with pytest.raises(AssertionError, match="batch 2 after 0"):
        give(flush, 2, fd=file, offset=0)
    with pytest.raises(AssertionError, match="the log ends at 0"):
        give(flush, 1, fd=file, offset=512)
    with pytest.raises(BlockingIOError):
        flush.finish()
    give(flush, 1, fd=file, offset=0)
    with pytest.raises(AssertionError, match="one batch at a time"):
        flush.mark_closed()
    wait(flush)
    flush.stop()
    flush.stop()
    with pytest.raises(AssertionError, match="stopped"):
        flush.mark_closed()


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def test_stop_waits_for_the_work_and_leaves_no_thread(file: int) -> None:
    before = threads()
    flush = flusher(file)
    (thread,) = threads() - before
    batch = give(flush, 1, fd=file, offset=0)
    flush.stop()
    assert thread not in threads()
    assert os.pread(file, 512, 0) == batch


def test_a_flusher_that_is_dropped_ends_its_thread(file: int) -> None:
    before = threads()
    flush = flusher(file)
    give(flush, 1, fd=file, offset=0)
    del flush
    assert threads() == before
    assert os.fstat(file).st_size == 512


def test_the_thread_takes_no_signals(file: int) -> None:
    before = threads()
    flush = flusher(file)
    (thread,) = threads() - before
    status = Path(f"/proc/self/task/{thread}/status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert blocked & 1 << 14  # SIGTERM is number 15
    flush.stop()


def test_each_sync_is_timed(file: int) -> None:
    flush = flusher(file)
    assert flush.sync_durations() == ((0,) * (len(LATENCY_BOUNDS_US) + 1), 0)
    for seq, offset in ((1, 0), (2, ALIGN)):
        give(flush, seq, fd=file, offset=offset)
        wait(flush)
    counts, sum_us = flush.sync_durations()
    assert len(counts) == len(LATENCY_BOUNDS_US) + 1 and sum(counts) == 2
    slowest = max(at for at, count in enumerate(counts) if count)
    assert (LATENCY_BOUNDS_US[slowest - 1] if slowest else 0) <= sum_us <= 2 * LATENCY_BOUNDS_US[slowest]
    flush.stop()


async def test_it_wakes_an_event_loop(file: int) -> None:
    flush, loop = flusher(file), asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    loop.add_reader(flush.fileno(), lambda: done.set_result(flush.finish()))
    give(flush, 1, fd=file, offset=0)
    assert await asyncio.wait_for(done, 10) == 1
    loop.remove_reader(flush.fileno())
    flush.stop()
