"""What the README tells people to type works as it is written there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.served import ROOT, Served


def test_a_worker_and_a_client_in_python(tmp_path: Path) -> None:
    section = re.search(r"## From Python\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)
    assert section is not None
    lines = [line[4:] for line in section[1].splitlines() if line.startswith("    ") or not line]
    _, worker, client = "\n".join(lines).split("import fastq\n")
    with Served(tmp_path / "data", WAL_SEGMENT_BYTES="4MiB") as server:
        env = os.environ | {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "LD_PRELOAD": ""}

        def started(code: str, key: str) -> subprocess.Popen[str]:
            argv = [sys.executable, "-c", f"import fastq\n{code}"]
            return subprocess.Popen(argv, env=env | {"FASTQ_KEY": server.keys[key]}, stdout=subprocess.PIPE, text=True)

        working = started(worker, "worker")
        asking = started(client, "client")
        try:
            assert asking.communicate(timeout=60)[0] == "ACKED sent to ann@example.org\n"
        finally:
            working.terminate()
            working.communicate(timeout=60)
        assert working.returncode == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_first_five_minutes(tmp_path: Path) -> None:
    lines = re.findall(r"^    (curl .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    submit, lease, ack, ask = lines[:4]
    with Served(tmp_path / "data", WAL_SEGMENT_BYTES="4MiB") as server:
        known = {"LD_PRELOAD": ""}  # the sanitizer's library (./dev asan) is for Python only
        known |= {"CLIENT": server.keys["client"], "WORKER": server.keys["worker"]}

        def type_in(line: str) -> str:
            assert "localhost:8080" in line
            typed = line.replace("localhost:8080", f"localhost:{server.port}")
            command = ["sh", "-ec", typed]
            return subprocess.run(command, env=os.environ | known, capture_output=True, text=True, check=True).stdout

        job_id = json.loads(type_in(submit))["job_id"]
        leased = json.loads(type_in(lease))
        assert leased["job_id"] == job_id
        known |= {"ID": job_id, "TOKEN": leased["lease_token"]}
        assert type_in(ack) == ""
        assert json.loads(type_in(ask))["state"] == "ACKED"
        server.kill()
        server.start()
        assert json.loads(type_in(ask))["state"] == "ACKED"
