"""What is built from this checkout: the source distribution, the wheel made from it, and the lock files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fastq
from tests.house.tree import ROOT, text_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def run_python(cwd: Path, *argv: str, path: Path | None = None, **environ: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(path) if path else "", **environ}
    done = subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(what: str, source: Path, target: Path) -> Path:
    """Call the build backend as pip does, in the directory `source`; the file that it made in `target`.

    The compiler does not optimise: what is built is looked at and imported, and optimising takes most of the time.
    """
    target.mkdir()
    compiler = target.with_name("quick-cc")
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    hook = f"from setuptools import build_meta; build_meta.build_{what}({str(target)!r})"
    run_python(source, "-c", hook, CC=str(compiler))
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with nothing in it that a clone would not have."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    for path, _ in text_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    return build("sdist", checkout, checkout.parent / "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the source distribution, so that what is missing there is missed."""
    unpacked = sdist.parent.parent / "unpacked"
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python has no filters yet
        archive.extractall(unpacked)
    (source,) = unpacked.iterdir()
    return build("wheel", source, sdist.parent.parent / "wheel")


@pytest.mark.slow
def test_sdist_has_all_of_the_package(checkout: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    package = {path for path, _ in text_files("fastq")}
    assert package | {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert not {name for name in names if name.endswith((".so", ".c")) or name.startswith(("tests/", ".venv"))}


@pytest.mark.slow
def test_wheel_installs_and_runs(wheel: Path) -> None:
    assert re.match(r"fastq_queue-[\d.]+-cp311-cp311-linux_\w+\.whl|fastq_queue-[\d.]+-cp3\d+-", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(wheel.parent / "site")
    site = wheel.parent / "site"
    sources = {".pyx", ".pxd", ".pxi", ".c", ".h"}
    needed = {path for path, _ in text_files("fastq") if Path(path).suffix not in sources}
    assert needed <= set(names)
    assert not {name for name in names if Path(name).suffix in sources}
    extensions = {Path(path).with_suffix("") for path, _ in text_files("fastq") if path.endswith(".pyx")}
    assert extensions == {Path(name.split(".")[0]) for name in names if name.endswith(".so")}
    code = "import fastq, fastq._core, fastq.log.files._flusher as f; print(fastq.__version__); print(f.__file__)"
    version, file = run_python(wheel.parent, "-c", code, path=site).split()
    assert version == PROJECT["project"]["version"]
    assert Path(file).is_relative_to(site)
    assert "serve" in run_python(wheel.parent, "-m", "fastq", "--help", path=site)


def test_versions_agree() -> None:
    assert fastq.__version__ == PROJECT["project"]["version"]


def test_builds_everywhere_with_the_same_tools() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert sorted(PROJECT["build-system"]["requires"]) == sorted(extras["build"])


@pytest.mark.parametrize(("name", "extras"), [("run", ["build"]), ("dev", ["build", "test", "dev"])])
def test_lock_file_has_what_the_project_asks_for(name: str, extras: list[str]) -> None:
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    locked = {found[1].lower().replace("_", "-"): found[2] for found in LOCKED.finditer(lock)}
    wanted = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        wanted += PROJECT["project"]["optional-dependencies"][extra]
    for text in wanted:
        requirement = Requirement(text)
        version = locked[requirement.name.lower()]
        assert requirement.specifier.contains(version), f"{text} but {version} is locked"
    entries = re.split(r"\n(?=\S)", lock)
    assert all("--hash=sha256:" in entry for entry in entries if LOCKED.match(entry))


def test_lock_files_agree() -> None:
    both = [dict(LOCKED.findall((ROOT / "requirements" / f"{name}.txt").read_text())) for name in ("run", "dev")]
    assert both[0].items() <= both[1].items()
