"""What `fastq` offers, and what importing it costs a server."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastq


def test_every_name_is_there() -> None:
    assert all(getattr(fastq, name) is not None for name in fastq.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fastq.Nothing  # type: ignore[attr-defined]


def test_a_server_imports_none_of_it() -> None:
    code = "import sys, fastq.server.run; print([name for name in sys.modules if name.startswith('fastq.client')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
