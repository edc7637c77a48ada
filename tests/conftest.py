"""What every test may rely on: this checkout is the one that is imported, and the environment sets nothing."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Servers that tests start as processes of their own run this checkout's code too, whatever their directory.
os.environ["PYTHONPATH"] = str(ROOT)

# fastq is configured by environment variables: those of the person who runs the tests must not reach it.
# Nor what sets how Python runs: with PYTHONUNBUFFERED, no test of what reaches a pipe first can fail.
KEPT = {"HOME", "LANG", "LC_ALL", "PATH", "PYTHONMALLOC", "PYTHONPATH", "TMPDIR", "TZ"}
KEPT_PREFIXES = ("ASAN_", "COVERAGE_", "FASTQ_", "LD_", "PYTEST_", "UBSAN_")
for name in list(os.environ):
    if name not in KEPT and not name.startswith(KEPT_PREFIXES):
        del os.environ[name]

# A shell that runs the tests in its background, or nohup, makes them ignore signals, and a program inherits that.
# One with a handler is set to its default in a program that is started.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

# Speed differs too much between machines, and under sanitizers, for a deadline an example.
hypothesis.settings.register_profile("fastq", deadline=None, print_blob=True)
hypothesis.settings.load_profile("fastq")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in what a test logged: pytest-xdist sends it as UTF-8 and ends when it cannot."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory, for tests of the files' content, not of the device."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)
