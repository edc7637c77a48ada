"""`fastq backup DIRECTORY --keep N`: names by time, and which old backups are removed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fastq.log.files.tools.rotation import next_path, remove_old
from tests.cli.conftest import Run
from tests.served import Served

DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Backups of two databases."""
    root = tmp_path_factory.mktemp("databases")
    for name in ("ours", "another"):
        with Served(root / name):
            pass
    return root / "ours", root / "another"


def offline(run: Run, data: Path, destination: Path, *more: str) -> list[str]:
    done = run("backup", "--offline", str(data), str(destination), *more)
    assert done.code == 0, done.err
    return done.lines


def days(run: Run, data: Path, directory: Path, count: int) -> list[Path]:
    """So many backups, one a day."""
    paths = [next_path(directory, number * DAY_US) for number in range(count)]
    for path in paths:
        offline(run, data, path)
    return paths


def test_a_backup_of_a_running_server_is_named_by_its_time(run: Run, tmp_path: Path) -> None:
    done = run("backup", str(tmp_path))
    assert done.code == 0, done.err
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"fastq-\d{8}T\d{6}Z\.tar", path.name) and done.out.startswith(f"{path}: everything up to")
    assert run("restore", str(path), str(tmp_path / "restored")).code == 0


def test_the_oldest_backups_are_removed(archives: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    paths = days(run, archives[0], tmp_path, 4)
    lines = offline(run, archives[0], tmp_path, "--keep", "3")
    assert lines[1:] == [f"{path}: removed" for path in paths[:2]]
    assert sorted(tmp_path.iterdir())[:2] == paths[2:] and len(list(tmp_path.iterdir())) == 3


def test_other_files_and_backups_of_another_database_stay(
    archives: tuple[Path, Path], run: Run, tmp_path: Path
) -> None:
    ours, another = archives
    old = next_path(tmp_path, 0)
    offline(run, another, old)
    by_hand, foreign, link, below = (
        tmp_path / "monday.tar", next_path(tmp_path, DAY_US), next_path(tmp_path, 2 * DAY_US),
        next_path(tmp_path, 3 * DAY_US),
    )  # fmt: skip
    offline(run, ours, by_hand)
    foreign.write_bytes(b"")
    os.symlink(by_hand, link)
    below.mkdir()
    lines = offline(run, ours, tmp_path, "--keep", "1")
    assert len(lines) == 1
    assert {old, by_hand, foreign, link, below} < set(tmp_path.iterdir())


def test_the_new_backup_stays_though_the_clock_went_back(archives: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    later, now = next_path(tmp_path, 200 * 365 * DAY_US), next_path(tmp_path, DAY_US)
    for path in (later, now):
        offline(run, archives[0], path)
    assert remove_old(now, 1) == [later] and list(tmp_path.iterdir()) == [now]


def test_a_backup_that_fails_removes_nothing(archives: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    paths = days(run, archives[0], tmp_path, 2)
    done = run("backup", str(tmp_path), "--keep", "1", key="client")
    assert done.code == 1
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize(("name", "words"), [("absent", ["--keep", "2"]), ("", ["--keep", "0"])])
def test_keep_needs_a_directory_and_a_number(name: str, words: list[str], run: Run, tmp_path: Path) -> None:
    done = run("backup", str(tmp_path / name), *words)
    assert done.code == 2 and "--keep" in done.err and not list(tmp_path.iterdir())
