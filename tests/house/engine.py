"""Build the image and run the compose files with a real container engine; kill them with -9 and start them again.

    python -m tests.house.engine DIRECTORY        (as root, on Debian; `./dev container --engine`)

Starts dockerd on a data directory below DIRECTORY if no engine runs. If no registry can be reached, images of Debian's
packages replace those that the Dockerfile and the compose file name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.house.container import CERTIFICATES, PASSED_ON, base_image, instructions
from tests.house.tree import ROOT
from tests.served import free_port

NEEDED = {"dockerd": "docker.io", "docker-compose": "docker-compose", "debootstrap": "debootstrap"}
PROJECT = "fastq-trial"
LISTENS = "API listen on"
STARTED = "  curl "  # the last line that a server prints at its start
CLIENT = ["--name", "c", "--owner", "o", "--type", "client"]
REDIS_IMAGE = "redis:7.4-alpine"

# They behave as the images that they replace: a `python`, and a Redis that listens on the network.
BASE_STAND_IN = "fastq-trial-debian"
PYTHON_STAND_IN = f"""
FROM {BASE_STAND_IN}
ENV PIP_CERT={CERTIFICATES}
"""
REDIS_STAND_IN = f"""
FROM {BASE_STAND_IN}
RUN apt-get update && apt-get install -y --no-install-recommends redis-server
RUN printf '#!/bin/sh\\nexec "$@" --protected-mode no --bind 0.0.0.0\\n' >/entry && chmod +x /entry
WORKDIR /data
ENTRYPOINT ["/entry"]
"""


def run(*argv: str, text: str | None = None) -> str:
    """Run a command and return its standard output. Raises CalledProcessError; errors go to standard error."""
    done = subprocess.run(argv, cwd=ROOT, input=text, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def works(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def engine_runs() -> bool:
    return shutil.which("docker") is not None and works("docker", "info")


def lacking_packages() -> list[str]:
    """The packages that are missing to start an engine."""
    return [package for program, package in NEEDED.items() if shutil.which(program) is None]


# --- an engine --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[None]:
    """Use the running engine, or start one for this context."""
    if engine_runs():
        yield
        return
    os.environ["DOCKER_HOST"] = f"unix://{directory}/docker.sock"
    argv = ["dockerd", "--host", os.environ["DOCKER_HOST"], "--pidfile", f"{directory}/dockerd.pid", "--bridge", "none"]
    argv += ["--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr, (directory / "dockerd.log").open("w") as log:
        for line in process.stderr:
            log.write(line)
            if LISTENS in line:
                break
        copier = threading.Thread(target=shutil.copyfileobj, args=(process.stderr, log))
        copier.start()
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            copier.join()
            subprocess.run(
                ["umount", f"{directory}/exec/netns/default"], capture_output=True, check=False
            )  # left behind


# --- images -----------------------------------------------------------------------------------------------------------


def base_names() -> list[str]:
    """The images that the Dockerfile and the compose file take from a registry."""
    text = (ROOT / "Dockerfile").read_text()
    return [*dict.fromkeys(rest.split()[0] for word, rest in instructions(text) if word == "FROM"), REDIS_IMAGE]


def missing_images() -> list[str]:
    return [name for name in base_names() if not works("docker", "image", "inspect", name)]


def get_images(directory: Path) -> None:
    for name in missing_images():
        if not works("docker", "pull", name):
            print(f"-- {name} cannot be pulled: Debian's packages stand in for it", flush=True)
            _stand_in(name, directory)


def _stand_in(name: str, directory: Path) -> None:
    if not works("docker", "image", "inspect", BASE_STAND_IN):
        root = base_image(directory)
        for path in ("etc/apt/apt.conf.d", "etc/apt/sources.list.d", "etc/pip.conf"):
            source = Path("/", path)
            if source.is_dir():
                shutil.copytree(source, root / path, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy2(source, root / path)
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
            subprocess.run(["docker", "import", "-", BASE_STAND_IN], stdin=archive.stdout, check=True)
    text = REDIS_STAND_IN if name == REDIS_IMAGE else PYTHON_STAND_IN
    run("docker", "build", "--quiet", "--network", "host", "--tag", name, "-", text=text)


def build() -> None:
    passed = [f"--build-arg={name}" for name in PASSED_ON if name in os.environ]
    run("docker", "build", "--quiet", "--network", "host", "--tag", PROJECT, *passed, ".")


# --- compose ----------------------------------------------------------------------------------------------------------


@dataclass
class Composed:
    """A compose file's services under names and a port of their own."""

    file: str
    directory: Path

    def __post_init__(self) -> None:
        os.environ["FASTQ_PORT"] = str(free_port())
        services = {"queue": {"image": PROJECT}}
        if "redis:" in (ROOT / self.file).read_text():
            services["redis"] = {"container_name": f"{PROJECT}-redis"}
        self._changes = self.directory / "changes.yml"
        self._changes.write_text(json.dumps({"services": services}))
        self.starts = 0

    def __call__(self, *arguments: str) -> str:
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        files = ["-f", self.file, "-f", str(self._changes)]
        return run(*program, "--ansi", "never", "-p", PROJECT, *files, *arguments)

    def up(self) -> None:
        """Start, and wait until the server has printed its last start line."""
        self("up", "-d", "--no-build")
        self.starts += 1
        left = self.starts
        argv = ["docker", "logs", "--follow", self.container()]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as logs:
            assert logs.stdout is not None
            for line in logs.stdout:
                left -= line.startswith(STARTED)
                if not left:
                    break
            logs.kill()
        assert not left, f"the server did not start: {self('logs', '--no-color')}"

    def container(self) -> str:
        return self("ps", "-q", "queue").strip()

    def inside(self, *argv: str) -> str:
        """Run a command in the server's container."""
        return self("exec", "-T", "queue", *argv)

    def fastq(self, key: str, *arguments: str) -> str:
        return self("exec", "-T", "-e", f"FASTQ_KEY={key}", "queue", "fastq", *arguments)

    def read_only(self) -> None:
        for path in ("/opt/fastq/x", "/etc/x"):
            done = self.inside("sh", "-c", f"touch {path} 2>&1 || true")
            assert "Read-only file system" in done, done


def survives(file: str, directory: Path) -> None:
    """Check that keys and jobs survive a kill of every service."""
    compose = Composed(file, directory)
    try:
        compose.up()
        admin = compose.inside("cat", "/data/admin.key").strip()
        made = json.loads(compose.fastq(admin, "keys", "create", "--json", *CLIENT))
        job_id = json.loads(compose.fastq(made["key"], "submit", "--json", '"work"'))["job_id"]
        assert compose.inside("python", "/opt/fastq/healthcheck.py") == "200\n"
        compose.read_only()
        compose("kill")
        compose.up()
        job = json.loads(compose.fastq(made["key"], "job", "show", "--payload", "--json", job_id))
        assert (job["state"], job["payload"]) == ("READY", "work"), job
        said = compose("logs", "--no-color")
        assert admin not in said and made["key"] not in said, "a key stands in a log that others may read"
        compose("stop")
        state = json.loads(
            run("docker", "inspect", "--format", "{{json .State}}", compose("ps", "-aq", "queue").strip())
        )
        assert state["ExitCode"] == 0, state
    finally:
        compose("down", "--volumes")


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    print(f"-- {what}: {time.monotonic() - began_s:.0f} s", flush=True)


def main(directory: Path) -> None:
    if not engine_runs() and (packages := lacking_packages()):
        sys.exit(f"missing: apt-get install --no-install-recommends {' '.join(packages)} iptables")
    directory.mkdir(parents=True, exist_ok=True)
    with engine(directory):
        with timed("images that the files name"):
            get_images(directory)
        with timed("docker build"):
            build()
        for file in ("docker-compose.yml", "docker-compose.queue.yml"):
            with timed(f"{file}: started, killed with -9, started again; keys and the job are there"):
                survives(file, directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
