"""The public names of `fastq`, and what importing it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastq


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(fastq, name) is not None for name in fastq.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fastq.Nothing  # type: ignore[attr-defined]


def test_the_server_does_not_import_the_sdk() -> None:
    code = "import sys, fastq.server.run; print([name for name in sys.modules if name.startswith('fastq.client')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
