"""What every test may rely on: this checkout is the one that is imported, and the environment sets nothing."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis

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

# Speed differs too much between machines, and under sanitizers, for a deadline an example.
hypothesis.settings.register_profile("fastq", deadline=None, print_blob=True)
hypothesis.settings.load_profile("fastq")
