"""Quick checks of Dockerfile, compose file, systemd unit and health check. `./dev container` runs the image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastq.server.settings import SETTINGS
from tests.house.container import instructions
from tests.house.tree import ROOT
from tests.served import Served, free_port

DOCKERFILE, UNIT = ROOT / "Dockerfile", ROOT / "deploy/fastq.service"
COMPOSE, COMPOSE_QUEUE = ROOT / "docker-compose.yml", ROOT / "docker-compose.queue.yml"
HADOLINT = Path(sys.executable).parent / "hadolint"
NAMES = {setting.name for setting in SETTINGS}
OF_PYTHON = {"PATH", "PYTHONDONTWRITEBYTECODE"}
EXPOSURE_MAX = 1.5  # of 10, in systemd's count


def run(*argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)


def last(word: str) -> str:
    return [rest for name, rest in instructions(DOCKERFILE.read_text()) if name == word][-1]


def test_the_dockerfile_has_no_findings(tmp_path: Path) -> None:
    done = run(HADOLINT, DOCKERFILE)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN sudo true\n")
    assert "DL3004" in run(HADOLINT, tmp_path / "Dockerfile").stdout


def test_the_image_runs_without_root_and_writes_to_one_volume() -> None:
    env = dict(part.split("=", 1) for part in last("ENV").split())
    assert set(env) <= NAMES | OF_PYTHON
    assert (env["HOST"], env["PORT"], env["WAL_DIR"]) == ("0.0.0.0", last("EXPOSE"), last("VOLUME"))
    assert int(last("USER").split(":")[0]) > 0
    assert json.loads(last("ENTRYPOINT")) + json.loads(last("CMD")) == ["fastq", "serve"]


def test_the_dockerfile_copies_existing_files_that_dockerignore_allows() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for word, rest in instructions(DOCKERFILE.read_text()):
        if word == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in let_in


needs_compose = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")


def services_of(path: Path) -> dict[str, str]:
    """name -> the service as docker-compose understands it."""
    done = run("docker-compose", "-f", path, "config")
    assert done.returncode == 0, done.stderr
    found = re.split(r"^  (?=\w+:$)", done.stdout.partition("services:")[2], flags=re.MULTILINE)[1:]
    return {text.partition(":")[0]: text for text in found}


def variables(service: str) -> dict[str, str]:
    block = re.search(r"environment:\n((?:      .+\n)+)", service)
    assert block is not None
    return dict(re.findall(r"^ {6}(\w+): (.*)$", block[1], re.MULTILINE))


@needs_compose
def test_compose_limits_the_server_and_prints_no_key() -> None:
    for path in (COMPOSE, COMPOSE_QUEUE):
        queue = services_of(path)["queue"]
        assert all(wanted in queue for wanted in ("read_only: true", "cap_drop:\n    - ALL", "queue-data:/data"))
        assert set(variables(queue)) <= NAMES
        assert variables(queue)["SEED_DEV_KEYS"] == '"false"'


@needs_compose
def test_compose_with_and_without_redis() -> None:
    both, one = services_of(COMPOSE), services_of(COMPOSE_QUEUE)
    assert (set(both) - {"volumes"}, set(one) - {"volumes"}) == ({"queue", "redis"}, {"queue"})
    assert (variables(both["queue"])["REDIS_URL"], "REDIS_URL" in one["queue"]) == ("redis:6379", False)
    assert "container_name: job-queue-redis" in both["redis"]
    assert re.search(r"- --appendonly\s+- ['\"]yes['\"]", both["redis"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_systemd_unit_is_valid_and_exposes_little(tmp_path: Path) -> None:
    text = UNIT.read_text()
    named = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
    assert {part.split("=")[0] for line in named for part in line.split()} <= NAMES | OF_PYTHON
    unit = tmp_path / "fastq.service"  # the program is not where the unit has it
    unit.write_text(text.replace("/opt/fastq/bin/fastq", "/bin/true"))
    verified = run("systemd-analyze", "verify", unit)
    assert "fastq.service" not in verified.stderr, verified.stderr
    unit.write_text(text.replace("PrivateTmp=", "PrivateTpm="))
    assert "PrivateTpm" in run("systemd-analyze", "verify", unit).stderr
    security = run("systemd-analyze", "security", "--offline=yes", UNIT).stdout
    exposure = re.search(r"Overall exposure level for fastq.service: ([0-9.]+)", security)
    assert exposure is not None, security
    assert float(exposure[1]) <= EXPOSURE_MAX


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_systemd_timer_starts_a_backup(tmp_path: Path) -> None:
    for name in ("fastq-backup.service", "fastq-backup.timer"):
        text = (ROOT / "deploy" / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/fastq/bin/fastq", "/bin/true"))
        verified = run("systemd-analyze", "verify", tmp_path / name)
        assert name not in verified.stderr, verified.stderr
    service = (ROOT / "deploy/fastq-backup.service").read_text()
    (command,) = re.findall(r"^ExecStart=/opt/fastq/bin/fastq (.*)$", service, re.MULTILINE)
    words = command.replace("/var/lib/fastq-backup", str(tmp_path)).split()
    refused = run(sys.executable, "-m", "fastq", *words, FASTQ_URL="http://127.0.0.1:1", FASTQ_KEY="admin_x")
    assert refused.returncode == 3, "the command and its options are right; no server is there"
    security = run("systemd-analyze", "security", "--offline=yes", ROOT / "deploy/fastq-backup.service").stdout
    exposure = re.search(r"Overall exposure level for fastq-backup.service: ([0-9.]+)", security)
    assert exposure is not None and float(exposure[1]) <= EXPOSURE_MAX, security


HEALTHCHECK = (sys.executable, ROOT / "deploy/healthcheck.py")


@pytest.mark.slow
def test_the_health_check(tmp_path: Path) -> None:
    with Served(tmp_path / "data") as server:
        done = run(*HEALTHCHECK, PORT=str(server.port))
        assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
        done = run(*HEALTHCHECK, PORT=str(server.port), TLS_CERT="/cert.pem")
        assert done.returncode == 1, "the server speaks no TLS"
    done = run(*HEALTHCHECK, PORT=str(free_port()))
    assert (done.returncode, "refused" in done.stderr) == (1, True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_health_check_with_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=queue.example", "-days", "2",
        "-keyout", key, "-out", cert,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with Served(tmp_path / "data", TLS_CERT=str(cert), TLS_KEY=str(key)) as server:
        done = run(*HEALTHCHECK, PORT=str(server.port), TLS_CERT=str(cert))
        assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
