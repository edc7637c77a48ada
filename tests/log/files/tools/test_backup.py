"""Backups of stopped logs, and of logs that are written and cleaned meanwhile. A restore gives the same state."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import random
import shutil
import subprocess
import tarfile
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastq.cli import main
from fastq.engine.commands import Ack, Lease, Submit
from fastq.errors import BackupDamaged, BackupRefused, DirectoryFailed, DirectoryLocked, LogDamaged, WouldOverwrite
from fastq.log.files.log import LocalLog
from fastq.log.files.segments import RESTORING, lock_directory
from fastq.log.files.tools.backup import LogCopy, archive, unpack_manifest, verify, write_archive
from fastq.log.files.tools.check import empty_core, read_whole
from fastq.log.files.tools.dump import FrameSeen, walk
from fastq.log.files.tools.restore import restore
from fastq.log.protocol import Backup
from tests.engines import CLIENT, START_US, WORKER, Hand, Running, running, until
from tests.log.files.frames import HEAD_BYTES, flip, read_segment
from tests.log.files.jobs import CLEANED, PAYLOAD, contents, copy_of, has_room, log_of, segment_files, write_jobs


def state_of(directory: Path) -> int:
    core = empty_core()
    read_whole(directory, core)
    core.check()
    return core.state_hash()


def starts(directory: Path) -> bool:
    log = log_of(directory)
    try:
        running(log, Hand()).engine.open()
    except (DirectoryFailed, LogDamaged):
        return False
    log._release()
    return True


def offline(directory: Path) -> bytes:
    found = read_whole(directory, empty_core())
    last_seq = found.next_seq - 1
    return b"".join(archive(LogCopy(directory, found.first_segment, last_seq), last_seq))


async def read_all(backup: Backup) -> bytes:
    return b"".join([piece async for piece in backup])


@pytest.fixture(params=["stopped", "killed", "cleaned"])
def log(request: pytest.FixtureRequest, memory_path: Path) -> Path:
    kind = request.param
    write_jobs(memory_path / "log", 40, lives=3, killed=kind == "killed", clean=kind == "cleaned")
    return memory_path / "log"


# --- of a stopped server ----------------------------------------------------------------------------------------------


def test_a_restored_directory_is_what_was_backed_up(log: Path) -> None:
    before, there = state_of(log), contents(log)
    target, tar = log.with_name("restored"), log.with_name("backup.tar")
    done = CliRunner().invoke(main, ["backup", "--offline", str(log), str(tar)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert contents(log) == there, "a backup changes nothing"
    done = CliRunner().invoke(main, ["restore", str(tar), str(target)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"{target}: " in done.stdout and " jobs (" in done.stdout
    assert not (target / RESTORING).exists()
    assert state_of(target) == before
    assert starts(target)
    assert state_of(target) == before, "also after a start"
    done = CliRunner().invoke(main, ["restore", "-", str(log.with_name("piped"))], input=tar.read_bytes())
    assert done.exit_code == 0 and state_of(log.with_name("piped")) == before


def test_plain_tar_unpacks_a_data_directory(log: Path) -> None:
    target = log.with_name("by-tar")
    target.mkdir()
    subprocess.run(["tar", "-x", "-C", target], input=offline(log), check=True)
    assert state_of(target) == state_of(log)
    last = read_segment(segment_files(target)[-1]).with_records[-1]
    flip(segment_files(target)[-1], last.offset + HEAD_BYTES + 3)
    assert not starts(target), "all of it is proven: rot in the very last frame is not taken for a torn tail"


@pytest.mark.parametrize("killed", [False, True])
def test_a_copy_up_to_any_frame_is_a_whole_log(memory_path: Path, killed: bool) -> None:
    """Also up to a sealed segment's last frame, and with seals of later starts that know of later frames."""
    log = memory_path / "log"
    write_jobs(log, 20, lives=4, killed=killed)
    found = read_whole(log, empty_core())
    frames = {seen.seq: bytes(seen.records) for seen in walk(log) if isinstance(seen, FrameSeen) and not seen.is_copy}
    core = empty_core()
    core.identify(found.database_id or b"")
    assert list(frames) == list(range(1, found.next_seq))
    for seq, records in frames.items():
        core.replay(records, seq)
        data = b"".join(archive(LogCopy(log, 1, seq), seq))
        manifest, restored_core = restore(io.BytesIO(data), memory_path / "target", START_US)
        assert manifest.last_seq == seq
        assert restored_core.state_hash() == core.state_hash()
        shutil.rmtree(memory_path / "target")


def test_a_damaged_log_is_not_backed_up(log: Path) -> None:
    path = segment_files(log)[1]
    flip(path, read_segment(path).with_records[1].offset + HEAD_BYTES + 3)
    tar = log.with_name("backup.tar")
    assert CliRunner().invoke(main, ["backup", "--offline", str(log), str(tar)]).exit_code == 65
    assert not list(log.parent.glob("backup.tar*"))


def test_backup_and_restore_overwrite_nothing(log: Path, tmp_path: Path) -> None:
    tar = log.with_name("backup.tar")
    tar.write_bytes(b"mine")
    assert CliRunner().invoke(main, ["backup", "--offline", str(log), str(tar)]).exit_code == 73
    assert tar.read_bytes() == b"mine"
    data = offline(log)
    with pytest.raises(WouldOverwrite, match="is not empty: it holds 'database'"):
        restore(io.BytesIO(data), log, START_US)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").write_text("mine")
    with pytest.raises(WouldOverwrite, match="it holds 'file'"):
        restore(io.BytesIO(data), tmp_path / "some", START_US)
    (tmp_path / "locked").mkdir()
    lock = lock_directory(tmp_path / "locked")
    with pytest.raises(DirectoryLocked):
        restore(io.BytesIO(data), tmp_path / "locked", START_US)
    os.close(lock)
    restore(io.BytesIO(data), tmp_path / "locked", START_US)


def test_a_backup_holds_no_secret_beside_the_log(log: Path) -> None:
    (log / "admin.key").write_text("admin_secret-canary")
    (log / "torn-00000001-4096-epoch-1").write_text("torn-canary")
    data = offline(log)
    assert b"secret-canary" not in data and b"torn-canary" not in data


# --- incomplete archives ----------------------------------------------------------------------------------------------


@pytest.fixture
def small(memory_path: Path) -> tuple[bytes, int, Path]:
    """An archive, the state in it, and an empty directory beside it."""
    write_jobs(memory_path / "log", 12, lives=2)
    return offline(memory_path / "log"), state_of(memory_path / "log"), memory_path / "target"


def test_every_half_written_archive_is_refused(small: tuple[bytes, int, Path]) -> None:
    data, _, target = small
    end = len(data.rstrip(b"\0"))  # zeros follow
    for size in [*range(0, end, 509), *range(end - 1500, end)]:
        with pytest.raises(BackupDamaged):
            verify(io.BytesIO(data[:size]))
    for size in (0, 512, len(data) // 2, end - 1):
        with pytest.raises(BackupDamaged):
            restore(io.BytesIO(data[:size]), target, START_US)
        assert [path.name for path in target.iterdir()] == ["LOCK"], "nothing of it stays"
    restore(io.BytesIO(data), target, START_US)


def test_a_changed_archive_is_refused_or_harmless(small: tuple[bytes, int, Path]) -> None:
    """Harmless bytes lie between files and are not read."""
    data, state, target = small
    rng, refused, trials = random.Random(3), 0, 300
    for trial in range(trials):
        changed = bytearray(data)
        changed[rng.randrange(len(data) - 1024)] ^= 1 << rng.randrange(8)
        where = target.with_name(f"target-{trial}")
        try:
            restore(io.BytesIO(changed), where, START_US)
        except BackupDamaged:
            refused += 1
        else:
            assert state_of(where) == state
    assert refused > trials * 0.9


def rebuilt(data: bytes, change: dict[str, bytes | None], extra: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """The archive with some files replaced or left out, and others before the last."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for entry in old:
            content = old.extractfile(entry).read()  # type: ignore[union-attr]
            if entry.name == "backup.json":
                for info, body in extra:
                    info.size = len(body)
                    new.addfile(info, io.BytesIO(body))
            content = change.get(entry.name, content)  # type: ignore[assignment]
            if content is not None:
                entry.size = len(content)
                new.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def test_an_archive_with_other_files_is_refused(small: tuple[bytes, int, Path]) -> None:
    data, _, target = small
    link = tarfile.TarInfo("segment-00000009")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    bad = {
        "outside": rebuilt(data, {}, [(tarfile.TarInfo("../segment-00000009"), b"x")]),
        "absolute": rebuilt(data, {}, [(tarfile.TarInfo("/tmp/segment-00000009"), b"x")]),
        "link": rebuilt(data, {}, [(link, b"")]),
        "another file": rebuilt(data, {}, [(tarfile.TarInfo("LOCK"), b"1")]),
        "one segment more": rebuilt(data, {}, [(tarfile.TarInfo("segment-00000009"), b"x")]),
        "no identity": rebuilt(data, {"database": None}, []),
        "a segment less": rebuilt(data, {"segment-00000001": None}, []),
        "no manifest": rebuilt(data, {"backup.json": None}, []),
        "a later format": rebuilt(data, {"backup.json": b'{"format": 2}'}, []),
        "no JSON": rebuilt(data, {"backup.json": b"hello"}, []),
        "no tar": b"hello" * 1000,
        "nothing": b"",
    }
    for what, changed in bad.items():
        with pytest.raises(BackupDamaged):
            restore(io.BytesIO(changed), target, START_US)
        assert [path.name for path in target.iterdir()] == ["LOCK"], what
    assert not target.with_name("segment-00000009").exists()


def test_a_restore_that_is_killed_leaves_nothing_that_starts(small: tuple[bytes, int, Path]) -> None:
    """After a kill at any call that changes the disk, the restore is complete or a server refuses the directory."""
    data, state, target = small
    calls, outcomes = 0, set()
    while True:
        calls += 1
        where = target.with_name(f"killed-{calls}")
        pid = os.fork()
        if pid == 0:
            die_at(calls)
            restore(io.BytesIO(data), where, START_US)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if where.exists() and (where / "database").exists():
            started = starts(copy_of(where, f"started-{calls}"))
            assert not started or state_of(where) == state
            outcomes.add(started)
        if ended == 0:
            break
        assert ended == 9
    assert calls > 12 and outcomes == {True, False}


def die_at(call: int) -> None:
    """End this process at its n-th call that changes names or syncs."""
    left = call

    def counted(name: str) -> None:
        real = getattr(os, name)

        def dies(*args: object, **kwargs: object) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                os._exit(9)
            return real(*args, **kwargs)

        setattr(os, name, dies)

    for name in ("rename", "fsync", "mkdir"):
        counted(name)


def test_a_backup_file_appears_only_when_it_is_complete(small: tuple[bytes, int, Path], tmp_path: Path) -> None:
    data = small[0]

    def breaks() -> object:
        yield data[:5000]
        assert not (tmp_path / "backup.tar").exists()
        raise OSError(errno.ECONNRESET, "gone")

    with pytest.raises(OSError, match="gone"):
        write_archive(breaks(), tmp_path / "backup.tar")  # type: ignore[arg-type]
    with pytest.raises(BackupDamaged, match="no whole backup"):
        write_archive(iter([data[:-4096]]), tmp_path / "backup.tar")
    assert not list(tmp_path.iterdir())
    manifest = write_archive(iter([data]), tmp_path / "backup.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]
    assert (tmp_path / "backup.tar").read_bytes() == data
    assert unpack_manifest(manifest.pack()) == manifest


# --- of a running server ----------------------------------------------------------------------------------------------


@pytest.fixture
async def served(memory_path: Path) -> AsyncIterator[Running]:
    """An engine on a log of several starts, with a busy cleaner."""
    await asyncio.to_thread(write_jobs, memory_path / "log", 10, lives=2, killed=True)
    async with running(log_of(memory_path / "log"), Hand(), CLEANED) as r:
        yield r


async def restored(data: bytes, directory: Path) -> int:
    await asyncio.to_thread(restore, io.BytesIO(data), directory, START_US)
    return state_of(directory)


async def churn(r: Running, jobs: int) -> None:
    """Submit and finish jobs: the log fills with dead records and is cleaned."""
    for _ in range(jobs):
        await until(lambda: has_room(r))
        await r.ask.submit(CLIENT, Submit(PAYLOAD, queue="a"))
        (leased,) = await r.ask.lease(WORKER, Lease(had_body=True, queues=("a", "b")))
        await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, result=b"1"))
        r.hand.us += 100_000


async def all_durable(r: Running) -> None:
    """Return when everything is durable, the cleaner's records included."""
    while r.log.tail.durable_seq < r.log.tail.appended_seq:
        await r.engine.durable()


async def is_clean(r: Running) -> bool:
    await until(lambda: has_room(r))
    await r.ask.submit(CLIENT, Submit(b"1", queue="ticks"))
    return bool(r.log.used_bytes <= r.engine.cleaner.bound_bytes)


async def test_a_backup_is_the_state_of_the_moment_it_began(served: Running, memory_path: Path) -> None:
    """The log is written and cleaned between any two pieces; segments that are still to be read stay."""
    for trial in range(4):
        await churn(served, 120)
        await all_durable(served)
        state, freed = served.core.state_hash(), served.engine.cleaner.freed_parts
        backup, pieces, held_back = served.engine.backup(), [], 0
        async for piece in backup:
            pieces.append(piece)
            if len(pieces) % 3 == 1 and len(pieces) < 30:
                await churn(served, 25)
                held_back = max(held_back, served.log._ready.held_back)
        assert await restored(b"".join(pieces), memory_path / f"restored-{trial}") == state
        assert served.engine.cleaner.freed_parts > freed, "nothing was cleaned meanwhile"
        assert held_back > 0, "nothing was kept for it"
    await until(lambda: is_clean(served))
    assert served.log._ready.held_back == 0
    there = [int(path.name.partition("-")[2]) for path in segment_files(memory_path / "log")]

    async def is_gone() -> bool:
        return min(int(p.name.partition("-")[2]) for p in segment_files(memory_path / "log")) >= min(there)

    await until(is_gone)


async def test_a_backup_right_after_a_start(memory_path: Path) -> None:
    """The segments of earlier lives are sealed and shortened meanwhile."""
    await asyncio.to_thread(write_jobs, memory_path / "log", 30, lives=4, killed=True)
    for trial in range(5):
        async with running(log_of(memory_path / "log"), Hand(), CLEANED) as r:
            await all_durable(r)
            state = r.core.state_hash()
            data = await read_all(r.engine.backup())
            assert await restored(data, memory_path / f"restored-{trial}") == state


async def test_commits_do_not_wait_for_a_backup(served: Running, memory_path: Path) -> None:
    """A stalled backup delays no commit."""
    await all_durable(served)
    state, backup = served.core.state_hash(), served.engine.backup()
    first = await anext(backup)
    async with asyncio.timeout(10):
        await churn(served, 60)
    rest = [piece async for piece in backup]
    assert await restored(first + b"".join(rest), memory_path / "restored") == state


async def test_one_backup_at_a_time_and_an_abandoned_one_releases_its_segments(served: Running) -> None:
    await churn(served, 40)
    backup = served.engine.backup()
    await anext(backup)
    with pytest.raises(BackupRefused, match="another backup is running"):
        served.engine.backup()
    await churn(served, 200)
    assert served.log._ready.held_back > 0
    await backup.close()
    assert served.log._ready.held_back == 0
    with pytest.raises(StopAsyncIteration):
        await anext(backup)
    again = served.engine.backup()
    copies = weakref.WeakSet[LogCopy]()
    async for _ in again:
        copies.add(again._copy)  # type: ignore[attr-defined]
        assert len(copies) == 1
    gc.collect()
    assert not copies, "the memory of a segment goes back"


async def test_a_backup_ends_when_its_segments_fill_the_disk(served: Running) -> None:
    await churn(served, 40)
    backup = served.engine.backup()
    await anext(backup)
    served.log._ready.disk_full = True
    await anext(backup)  # nothing is kept that could go: it may go on
    served.log._ready.disk_full = False
    await churn(served, 200)
    assert served.log._ready.held_back > 0
    served.log._ready.disk_full = True
    with pytest.raises(OSError, match="the disk is full"):
        await anext(backup)
    assert served.log._ready.held_back == 0
    served.log._ready.disk_full = False


async def test_a_backup_ends_at_damage(served: Running) -> None:
    log = served.log
    assert isinstance(log, LocalLog)
    path = segment_files(log._directory)[0]
    flip(path, read_segment(path).with_records[1].offset + HEAD_BYTES + 3)
    backup = served.engine.backup()
    with pytest.raises(LogDamaged, match=f"{path.name}: offset "):
        await read_all(backup)
    assert served.log._ready.held_back == 0
    flip(path, read_segment(path).frames[-1].offset + read_segment(path).frames[-1].record_bytes)
