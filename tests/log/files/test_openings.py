"""What an opening changes in a log's files, and that only one server opens a log at a time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastq.errors import DirectoryLocked, LogDamaged
from tests.log.files.frames import flip
from tests.log.files.test_recovery import BODY, segment
from tests.log.files.writer import Writer, abandon, bodies_of, local, quiet, read_back, write, write_log


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A log of five documents in one segment, as a killed process leaves it."""
    write(tmp_path, [BODY] * 5, close=False)
    return tmp_path


def test_openings_without_work_take_no_disk(killed: Path) -> None:
    read_back(killed)  # writes the last frame again
    read_back(killed)
    names = sorted(path.name for path in killed.iterdir())
    for _ in range(10):
        read_back(killed)
    assert sorted(path.name for path in killed.iterdir()) == names


async def test_openings_with_little_work_take_little_disk(tmp_path: Path) -> None:
    for first in range(12):
        await write_log(tmp_path, [BODY], first=first)
    writer = await Writer(local(tmp_path)).open().start()
    await quiet(writer)
    await writer.log.close()
    assert list(writer.documents()) == [str(n) for n in range(12)]
    sizes = [os.stat(segment(tmp_path, number)).st_size for number in range(1, 13)]
    assert max(sizes) < 8192


def test_alignment_and_segment_size_may_change_between_lives(tmp_path: Path) -> None:
    shapes = [(512, 16 << 10), (4096, 64 << 10), (65536, 1 << 20), (1024, 32 << 10)]
    for first, (align, segment_bytes) in enumerate(shapes):
        write(tmp_path, [BODY], close=False, first=first, align=align, segment_bytes=segment_bytes)
    assert list(read_back(tmp_path).documents()) == ["0", "1", "2", "3"]


async def test_a_frame_larger_than_the_segment_size_is_rewritten(tmp_path: Path) -> None:
    (body,) = bodies_of([200_000])
    await write_log(tmp_path, [body], close=False, segment_bytes=1 << 20)
    writer = await Writer(local(tmp_path, segment_bytes=32 << 10)).open().start()
    assert writer.documents() == {"0": body}
    await writer.write("1", BODY)
    await abandon(writer)
    assert read_back(tmp_path).documents() == {"0": body, "1": BODY}


def test_a_spare_of_another_size_is_removed(killed: Path) -> None:
    (killed / "spare-7").write_bytes(bytes(100))
    read_back(killed)
    assert not (killed / "spare-7").exists()


# --- the lock ---------------------------------------------------------------------------------------------------------


SECOND_SERVER = """
import sys
from pathlib import Path
from fastq.errors import DirectoryLocked
from tests.log.files.writer import read_back
try:
    read_back(Path(sys.argv[1]))
except DirectoryLocked as refusal:
    print(refusal)
    sys.exit(refusal.exit_code)
"""


async def test_a_second_server_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    writer = await Writer(local(tmp_path)).open().start()
    with pytest.raises(DirectoryLocked, match=f"in use by process {os.getpid()}:"):
        local(tmp_path).open(writer.core.replay)
    command = [sys.executable, "-c", SECOND_SERVER, str(tmp_path)]
    other = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await other.communicate()
    assert f"process {os.getpid()}" in said.decode()
    assert other.returncode == 75
    await writer.log.close()
    read_back(tmp_path)


def test_a_refused_start_gives_the_lock_back(killed: Path) -> None:
    flip(segment(killed, 1), 30)
    with pytest.raises(LogDamaged):
        read_back(killed)
    flip(segment(killed, 1), 30)
    read_back(killed)


async def test_a_log_takes_what_its_files_take_also_after_an_opening(tmp_path: Path) -> None:
    """Segments whose ends no record fits into are not shortened."""
    writer = await Writer(local(tmp_path, segment_bytes=64 << 10)).open().start()
    for name, body in enumerate(bodies_of([20_000] * 9)):
        await writer.write(str(name), body)
    await quiet(writer)
    used_bytes = writer.log.used_bytes
    await abandon(writer)
    for _ in range(2):
        writer = await Writer(local(tmp_path, segment_bytes=64 << 10)).open().start()
        await quiet(writer)
        last = writer.log._segment
        assert writer.log.used_bytes == sum(segment(tmp_path, number).stat().st_size for number in range(1, last + 1))
        assert writer.log.used_bytes > used_bytes - (64 << 10)
        await abandon(writer)
