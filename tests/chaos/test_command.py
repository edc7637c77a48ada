"""The command `fastq chaos`, on its own server and on a given one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastq.chaos.verdict import FAILED, ZERO_LOSS
from tests.served import ROOT, Served, free_port

pytestmark = pytest.mark.slow

RUN_S = 120


def chaos(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "fastq", "chaos", "--report", str(directory / "report.html"), *arguments)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTQ_")}
    return subprocess.run(
        command, cwd=ROOT, env=kept | {"TMPDIR": str(directory)} | environ, capture_output=True, text=True,
        timeout=RUN_S, check=False,
    )  # fmt: skip


def test_zero_loss(tmp_path: Path) -> None:
    done = chaos(tmp_path, "-jobs", "300", "-workers", "4", "-kills", "2", "-kill-interval", "200ms", "--kill-clients")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{ZERO_LOSS}\n" in done.stdout
    assert "submitted:  300\n" in done.stdout
    assert ZERO_LOSS in (tmp_path / "report.html").read_text()
    assert not list(tmp_path.glob("fastq-chaos-*")), "its directory is removed"


def test_a_loss(tmp_path: Path) -> None:
    serve = f"{sys.executable} -m tests.chaos.losing serve"
    done = chaos(tmp_path, "--jobs", "300", "--workers", "4", "--kills", "2", "--serve-cmd", serve)
    assert done.returncode == 1
    assert FAILED in done.stdout
    assert ZERO_LOSS not in done.stdout
    assert FAILED in (tmp_path / "report.html").read_text()
    (left,) = tmp_path.glob("fastq-chaos-*")
    assert str(left) in done.stderr
    assert (left / "stderr").exists()


def test_load_alone_on_a_given_server(tmp_path: Path) -> None:
    """Without a kill command nothing is killed, and every job is accounted for."""
    with Served(tmp_path / "data") as server:
        target = ("-target", f"http://127.0.0.1:{server.port}", "-key", server.keys["admin"])
        done = chaos(tmp_path, *target, "-jobs", "200", "-workers", "4")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"\n{ZERO_LOSS}\n" in done.stdout
        assert "submitted:  200\n" in done.stdout
        assert server.stop() == 0


def test_few_jobs(tmp_path: Path) -> None:
    """There are no more kills than jobs, unless somebody asks for them."""
    done = chaos(tmp_path, "-jobs", "3", "-workers", "1")
    assert "--jobs must be more" not in done.stderr
    assert "submitted:  3\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--jobs", "5", "--kills", "5"], "--jobs must be more than --kills"),
        (["--target", "http://127.0.0.1:1", "--key", "admin_x", "--kills", "1"], "--kill-cmd"),
        (["--target", "ftp://x", "--key", "admin_x", "--kills", "0"], "url must be"),
        (["--target", "http://127.0.0.1:1", "--kills", "0"], "a key is needed"),
        (["--kill-cmd", "true"], "need --target"),
        (["--target", "http://127.0.0.1:1", "--key", "k", "--kills", "0", "--cleaning"], "--cleaning"),
        (["--kill-interval", "soon"], "is not a duration"),
    ],
)
def test_invalid_arguments_are_refused(arguments: list[str], why: str, tmp_path: Path) -> None:
    done = chaos(tmp_path, *arguments)
    assert done.returncode == 2
    assert why in done.stderr
    assert not (tmp_path / "report.html").exists()


# --- a target server --------------------------------------------------------------------------------------------------


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """A server's URL, the command that kills it, and the command that starts it again."""
    port, pid = free_port(), tmp_path / "pid"
    key_file = tmp_path / "admin.key"
    key_file.write_text("admin_" + "k" * 32)
    settings = f"PORT={port} WAL_DIR={tmp_path / 'data'} SEED_DEV_KEYS=false ADMIN_KEY_FILE={key_file}"
    kill = f"kill -9 $(cat {pid})"
    start = f"cd {ROOT} && exec env {settings} sh -c 'echo $$ >{pid}; exec {sys.executable} -m fastq serve'"
    first = subprocess.Popen(start, shell=True, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while not first.stdout.readline().startswith("  curl "):
        assert first.poll() is None
    try:
        yield f"http://127.0.0.1:{port}", kill, start
    finally:
        subprocess.run(kill, shell=True, check=False)
        first.wait()
        first.stdout.close()


def test_a_target_server_is_killed_and_restarted_by_commands(restarted: tuple[str, str, str], tmp_path: Path) -> None:
    url, kill, start = restarted
    how = ("-kills", "2", "-kill-cmd", kill, "-restart-cmd", start)
    done = chaos(tmp_path, "-target", url, "-jobs", "300", "-workers", "4", *how, FASTQ_KEY="admin_" + "k" * 32)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ZERO_LOSS in done.stdout


def test_a_kill_command_without_effect_fails_the_run(tmp_path: Path) -> None:
    with Served(tmp_path / "data") as server:
        target = ("--target", f"http://127.0.0.1:{server.port}", "--key", server.keys["admin"])
        done = chaos(tmp_path, *target, "--jobs", "100", "--workers", "4", "--kills", "1", "--kill-cmd", "true")
        assert done.returncode == 1
        assert "kill 1: the server is the same process as before" in done.stdout
        assert ZERO_LOSS not in done.stdout
        watched = chaos(tmp_path, *target, "--jobs", "100", "--workers", "4", "--kills", "0")
        assert watched.returncode == 0, watched.stdout
        assert server.keys["admin"] not in done.stdout + done.stderr + (tmp_path / "report.html").read_text()
