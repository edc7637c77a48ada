"""Commands that are killed at any of their calls that change a file, and on a disk that is full from that call on.

Run again, each does what it would have done, or says what to do. The source is unharmed, and nothing is left behind.
FASTQ_KILL_STEP=1 takes each call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastq.engine.documents import DocumentKind
from fastq.errors import DirectoryFailed, LogDamaged
from fastq.log.files.segments import RESTORING
from fastq.log.files.tools.check import empty_core, read_whole
from fastq.services.keys.records import digest_of
from tests.cli.test_import_wal import UNFINISHED, WAL
from tests.kills.commands import KILLED, Commands, Ended, build_library, calls
from tests.log.files.frames import HEAD_BYTES, flip
from tests.log.files.jobs import contents, copy_of, write_jobs
from tests.log.files.tools.test_repair import frames_of, replayed
from tests.served import Served

pytestmark = pytest.mark.slow

STEP = int(os.environ.get("FASTQ_KILL_STEP", "7"))
FAULTS = ["KILLED_AT", "FULL_AT"]
SMALL = {"FASTQ_WAL_SEGMENT_BYTES": "4MiB"}
OF_A_DIRECTORY = re.compile(r"database|fence|LOCK|segment-\d+|spare-\d+|trends\.db(-\w+)?")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    directory = tmp_path_factory.mktemp("commands")
    with Commands(build_library(directory), directory) as running:
        yield running


@pytest.fixture
def log(memory_path: Path) -> Path:
    write_jobs(memory_path / "log", 30, lives=2, killed=True)
    return memory_path / "log"


def state_of(directory: Path) -> int:
    core = empty_core()
    read_whole(directory, core)
    core.check()
    return core.state_hash()


def has_failed(done: Ended, fault: str) -> bool:
    """Whether the fault ended the command. Checks that it told so."""
    if fault == "KILLED_AT":
        assert done.code in (0, KILLED), done
    else:
        assert done.code in (0, 1, 70, 74) and "Traceback" not in done.err, done
        assert done.code == 0 or (done.err.count("\n") == 1 and "no space left" in done.err.lower()), done
    return done.code != 0


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# --- backup and restore -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_backup_is_whole_or_absent(commands: Commands, log: Path, tmp_path: Path, fault: str) -> None:
    source = contents(log)
    for call in calls(STEP):
        target = tmp_path / f"{call}.tar"
        done = commands.run("backup", "--offline", log, target, **{fault: call})
        has_ended = not has_failed(done, fault)
        if not target.exists():
            assert not has_ended
            again = commands.run("backup", "--offline", log, target)
            assert again.code == 0, again
        assert [path.name for path in tmp_path.iterdir()] == [target.name], "what the kill left is gone"
        restored = commands.run("restore", target, tmp_path / "restored")
        assert restored.code == 0, restored
        shutil.rmtree(tmp_path / "restored")
        target.unlink()
        if has_ended:
            break
    assert contents(log) == source


def test_the_next_backup_removes_what_a_killed_one_of_another_name_left(
    commands: Commands, log: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.partial-17").write_text("of another program")
    for call in (2, 4):  # before its first byte, and after
        assert commands.run("backup", "--offline", log, tmp_path / "monday.tar", KILLED_AT=call).code == KILLED
        assert len(names(tmp_path)) == 2
        assert commands.run("backup", "--offline", log, tmp_path / "tuesday.tar").code == 0
        assert names(tmp_path) == ["report.partial-17", "tuesday.tar"]
        (tmp_path / "tuesday.tar").unlink()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_restore_is_whole_or_refused(commands: Commands, log: Path, memory_path: Path, fault: str) -> None:
    tar, state, refused = memory_path / "backup.tar", state_of(log), 0
    assert commands.run("backup", "--offline", log, tar).code == 0
    archive = tar.read_bytes()
    for call in calls(STEP):
        target = memory_path / "restored" / "data"
        done = commands.run("restore", tar, target, **{fault: call})
        has_ended = not has_failed(done, fault)
        if (target / "LOCK").exists() and len(names(target)) > 1 and state_if_whole(target) != state:
            refused += 1
            assert not has_ended
            using = [("log", "check", target), ("keys", "list", "--offline", target), ("serve",)]
            told = commands.run(*using[refused % 3], WAL_DIR=target, PORT=0)
            assert told.code == 74 and f"fastq restore BACKUP {target}" in told.err, told
        again = commands.run("restore", tar, target)
        assert again.code == 0 or (again.code == 73 and "is not empty: it holds 'database'" in again.err), again
        assert state_of(target) == state
        assert all(OF_A_DIRECTORY.fullmatch(name) for name in names(target)), names(target)
        shutil.rmtree(target.parent)
        if has_ended:
            break
    assert tar.read_bytes() == archive
    assert refused > 10 // STEP or fault == "FULL_AT"


def state_if_whole(directory: Path) -> int | None:
    try:
        return state_of(directory)
    except DirectoryFailed:
        return None


def test_a_restore_removes_no_other_file(commands: Commands, log: Path, memory_path: Path) -> None:
    tar, target = memory_path / "backup.tar", memory_path / "restored"
    assert commands.run("backup", "--offline", log, tar).code == 0
    assert commands.run("restore", tar, target, KILLED_AT=8).code == KILLED
    assert (target / RESTORING).exists()
    (target / "notes").write_text("mine")
    told = commands.run("restore", tar, target)
    assert told.code == 73 and "holds 'notes'" in told.err
    (target / "notes").unlink()
    assert commands.run("restore", tar, target).code == 0


# --- repair -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_repair_goes_on_where_it_was_killed(commands: Commands, log: Path, fault: str, tmp_path: Path) -> None:
    path, frame = frames_of(log)[9]
    core = replayed(log, frame.seq)
    flip(path, frame.offset + HEAD_BYTES + 9)
    before = {name: data for name, data in contents(log).items() if name.startswith("segment-")}
    words = ("--truncate-at", frame.seq, "--accept-loss")
    for call in calls(STEP):
        where = copy_of(log, f"repaired-{call}")
        done = commands.run("log", "repair", where, *words, TMPDIR=tmp_path, **{fault: call})
        has_ended = not has_failed(done, fault)
        left = empty_core()
        try:
            read_whole(where, left)
            assert left.state_hash() == core.state_hash()
        except LogDamaged:
            assert not has_ended
        again = commands.run("log", "repair", where, *words)
        assert again.code == 0, again
        assert state_of(where) == core.state_hash()
        (aside,) = where.glob("*-up-*")
        assert aside.name == f"given-up-{frame.seq}-1"
        assert {
            file.name: file.read_bytes() for file in aside.iterdir() if file.name in before
        }.items() <= before.items()
        assert set(before.values()) <= set(contents(where).values()), "nothing is deleted"
        top = [file.name for file in where.iterdir() if file != aside]
        assert all(OF_A_DIRECTORY.fullmatch(name) for name in top), top
        assert not list(aside.glob("*.new"))
        shutil.rmtree(where)
        if has_ended:
            break
    assert not list(tmp_path.iterdir()), "no temporary files elsewhere"


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The directory of a server that was killed, a key in it, and its secret."""
    directory = tmp_path_factory.mktemp("keys") / "data"
    with Served(directory, WAL_SEGMENT_BYTES="4MiB") as server:
        for n in range(20):
            server.submit(server.keys["client"], n)
        secret = server.keys["worker"]
        _, keys = server.call(server.keys["admin"], "GET", "/admin/keys")
        server.kill()
    return directory, next(key["key_id"] for key in keys if key["type"] == "worker"), secret


def is_stored(directory: Path, secret: str) -> bool:
    core = empty_core()
    read_whole(directory, core)
    assert core.counts()["jobs"] == 20
    return any(digest_of(secret).encode() in body for body in core.documents(DocumentKind.API_KEY).values())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ["create", "rotate", "revoke"])
def test_a_change_of_keys_is_made_or_repeated(
    commands: Commands, stopped: tuple[Path, str, str], memory_path: Path, what: str, fault: str
) -> None:
    source, key_id, secret = stopped
    words = {"create": ("create", "--name", "n", "--owner", "o", "--type", "client")}.get(what, (what, key_id))
    for call in calls(STEP * 3 - 2):
        directory = Path(shutil.copytree(source, memory_path / "data"))
        command = ("keys", *words, "--offline", directory, "--json")
        done = commands.run(*command, **SMALL, **{fault: call})
        has_ended = not has_failed(done, fault)
        printed = [json.loads(line)["key"] for line in done.out.splitlines() if what != "revoke"]
        assert all(is_stored(directory, one) for one in printed), "what was printed holds"
        again = commands.run(*command, **SMALL)
        assert again.code == 0, again
        shown = commands.run("keys", "list", "--offline", directory, "--json")
        listed = {key["key_id"]: key for key in map(json.loads, shown.out.splitlines())}
        if what == "revoke":
            assert "revoked_at" in listed[key_id]
        else:
            assert is_stored(directory, json.loads(again.out)["key"])
        if what == "create":
            assert all(is_stored(directory, one) for one in printed), "also after a second one"
            alike = [key_id for key_id, key in listed.items() if key["name"] == "n"]
            assert len(alike) == 1 + again.err.count("was never used"), "a key that nobody has seen is named"
        if what == "rotate":
            assert printed or is_stored(directory, secret), "a second rotation does not end the secret in use"
        top = names(directory)
        assert all(OF_A_DIRECTORY.fullmatch(name) for name in top), top
        shutil.rmtree(directory)
        if has_ended:
            break


# --- import-wal -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served") / "data") as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS)
def test_an_import_of_the_original_log_submits_each_job_once(
    commands: Commands, served: Served, tmp_path: Path, fault: str
) -> None:
    wal, archive = tmp_path / "jobs.wal", tmp_path / "finished.jsonl"
    where = {"FASTQ_URL": f"http://127.0.0.1:{served.port}", "FASTQ_KEY": served.keys["admin"]}
    for call in calls(STEP):
        wal.write_bytes(WAL.replace(b'"job_id": "', b'"job_id": "%s-%d-' % (fault.encode(), call)))
        before, queue = wal.read_bytes(), f"{fault}-{call}"
        command = ("import-wal", wal, "--queue", queue, "--archive", archive)
        done = commands.run(*command, **where, **{fault: call})
        has_ended = not has_failed(done, fault)
        assert not archive.exists() or archive.read_bytes().count(b"\n") == 2, "it is whole or absent"
        again = commands.run(*command, **where)
        assert again.code == 0, again
        _, found = served.call(served.keys["admin"], "GET", f"/jobs?queue={queue}")
        tags = [job["tags"][0].removeprefix(f"original:{fault}-{call}-") for job in found["jobs"]]
        assert sorted(tags) == sorted(UNFINISHED), again
        assert wal.read_bytes() == before, "the source is unharmed"
        assert names(tmp_path) == ["finished.jsonl", "jobs.wal", "jobs.wal.imported"]
        archive.unlink()
        wal.with_name("jobs.wal.imported").unlink()
        if has_ended:
            break


def test_an_import_never_writes_its_archive_over_the_log(commands: Commands, tmp_path: Path) -> None:
    wal = tmp_path / "jobs.wal"
    wal.write_bytes(WAL)
    done = commands.run("import-wal", wal, "--archive", wal, FASTQ_KEY="admin_x")
    assert done.code == 2 and "the log itself" in done.err
    assert wal.read_bytes() == WAL


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_an_export_keeps_the_file_before_it_until_it_is_whole(
    commands: Commands, served: Served, tmp_path: Path, fault: str
) -> None:
    where = {"FASTQ_URL": f"http://127.0.0.1:{served.port}", "FASTQ_KEY": served.keys["admin"]}
    output, queue = tmp_path / "jobs.jsonl", f"export-{fault}"
    for n in range(5):
        served.submit(served.keys["client"], n, queue=queue)
    for call in calls(1):
        output.write_text("the last export\n")
        command = ("export", "--queue", queue, "-o", output)
        has_ended = not has_failed(commands.run(*command, **where, **{fault: call}), fault)
        content = output.read_text()
        assert content == "the last export\n" or content.count("\n") == 5
        assert commands.run(*command, **where).code == 0
        assert output.read_text().count("\n") == 5 and names(tmp_path) == ["jobs.jsonl"]
        if has_ended:
            break
