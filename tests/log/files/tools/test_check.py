"""`fastq log check`: its verdict agrees with a start, and it writes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastq.cli import main
from fastq.errors import DirectoryLocked, LogDamaged, UnsupportedFormat
from fastq.log.files.segments import lock_directory, view_directory
from fastq.log.files.tools.check import DAMAGED, SOUND, TORN, UNKNOWN, check_log
from tests.engines import Hand, running
from tests.log.files.frames import HEAD_BYTES, SEGMENT, change, crc, flip, read_segment
from tests.log.files.jobs import contents, copy_of, log_of, segment_files, write_jobs


def run_check(directory: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["log", "check", str(directory), *options])


def starts(directory: Path) -> str:
    """The verdict of a start: SOUND, TORN, DAMAGED or UNKNOWN."""
    log = log_of(directory)
    engine = running(log, Hand()).engine
    try:
        opened = engine.open()
    except LogDamaged:
        return DAMAGED
    except UnsupportedFormat:
        return UNKNOWN
    log._release()
    return TORN if opened.bytes_cut else SOUND


@pytest.fixture(params=["killed", "stopped"])
def log(request: pytest.FixtureRequest, memory_path: Path) -> Path:
    write_jobs(memory_path / "log", 30, killed=request.param == "killed")
    return memory_path / "log"


def bytes_in_use(log: Path) -> int:
    """Heads of the segments with records, and the blocks of each frame, once if there is a copy of it."""
    segments = [segment for path in segment_files(log) if (segment := read_segment(path)).with_records]
    frames = {frame.seq: (HEAD_BYTES + frame.record_bytes, s.align) for s in segments for frame in s.with_records}
    return 4096 * len(segments) + sum(-(-size // align) * align for size, align in frames.values())


def test_a_sound_log(log: Path) -> None:
    before = contents(log)
    done = run_check(log)
    assert done.exit_code == 0 and done.stdout.startswith("sound: a server would start")
    told = json.loads(run_check(log, "--json").stdout)
    assert contents(log) == before, "a check writes nothing"
    frames = [frame for path in segment_files(log) for frame in read_segment(path).with_records]
    assert told["verdict"] == SOUND
    assert told["frames"] == told["last_seq"] == frames[-1].seq
    prepared = sum(path.stat().st_size for path in segment_files(log))
    assert told["bytes"] == bytes_in_use(log) < prepared
    assert told["records"] == sum({frame.seq: frame.count for frame in frames}.values())
    engine = running(log_of(log), Hand()).engine
    engine.open()
    assert told["jobs"] == {state: n for state, n in engine.counts().items() if n}


@pytest.mark.slow
def test_check_and_start_agree(log: Path) -> None:
    """Bits flipped, ranges zeroed, files cut, at random: check and start agree on each."""
    rng, counts = random.Random(4), Counter[str]()
    used = [path for path in segment_files(log) if read_segment(path).frames]
    for trial in range(150):
        path = rng.choice(used)
        end = read_segment(path).frames[-1].offset + HEAD_BYTES
        data = path.read_bytes()
        kind = rng.choice(["flip", "zero", "cut"])
        if kind == "flip":
            flip(path, rng.randrange(end), rng.randrange(8))
        elif kind == "zero":
            change(path, rng.randrange(end), bytes(rng.choice([1, 64, 512])))
        else:
            os.truncate(path, rng.randrange(end))
        before = contents(log)
        report = check_log(log)
        assert contents(log) == before
        done = run_check(log)
        assert done.exit_code == (65 if report.message else 0), done.output
        assert report.verdict == starts(copy_of(log, f"copy-{trial}")), (kind, path.name, report.message)
        counts[report.verdict] += 1
        path.write_bytes(data)
    assert counts[DAMAGED] > 20 and counts.keys() <= {DAMAGED, SOUND, TORN}
    assert check_log(log).verdict == SOUND


def test_a_torn_tail(memory_path: Path) -> None:
    write_jobs(memory_path, 10, lives=1, killed=True)
    path = next(path for path in reversed(segment_files(memory_path)) if read_segment(path).with_records)
    last = read_segment(path).with_records[-1]
    flip(path, last.offset + HEAD_BYTES + 3)
    done = run_check(memory_path)
    assert done.exit_code == 0
    assert f"{path}: offset {last.offset}: a torn tail of " in done.stdout
    told = json.loads(run_check(memory_path, "--json").stdout)
    assert told["verdict"] == TORN and told["torn"]["offset"] == last.offset and told["last_seq"] == last.seq - 1
    assert starts(memory_path) == TORN


def test_damage_is_reported_with_the_losses_after_it(log: Path) -> None:
    path = segment_files(log)[1]
    frames = read_segment(path).with_records
    broken = frames[1]
    flip(path, broken.offset + HEAD_BYTES + 3)
    done = run_check(log)
    assert done.exit_code == 65
    assert f"{path}: offset {broken.offset}: a frame's records are damaged" in done.stdout
    told = json.loads(run_check(log, "--json").stdout)
    assert told["damage"]["segment"] == 2 and told["damage"]["offset"] == broken.offset
    assert told["damage"]["sound_seq"] == broken.seq - 1
    last = [frame for one in segment_files(log)[2:] for frame in read_segment(one).with_records][-1]
    assert told["behind"]["first_seq"] == broken.seq + 1 and told["behind"]["last_seq"] == last.seq
    assert told["behind"]["frames"] == last.seq - broken.seq and told["behind"]["jobs"] > 0


def test_a_missing_and_a_swapped_segment(log: Path) -> None:
    first, second, third = segment_files(log)[:3]
    kept = second.read_bytes()
    second.unlink()
    done = run_check(log)
    assert done.exit_code == 65 and "segment 2 is missing" in done.stdout
    second.write_bytes(third.read_bytes())
    third.write_bytes(kept)
    done = run_check(log)
    assert done.exit_code == 65 and f"{second}: offset 0: this is segment 3 under another name" in done.stdout
    first.unlink()
    assert run_check(log).exit_code == 65


def test_a_later_version_is_reported_as_unknown(log: Path) -> None:
    path = segment_files(log)[0]
    head = bytearray(path.read_bytes()[: SEGMENT.size])
    head[8] = 4
    head[-4:] = crc(bytes(head[:-4])).to_bytes(4, "little")
    change(path, 0, bytes(head))
    done = run_check(log)
    assert done.exit_code == 65 and done.stdout.startswith("unknown format: ")


def test_a_directory_without_a_log_is_refused(tmp_path: Path) -> None:
    for command in ("check", "dump"):
        assert CliRunner().invoke(main, ["log", command, str(tmp_path)]).exit_code == 74
        assert CliRunner().invoke(main, ["log", command, str(tmp_path / "absent")]).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_check_and_a_server_exclude_each_other(log: Path) -> None:
    server = lock_directory(log)
    for command in ("check", "dump"):
        done = CliRunner().invoke(main, ["log", command, str(log)])
        assert done.exit_code == 75
        assert f"in use by process {os.getpid()}: stop the server first" in done.stderr
    os.close(server)
    viewer = view_directory(log)
    assert run_check(log).exit_code == 0, "two may look"
    with pytest.raises(DirectoryLocked, match="in use by a command that reads it"):
        lock_directory(log)
    os.close(viewer)
    os.close(lock_directory(log))


def test_a_check_holds_its_lock_while_it_reads(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def spy(directory: Path) -> object:
        with (directory / "LOCK").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return check_log(directory)

    monkeypatch.setattr("fastq.cli.log.check_log", spy)
    assert run_check(log).exit_code == 0
    assert held == [True]


def test_an_inconsistent_state_is_reported(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check walks over the core's structures."""
    monkeypatch.setattr("fastq.log.files.tools.check.empty_core", Contrary)
    with pytest.raises(AssertionError, match="contradiction"):
        check_log(log)


class Contrary:
    """A core whose structures do not agree."""

    oldest_frame = 1

    def __getattr__(self, name: str) -> object:
        return lambda *_: 0

    def identify(self, _: bytes) -> None:
        pass

    def replay(self, records: memoryview, *_: int) -> int:
        return records_in(bytes(records))

    def check(self) -> None:
        raise AssertionError("contradiction")


def records_in(data: bytes) -> int:
    at = count = 0
    while at < len(data):
        at += int.from_bytes(data[at + 4 : at + 8], "little")
        count += 1
    return count
