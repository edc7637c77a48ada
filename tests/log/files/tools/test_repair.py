"""`fastq log repair`: afterwards the log has everything before the damage, and a server starts."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastq._core import Core
from fastq.cli import main
from fastq.engine.commands import Submit
from fastq.errors import DirectoryFailed, JobNotFound, LogDamaged, RepairRefused
from fastq.log.files.tools.check import empty_core, read_whole
from fastq.log.files.tools.dump import FrameSeen, walk
from fastq.log.files.tools.repair import carry_out, plan
from tests.engines import CLIENT, START_US, Hand, running
from tests.log.files.frames import HEAD_BYTES, Frame, change, flip, read_segment
from tests.log.files.jobs import contents, copy_of, log_of, segment_files, write_jobs


def run_repair(directory: Path, seq: int, *options: str) -> Result:
    words = ["log", "repair", str(directory), "--truncate-at", str(seq), *options]
    return CliRunner().invoke(main, words, catch_exceptions=False)


def replayed(directory: Path, below_seq: int) -> Core:
    """The state of a sound log before a frame."""
    core = empty_core()
    core.identify(read_segment(segment_files(directory)[0]).database_id)
    for seen in walk(directory):
        if isinstance(seen, FrameSeen) and not seen.is_copy and seen.seq < below_seq:
            core.replay(seen.records, seen.seq)
    return core


async def goes_on(directory: Path, ids: list[str], core: Core) -> None:
    """Check that a server starts with exactly the remaining jobs, and takes new ones."""
    async with running(log_of(directory), Hand()) as r:
        there = 0
        for job_id in ids:
            try:
                await r.ask.job(CLIENT, job_id)
                there += 1
            except JobNotFound:
                pass
        assert there == r.core.counts()["jobs"] == core.counts()["jobs"]
        await r.ask.submit(CLIENT, Submit(b"1"))
    assert read_whole(directory, empty_core()).torn == b""


@pytest.fixture(params=["killed", "stopped"])
def log(request: pytest.FixtureRequest, memory_path: Path) -> tuple[Path, list[str]]:
    ids = write_jobs(memory_path / "log", 30, lives=3, killed=request.param == "killed")
    return memory_path / "log", ids


def frames_of(directory: Path) -> list[tuple[Path, Frame]]:
    return [(path, frame) for path in segment_files(directory) for frame in read_segment(path).with_records]


def test_a_repair_cuts_at_any_damaged_frame(log: tuple[Path, list[str]]) -> None:
    """The log keeps everything before the damage, and nothing else; the rest is moved aside."""
    directory, ids = log
    damaged = 0
    for trial, (path, frame) in enumerate(frames_of(directory)[3:-4:7]):
        where = copy_of(directory, f"trial-{trial}")
        flip(where / path.name, frame.offset + (20 if trial % 2 else HEAD_BYTES + 9))
        try:
            read_whole(where, empty_core())
            continue  # a frame that is there once more, in a later start's segment
        except LogDamaged as error:
            seq = int(re.search(r"Frames up to (\d+) are", str(error))[1]) + 1  # type: ignore[index]
        damaged += 1
        before = contents(where)
        dry = run_repair(where, seq)
        assert dry.exit_code == 0 and "nothing was changed" in dry.stdout, dry.output
        assert contents(where) == before, "a dry run writes nothing"
        core = replayed(directory, seq)
        done = run_repair(where, seq, "--accept-loss")
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[:-1] == dry.stdout.splitlines()[:-1]
        left = empty_core()
        read_whole(where, left)
        assert left.state_hash() == core.state_hash()
        after = contents(where)
        aside = {name.partition("/")[2]: data for name, data in after.items() if name.startswith(f"given-up-{seq}-1/")}
        for name, data in before.items():
            if after.get(name) != data and name != "LOCK":
                assert aside[name] == data, "what changed is kept as it was"
        asyncio.run(goes_on(where, ids, core))
    assert damaged > 5


def test_a_repair_lists_the_losses(memory_path: Path) -> None:
    ids = write_jobs(memory_path / "log", 30, lives=1)
    sound = copy_of(memory_path / "log", "sound")
    path, frame = frames_of(memory_path / "log")[-12]
    flip(path, frame.offset + HEAD_BYTES + 9)
    told = run_repair(memory_path / "log", frame.seq).stdout
    jobs = dict(re.findall(r"^  job (\S+): (.*)$", told, re.MULTILINE))
    core, everything = replayed(sound, frame.seq), replayed(sound, 1 << 62)
    gone = everything.counts()["jobs"] - core.counts()["jobs"]
    assert gone > 0
    lost = {
        job_id
        for job_id, what in jobs.items()
        if "the job itself" in what or "the remaining log does not have it" in what
    }
    assert set(ids) >= lost and gone - 2 <= len(lost) <= gone
    assert any("the end of an attempt (ok)" in what for what in jobs.values())
    assert any("its lease" in what for what in jobs.values())
    assert f"{path}: offset {frame.offset}, " in told, "what cannot be read is named"
    assert f"given up: frames from {frame.seq} on: {path} from offset {frame.offset} on" in told


def test_a_missing_or_swapped_segment_or_a_damaged_head(log: tuple[Path, list[str]]) -> None:
    directory, ids = log
    for kind in ("missing", "swapped", "head", "zeroed"):
        where = copy_of(directory, kind)
        first, second, third = segment_files(where)[:3]
        if kind == "missing":
            second.unlink()
        elif kind == "swapped":
            kept = second.read_bytes()
            second.write_bytes(third.read_bytes())
            third.write_bytes(kept)
        elif kind == "head":
            flip(second, 30)
        else:
            change(second, 0, bytes(second.stat().st_size))
        refused = run_repair(where, 1)
        assert refused.exit_code == 65
        seq = int(re.search(r"--truncate-at (\d+)", refused.stderr)[1])  # type: ignore[index]
        assert seq == read_segment(first).with_records[-1].seq + 1
        core = replayed(directory, seq)
        assert run_repair(where, seq, "--accept-loss").exit_code == 0
        left = empty_core()
        read_whole(where, left)
        assert left.state_hash() == core.state_hash(), kind
        asyncio.run(goes_on(where, ids, core))


def test_a_repair_cuts_before_inconsistent_records(memory_path: Path) -> None:
    """Sound frames with impossible records: the cut is before them."""
    from fastq.log.files._flusher import fill_head

    write_jobs(memory_path, 20, lives=1, killed=True)
    path, frame = next(
        (path, frame) for path, frame in reversed(frames_of(memory_path)[:-3]) if frame.records[::12][:2] == b"\x08\x03"
    )  # the last that submits a batch
    data = bytearray(HEAD_BYTES) + frame.records
    data[HEAD_BYTES + 24 : HEAD_BYTES + 32] = (1).to_bytes(8, "little")  # job 1, once more
    crc = fill_head(
        data, seq=frame.seq, durable_seq=frame.durable_seq, epoch=frame.epoch, salt=frame.salt, segment=frame.segment,
        record_bytes=frame.record_bytes, count=frame.count, prev_crc=frame.prev_crc,
    )  # fmt: skip
    change(path, frame.offset, bytes(data))
    for later in [one for one in read_segment(path).frames if one.offset > frame.offset] or []:
        data = bytearray(HEAD_BYTES) + later.records
        crc = fill_head(
            data, seq=later.seq, durable_seq=later.durable_seq, epoch=later.epoch, salt=later.salt,
            segment=later.segment, record_bytes=later.record_bytes, count=later.count, prev_crc=crc, flags=later.flags,
        )  # fmt: skip
        change(path, later.offset, bytes(data))
    done = run_repair(memory_path, frame.seq, "--accept-loss")
    assert done.exit_code == 0, done.output
    read_whole(memory_path, empty_core())


def test_a_repair_writes_a_lost_trim_again(memory_path: Path) -> None:
    """The first segments were cleaned, and the TRIM record is given up: the repair writes it again."""
    ids = write_jobs(memory_path / "log", 60, lives=2, clean=True)
    first = segment_files(memory_path / "log")[0]
    frames = read_segment(first).with_records
    assert first.name != "segment-00000001"
    flip(first, frames[len(frames) // 2].offset + HEAD_BYTES + 9)
    seq = frames[len(frames) // 2].seq
    done = run_repair(memory_path / "log", seq, "--accept-loss")
    assert done.exit_code == 0, done.output
    core = empty_core()
    found = read_whole(memory_path / "log", core)
    assert found.next_seq == seq + 1 and core.oldest_frame == found.first_frame
    asyncio.run(goes_on(memory_path / "log", ids, core))


@pytest.mark.parametrize("options", [[], ["--accept-loss"], ["--truncate-at", "1"], ["--truncate-at", "999"]])
def test_a_sound_log_needs_no_repair(log: tuple[Path, list[str]], options: list[str]) -> None:
    directory, _ = log
    before = contents(directory)
    done = CliRunner().invoke(main, ["log", "repair", str(directory), *options])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{directory}: the log is sound and a server starts on it: there is nothing to repair\n"
    assert {name: data for name, data in contents(directory).items() if name != "LOCK"} == {
        name: data for name, data in before.items() if name != "LOCK"
    }


def test_a_repair_without_a_frame_says_which_one(log: tuple[Path, list[str]]) -> None:
    directory, _ = log
    path, frame = frames_of(directory)[8]
    flip(path, frame.offset + HEAD_BYTES + 9)
    done = CliRunner().invoke(main, ["log", "repair", str(directory)])
    assert done.exit_code == 65 and f"--truncate-at {frame.seq}" in done.stderr


def test_invalid_repairs_are_refused(log: tuple[Path, list[str]], tmp_path: Path) -> None:
    directory, _ = log
    last = frames_of(directory)[-1][1].seq
    for seq in (1, 5, last, last + 1, last + 100):
        with pytest.raises(RepairRefused, match="the log is sound"):
            plan(directory, seq)
    path, frame = frames_of(directory)[8]
    flip(path, frame.offset + HEAD_BYTES + 9)
    before = contents(directory)
    for seq in (1, frame.seq - 1, frame.seq + 1, last):
        for options in ([], ["--accept-loss"]):
            done = run_repair(directory, seq, *options)
            assert done.exit_code == 65 and f"--truncate-at {frame.seq}" in done.stderr
    assert run_repair(directory, 0).exit_code == 2
    assert {name: data for name, data in contents(directory).items() if name != "LOCK"} == {
        name: data for name, data in before.items() if name != "LOCK"
    }
    with pytest.raises(DirectoryFailed):
        plan(tmp_path, 3)


def test_a_log_without_its_beginning_is_not_repaired(log: tuple[Path, list[str]]) -> None:
    directory, _ = log
    first = segment_files(directory)[0]
    kept = first.read_bytes()
    frames = read_segment(first).with_records
    flip(first, frames[0].offset + 20)
    assert "no frame at the beginning is sound" in run_repair(directory, 1).stderr
    first.write_bytes(kept)
    flip(first, 30)
    assert "no frame at the beginning is sound" in run_repair(directory, 1).stderr
    first.unlink()
    done = run_repair(directory, frames_of(directory)[-1][1].seq + 1)
    missing = f"frames 1 to {frames[-1].seq} are missing: restore a backup"
    assert done.exit_code == 65 and missing in done.stderr


def test_a_killed_repair_can_be_repeated(log: tuple[Path, list[str]]) -> None:
    """After each change of a name a server refuses the directory, or the repair is done; the disk loses nothing."""
    directory, _ = log
    path, frame = frames_of(directory)[9]
    core = replayed(directory, frame.seq)
    flip(path, frame.offset + HEAD_BYTES + 9)
    calls, refused = 0, 0
    while True:
        calls += 1
        where = copy_of(directory, f"killed-{calls}")
        pid = os.fork()
        if pid == 0:
            die_at(calls)
            carry_out(where, plan(where, frame.seq), START_US)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        left = empty_core()
        try:
            read_whole(where, left)
            assert left.state_hash() == core.state_hash()
        except LogDamaged:
            refused += 1
            assert ended == 9
            assert run_repair(where, frame.seq, "--accept-loss").exit_code == 0, "it can be done again"
            read_whole(where, empty_core())
        if ended == 0:
            break
    assert refused > 2 and calls > 4


def die_at(call: int) -> None:
    """End this process at its n-th change of a name in the log's directory."""
    left = call
    real = {name: getattr(os, name) for name in ("rename", "link")}

    def dies(name: str) -> object:
        def one(*args: object) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                os._exit(9)
            return real[name](*args)

        return one

    os.rename, os.link = dies("rename"), dies("link")  # type: ignore[assignment]
