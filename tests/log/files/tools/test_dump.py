"""`fastq log dump`: it describes every type of record, shows no secret, and walks past damage."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fastq import _core
from fastq._core import describe_records, job_number
from fastq.cli import main
from fastq.log.files.tools.dump import EndSeen, FrameSeen, GapSeen, walk
from tests.house.tree import ROOT
from tests.log.files.frames import HEAD_BYTES, checked, flip, read_segment
from tests.log.files.jobs import segment_files, write_jobs

DATABASE_ID = bytes(range(16))
PXD = "\n".join(path.read_text() for path in sorted((ROOT / "fastq/core").glob("*.pxd")))


def enum(name: str) -> dict[str, int]:
    """Names and values of an enum of the core."""
    body = re.search(rf"^cdef enum {name}:.*\n((?:    .*\n)+)", PXD, re.MULTILINE)
    assert body is not None, name
    return {word: int(value) for word, value in re.findall(r"^    (\w+) = (\d+)", body[1], re.MULTILINE)}


RECORD_TYPES = {name: value for name, value in enum("RecordType").items() if not name.startswith("RECORD_")}


def record(kind: int, body: bytes, flags: int = 0) -> bytes:
    covered = {RECORD_TYPES["GROUP"]: 12, RECORD_TYPES["JOB"]: 32}.get(kind)
    return checked(struct.pack("<BBHII", kind, _core.RECORD_VERSION, flags, 12 + len(body), 0) + body, covered)


def lines_of(directory: Path, *options: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, ["log", "dump", str(directory), "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def flat(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All records, also those within others."""
    found = []
    for line in lines:
        found.append(line)
        found += flat(line.get("records", []))
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_jobs(tmp_path / "log", 60, lives=3)
    return tmp_path / "log"


# --- descriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORD_TYPES)
def test_every_type_of_record_is_described(name: str) -> None:
    inner = b"" if name in ("GROUP", "JOB") else bytes(304)
    body = bytes(20) + record(RECORD_TYPES["SUBMIT"], bytes(64)) if name == "JOB" else inner
    (described,) = describe_records(record(RECORD_TYPES[name], body), DATABASE_ID)
    assert described["type"] == name
    assert "unknown" not in described and "damaged" not in described, described
    assert len(described) > 2, "only its name and length"


OUTCOME_WORDS = {"EXPIRED": "lease_expired", "DISCARD": "discarded", "SNOOZE": "snoozed", "RELEASE": "released"}


@pytest.mark.parametrize("name", enum("Outcome"))
def test_every_outcome_has_a_name(name: str) -> None:
    close = struct.pack("<QIHBBq", 1, 1, 1, enum("Outcome")[name], 4, 0)
    (described,) = describe_records(record(RECORD_TYPES["CLOSE"], close), DATABASE_ID)
    word = name.removeprefix("OUTCOME_")
    assert described["outcome"] == OUTCOME_WORDS.get(word, word.lower())


@pytest.mark.parametrize("name", enum("Change"))
def test_every_change_has_a_name(name: str) -> None:
    change = struct.pack("<QBBHq", 1, enum("Change")[name], 2, 1, 0)
    (described,) = describe_records(record(RECORD_TYPES["CHANGE"], change), DATABASE_ID)
    assert described["what"] == name.removeprefix("CHANGE_").lower()


def test_unknown_records_are_shown_as_unknown() -> None:
    unknown_type, unknown_flag, cut, damaged = (
        record(200, b"abc"), record(RECORD_TYPES["FORGET"], bytes(16), flags=1 << 15),
        record(RECORD_TYPES["LEASE"], b"abc"), b"\3\1\0\0\xff" + bytes(7),
    )  # fmt: skip
    described = describe_records(unknown_type + unknown_flag + cut + damaged, DATABASE_ID)
    assert [set(each) & {"unknown", "damaged"} for each in described[:3]] == [{"unknown"}, {"unknown"}, {"damaged"}]
    assert described[3] == {"type": "damaged", "bytes": 12}


def test_a_dump_never_reads_past_a_record() -> None:
    """Every prefix of every type, all flags set, in memory of exactly that size."""
    for kind in RECORD_TYPES.values():
        for flags in (0, 1, 0xFFFF, *(1 << i for i in range(16))):
            for size in range(0, 90, 3):
                describe_records(record(kind, bytes([size] * size), flags), DATABASE_ID, bodies=True)


# --- a real log -------------------------------------------------------------------------------------------------------


def test_a_dump_holds_every_frame_and_record(log: Path) -> None:
    lines = lines_of(log)
    written = [frame for path in segment_files(log) for frame in read_segment(path).with_records]
    shown = [line for line in lines if line["type"] == "frame"]
    assert [(line["seq"], line["offset"], line["record_bytes"]) for line in shown] == [
        (frame.seq, frame.offset, frame.record_bytes) for frame in written
    ]
    records = [line for line in lines if "seq" in line and line["type"] != "frame"]
    assert Counter(line["seq"] for line in records) == {frame.seq: frame.count for frame in written}
    kinds = Counter(each["type"] for each in flat(records))
    assert {"RESUME", "SUBMIT", "LEASE", "CLOSE", "EXTEND", "GROUP", "DOCUMENT", "FORGET"} <= kinds.keys()
    assert not any("unknown" in each or "damaged" in each for each in flat(records))
    assert not [line for line in lines if "damaged" in line["type"]]


@pytest.mark.slow
def test_moved_jobs_and_trims_are_shown(tmp_path: Path) -> None:
    write_jobs(tmp_path, 60, clean=True)
    records = flat(lines_of(tmp_path))
    kinds = Counter(each["type"] for each in records)
    assert kinds["JOB"] > 0 and kinds["TRIM"] > 0
    moved = next(each for each in records if each["type"] == "JOB")
    assert moved["records"][0]["job_id"] and moved["state"]


def test_a_dump_of_some_frames(log: Path) -> None:
    def shown(seqs: str) -> list[int]:
        return [line["seq"] for line in lines_of(log, "--seq", seqs) if line["type"] == "frame"]

    assert shown("5..7") == [5, 6, 7]
    assert shown("5") == [5]
    assert shown("..3") == [1, 2, 3]
    assert shown("9999..") == []
    for wrong in ("7..5", "x", "1..y", "-1"):
        done = CliRunner().invoke(main, ["log", "dump", str(log), "--seq", wrong])
        assert done.exit_code == 2 and "'--seq'" in done.output


def test_a_dump_of_one_job(tmp_path: Path) -> None:
    ids = write_jobs(tmp_path, 40)
    dump = flat([line for line in lines_of(tmp_path) if "seq" in line])
    job = next(each["job"] for each in dump if each.get("job_id") == ids[3])
    shown = flat(lines_of(tmp_path, "--job", ids[3]))
    assert shown == flat(lines_of(tmp_path, "--job", str(job)))
    about = [each for each in shown if each["type"] not in ("frame", "GROUP")]
    assert about and all(each.get("job") == job or job in each["jobs"] for each in about)
    assert len(about) == sum(each.get("job") == job or job in each.get("jobs", ()) for each in dump)
    done = CliRunner().invoke(main, ["log", "dump", str(tmp_path), "--job", "01a20d8a-fe0b-7115-8000-000000000000"])
    assert done.exit_code == 2 and "not a job id" in done.output
    assert job_number("nonsense", DATABASE_ID) == 0


def test_bodies_are_shown_only_on_request(log: Path) -> None:
    for options in ([], ["--json"]):
        quiet = CliRunner().invoke(main, ["log", "dump", str(log), *options]).stdout
        assert "canary" not in quiet
        loud = CliRunner().invoke(main, ["log", "dump", str(log), "--payloads", *options]).stdout
        for canary in ("payload-canary", "result-canary", "boom-canary", "body-canary"):
            assert canary in loud


def test_neither_the_database_id_nor_a_salt_is_shown(log: Path) -> None:
    """Tokens could be forged with the id, frames with the salt."""
    heads = [read_segment(path) for path in segment_files(log)]
    assert heads
    for options in ([], ["--json"], ["--payloads"]):
        shown = CliRunner().invoke(main, ["log", "dump", str(log), *options]).stdout
        shown += CliRunner().invoke(main, ["log", "check", str(log), *options[:1]]).stdout
        for head in heads:
            salt = struct.pack("<Q", head.salt)
            for secret in (head.database_id, salt, salt[::-1]):
                assert secret.hex() not in shown and base64.b64encode(secret).decode() not in shown
            assert str(head.salt) not in shown and f"{head.salt:x}" not in shown


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_dump_goes_on_after_damage(log: Path) -> None:
    path = segment_files(log)[1]
    frames = read_segment(path).with_records
    broken = frames[2]
    for where in (broken.offset + HEAD_BYTES + 5, broken.offset + 20):  # its records, then its head too
        flip(path, where)
        seen = list(walk(log))
        seqs = {each.seq for each in seen if isinstance(each, FrameSeen)}
        everything = {each.seq for each in [frame for one in segment_files(log) for frame in all_frames(one)]}
        assert broken.seq not in seqs and everything - seqs == {broken.seq}
        (gap,) = [each for each in seen if isinstance(each, GapSeen)]
        assert (gap.segment, gap.offset, gap.end) == (2, broken.offset, frames[3].offset)
        line = next(line for line in lines_of(log) if line["type"] == "damaged")
        assert line["offset"] == broken.offset and line["segment"] == 2


def all_frames(path: Path) -> list[Any]:
    """All frames with records, also after a damaged one."""
    data, found = path.read_bytes(), []
    for at in range(4096, len(data) - HEAD_BYTES, 512):
        magic, _, flags, seq = struct.unpack_from("<IHHQ", data, at)
        if magic == 0x4D524651 and not flags:
            found.append(type("At", (), {"seq": seq, "offset": at}))
    return found


def test_a_segment_without_a_sound_head_is_one_gap(log: Path) -> None:
    flip(segment_files(log)[1], 20)
    seen = list(walk(log))
    (gap,) = [each for each in seen if isinstance(each, GapSeen)]
    assert (gap.segment, gap.offset, gap.end) == (2, 0, segment_files(log)[1].stat().st_size)
    assert any(isinstance(each, FrameSeen) and each.segment > 2 for each in seen)


def test_a_torn_tail_is_shown(tmp_path: Path) -> None:
    write_jobs(tmp_path, 5, lives=1, killed=True)
    path = next(path for path in reversed(segment_files(tmp_path)) if read_segment(path).frames)
    last = read_segment(path).frames[-1]
    flip(path, last.offset + HEAD_BYTES + 5)
    ends = [each for each in walk(tmp_path) if isinstance(each, EndSeen) and each.rest_bytes]
    assert [(end.offset, end.why) for end in ends] == [(last.offset, "bad records")]


@pytest.mark.slow
def test_a_dump_walks_past_any_damage(log: Path) -> None:
    """No wrong byte makes it raise, loop, or show wrong content."""
    path = segment_files(log)[0]
    written = {frame.seq: frame.records for one in segment_files(log) for frame in read_segment(one).with_records}
    end = read_segment(path).frames[-1].offset + HEAD_BYTES
    for at in range(0, end, 37):
        flip(path, at, at % 8)
        for seen in walk(log):
            if isinstance(seen, FrameSeen):
                assert bytes(seen.records) == written[seen.seq]
        flip(path, at, at % 8)
