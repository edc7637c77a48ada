"""Failing calls: the n-th write, sync, open, rename, truncation or removal of a life, for every n.

FASTQ_FAULT_STEP=1 tries every n (the default tries every third of the many).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.log.files.life import log_of
from tests.log.files.writer import Writer, bodies_of, quiet, read_back, write

pytestmark = pytest.mark.slow

STEP = int(os.environ.get("FASTQ_FAULT_STEP", "3"))
SHAPE = {"segment_bytes": 16 << 10, "align": 512}


@pytest.mark.parametrize(
    ("kind", "error", "step"),
    [
        ("write", "EIO", STEP),
        ("write", "ENOSPC", STEP),
        ("write", "short", STEP),
        ("sync", "EIO", STEP),
        ("sync", "ENOSPC", STEP),
        ("open", "EIO", STEP),
        ("open", "ENOSPC", STEP),
        ("rename", "EIO", 1),
        ("rename", "ENOSPC", 1),
        ("truncate", "EIO", 1),
        ("unlink", "EIO", 1),
    ],
)
def test_a_failing_call_loses_no_acknowledged_data(
    kind: str, error: str, step: int, shim: Path, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = lives_with(shim, memory_path, kind, error, step)
    codes = Counter(result["code"] for result in results)
    with capsys.disabled():
        print(f"\nfaults: {kind} {error}: points {len(results)}, exit codes {dict(codes)}, lost 0")
    for result in results:
        assert not result["missing"] and not result["wrong"], result
        assert result["code"] in (0, 70, 65), result
        if result["code"] == 65:
            assert "opened" not in result["said"], f"a log that was open has failed, not refused: {result}"
    assert results[-1]["code"] == 0, "the last life met no fault"
    if error == "short":
        assert set(codes) == {0}, "a short write is carried on"
    if (kind, error) in (("sync", "EIO"), ("write", "EIO")):
        assert codes[70] >= 3 and codes[65] >= 1


def lives_with(shim: Path, scratch: Path, kind: str, error: str, step: int) -> list[dict[str, Any]]:
    """The seed is a log of two killed lives: an opening has frames to rewrite and segments to shorten."""
    seed = scratch / "seed"
    write(seed, bodies_of([100, 6000, 5000, 4000]), close=False, **SHAPE)
    write(seed, bodies_of([100, 200]), close=False, first=4, **SHAPE)
    (seed / "spare-5").write_bytes(b"of another size")
    preload = f"{os.environ.get('LD_PRELOAD', '')} {shim}".strip()
    environment = os.environ | {"LD_PRELOAD": preload, "IOTRACE_DIR": str(scratch / "data")}
    command = [sys.executable, "-m", "tests.log.files.faults", str(scratch / "data"), kind, error, str(step)]
    done = subprocess.run(command, env=environment, check=True, timeout=250, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB. The tests run as root, in CI as elsewhere."""
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


async def fill(writer: Writer) -> tuple[list[str], bool]:
    """Write until no segment has room and none can be made.

    Returns:
        The names of acknowledged documents, and whether there was still room when the full disk was noticed.
    """
    names: list[str] = []
    log, early = writer.log, False
    while log.tail.has_room(4000, 0) or not log.disk_full:
        if log.tail.has_room(4000, 0):
            names.append(str(len(names)))
            await writer.write(names[-1], b"x" * 3000)
            await quiet(writer)  # a segment that small is written faster than the next is made
            early |= log.disk_full and log.tail.has_room(4000, 0)
        else:
            await asyncio.sleep(0)
    return names, early


async def test_a_full_disk_is_noticed_early_and_passes(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    os.posix_fallocate(fd := os.open(ballast, os.O_RDWR | os.O_CREAT), 0, 100 << 10)
    os.close(fd)
    writer = await Writer(log_of(small_disk)).open().start()
    names, early = await fill(writer)
    assert early, "the disk was full before anybody could know"
    assert writer.failure is None
    os.unlink(ballast)
    async with asyncio.timeout(10):
        await writer.room(4000)  # tried again within about a second
    assert not writer.log.disk_full
    await writer.write("after", b"y" * 3000)
    await writer.log.close()
    assert list(read_back(small_disk, **SHAPE).documents()) == [*names, "after"]


async def test_a_log_that_filled_the_disk_refuses_to_open_until_there_is_room(small_disk: Path) -> None:
    """The opening needs a segment of its own."""
    os.posix_fallocate(fd := os.open(small_disk / "ballast", os.O_RDWR | os.O_CREAT), 0, 50 << 10)
    os.close(fd)
    writer = await Writer(log_of(small_disk)).open().start()
    names, _ = await fill(writer)
    await writer.log.close()
    with pytest.raises(OSError, match="No space left"):
        read_back(small_disk, **SHAPE)
    os.unlink(small_disk / "ballast")
    assert list(read_back(small_disk, **SHAPE).documents()) == names


def test_a_first_start_on_a_full_disk_can_be_repeated(small_disk: Path) -> None:
    os.posix_fallocate(fd := os.open(small_disk / "ballast", os.O_RDWR | os.O_CREAT), 0, 244 << 10)
    os.close(fd)
    with pytest.raises(OSError, match="No space left"):
        read_back(small_disk, **SHAPE)
    os.unlink(small_disk / "ballast")
    assert read_back(small_disk, **SHAPE).opened.epoch == 1
