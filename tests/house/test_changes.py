"""Each change has a fragment in changes/; CHANGELOG.md contains released versions only."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

import fastq
from tests.house.tree import ROOT

TOWNCRIER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
TYPES = [each["directory"] for each in TOWNCRIER["type"]]
NAME = re.compile(rf"\+[a-z0-9]+(-[a-z0-9]+)*\.({'|'.join(TYPES)})\.md")
NEXT = re.compile(r"The next version is (\d[\d.]*\d)")
LINES_MAX = 5
FRAGMENTS = sorted(path for path in (ROOT / "changes").iterdir() if path.name != "README.md")


def faults(name: str, text: str) -> Iterator[str]:
    if not NAME.fullmatch(name):
        yield f"{name}: the name must be +NAME.TYPE.md, TYPE one of {', '.join(TYPES)}"
    if not text.rstrip().endswith(".") or not text.endswith("\n"):
        yield f"{name}: the text must end with a full stop and a newline"
    if len(text.splitlines()) > LINES_MAX:
        yield f"{name}: the text has more than {LINES_MAX} lines"
    if text.lstrip().startswith(("-", "*", "#")):
        yield f"{name}: the text must be prose; the release puts it into a list"


def unreleased(changelog: str) -> str:
    """The text between the marker and the newest version."""
    return changelog.partition(TOWNCRIER["start_string"])[2].partition("\n## ")[0].strip()


def test_fragments_are_well_formed() -> None:
    found = [fault for path in FRAGMENTS for fault in faults(path.name, path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("17.added.md", "A thing.\n"),
        ("+thing.feature.md", "A thing.\n"),
        ("+A_thing.added.md", "A thing.\n"),
        ("+thing.added.txt", "A thing.\n"),
        ("+thing.added.md", "A thing\n"),
        ("+thing.added.md", ""),
        ("+thing.added.md", "- A thing.\n"),
        ("+thing.added.md", "A thing.\n" * 6),
    ],
)
def test_a_bad_fragment_is_found(name: str, text: str) -> None:
    assert list(faults(name, text))


def test_the_change_log_has_released_versions_only() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert TOWNCRIER["start_string"] in changelog
    assert not unreleased(changelog), "a change of the next version is a file in changes/"
    assert unreleased(changelog + "- a change\n\n## 0.0.1 (2026-01-01)\n") == "- a change"


def test_the_change_log_names_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    coming = NEXT.search(changelog)
    assert f"\n## {fastq.__version__} (" in changelog or (coming and coming[1] == fastq.__version__)


def test_towncrier_takes_every_fragment() -> None:
    argv = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", fastq.__version__]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n- ") == len(FRAGMENTS)
