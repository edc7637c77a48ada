"""The examples run as their README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fastq
from tests.served import ROOT, Served

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("examples") / "data") as server:
        yield server


def start(server: Served, key: str, *argv: str) -> subprocess.Popen[str]:
    secret = server.keys[key]
    env = os.environ | {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "FASTQ_KEY": secret}
    path = str(EXAMPLES / argv[0])
    return subprocess.Popen(
        [sys.executable, path, *argv[1:]], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(server: Served, *argv: str, key: str = "client") -> str:
    process = start(server, key, *argv)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out


@contextmanager
def working(server: Served, *argv: str) -> Iterator[subprocess.Popen[str]]:
    process = start(server, "worker", *argv)
    try:
        yield process
    finally:
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err


def test_simple(server: Served) -> None:
    with working(server, "simple_worker.py"):
        said = run(server, "simple_client.py")
    assert said.endswith("ACKED after 1 attempt(s): sent to ann@example.org\n")


def test_video_processing(server: Served) -> None:
    with working(server, "video_processing.py", "work"):
        assert run(server, "video_processing.py", "submit") == "holiday.720p.mp4: 50.0 MB\n"


def test_batch_submit(server: Served) -> None:
    assert run(server, "batch_submit.py") == "1002 jobs; the owner's copy was there already\n"


def test_custom_results(server: Served) -> None:
    with working(server, "custom_results.py", "work"):
        said = run(server, "custom_results.py", "submit")
    assert said.splitlines() == [
        "paid: ACKED after 1 attempt(s), {'receipt': 'r-995'}",
        "declined: DEAD after 2 attempt(s), the card was declined",
        "bank is closed: ACKED after 2 attempt(s), paid in the end",
        "not an account: DEAD after 1 attempt(s), there is no such account",
    ]


def test_pipeline(server: Served) -> None:
    with working(server, "pipeline.py", "work") as worker:
        assert run(server, "pipeline.py", "submit") == "order 7 is fetched, the next step is on its way\n"
        assert worker.stdout is not None
        assert worker.stdout.readline() == "order 7: fetched, packed, shipped\n"


def test_cron(server: Served) -> None:
    first, second = run(server, "cron.py", key="admin").splitlines()
    assert re.fullmatch(r"next at \d{4}-\d\d-\d\d 0[01]:30:00\+00:00", first)
    assert second == "and once now: READY"


def test_taskiq(server: Served) -> None:
    env = os.environ | {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "FASTQ_KEY": server.keys["admin"]}
    argv = [sys.executable, "-m", "taskiq", "worker", "--app-dir", str(EXAMPLES), "taskiq_app:broker", "--workers", "1"]
    worker = subprocess.Popen(argv, env=env)
    try:
        said = run(server, "taskiq_app.py", key="admin")
    finally:
        worker.terminate()
        worker.wait(PATIENCE_S)
    assert said.splitlines() == [
        "sums: 0 2 4", "half a second later: 42", "failed: ValueError('no card for 995 cents')",
    ]  # fmt: skip


def test_django(server: Served) -> None:
    with working(server, "django_site/manage.py", "fastq_worker"):
        said = run(server, "django_site/send.py")
    assert said.splitlines() == [
        "sent to ann@example.org", "month 11, attempt 2", "what went wrong before: RuntimeError",
    ]  # fmt: skip


@contextmanager
def web(server: Served) -> Iterator[str]:
    """fastapi_app.py on a port that the system chose: its URL."""
    env = os.environ | {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "FASTQ_KEY": server.keys["client"]}
    argv = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(EXAMPLES), "--port", "0"]
    process = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def ask(url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def test_fastapi(server: Served) -> None:
    with web(server) as url:
        mail = {"to": "ann@example.org", "text": "hello"}
        status, answer = ask(f"{url}/mails", mail, **{"Idempotency-Key": "click-1"})
        assert status == 202
        assert ask(f"{url}/mails", mail, **{"Idempotency-Key": "click-1"}) == (202, answer)
        mine = f"{url}/mails/{answer['job_id']}"
        assert ask(mine) == (200, {"state": "READY", "result": None, "error": ""})
        with fastq.Client(f"http://127.0.0.1:{server.port}", server.keys["worker"]) as client:
            (job,) = client.lease(["mail"], limit=2)
            assert job.payload == mail
            client.ack(job, "sent")
        assert ask(mine) == (200, {"state": "ACKED", "result": "sent", "error": ""})
        assert ask(f"{url}/mails/nothing") == (404, {"detail": "no such mail"})
        assert ask(f"{url}/mails", {"to": "ann@example.org"})[0] == 422


def test_the_tested_worker() -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_my_worker.py")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout


def test_readme_names_them_all() -> None:
    named = set(re.findall(r"^\| `(\w+\.py)`", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert named == {path.name for path in Path(EXAMPLES).glob("*.py")}
    assert "`django_site/`" in (EXAMPLES / "README.md").read_text()
