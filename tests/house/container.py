"""Build and run the Dockerfile without a container engine: its steps in chroots, then its image, and kill it.

    python -m tests.house.container DIRECTORY        (as root; `./dev container`)

Debian's python3 (debootstrap) replaces the base image. The image runs with a read-only root, as the user that the
Dockerfile names, without capabilities; a job is submitted, the server killed with -9 and started again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.house.tree import ROOT
from tests.served import free_port

BASE_PACKAGES = "python3,python3-venv,python3-dev,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PASSED_ON = ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def instructions(text: str) -> list[tuple[str, str]]:
    """(word, rest) of each instruction of a Dockerfile, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


@dataclass
class Image:
    """A stage: a file system, and the Dockerfile's settings to run it."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    workdir: str = "/"
    user: str = "0:0"
    words: dict[str, str] = field(default_factory=dict)

    def inside(self, path: str) -> Path:
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def run(self, command: str) -> None:
        env = self.env | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        script = f"cd {shlex.quote(self.workdir)} && {command}"
        subprocess.run(["chroot", str(self.root), "/bin/sh", "-c", script], env=env, check=True)

    def copy(self, sources: list[Path], target: str) -> None:
        place = self.inside(target)
        into = target.endswith("/") or len(sources) > 1
        (place if into else place.parent).mkdir(parents=True, exist_ok=True)
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=_ignored)
            else:
                shutil.copy2(source, place / source.name if into else place)


def _ignored(directory: str, names: list[str]) -> set[str]:
    """The files that .dockerignore excludes; none of a stage's own files."""
    if not directory.startswith(f"{ROOT}/fastq"):
        return set()
    return {name for name in names if name == "__pycache__" or name.endswith((".so", ".c"))}


def base_image(directory: Path) -> Path:
    """Debian with a python at the official image's path; made once."""
    base = directory / "base"
    if not (base / "usr/local/bin/python").is_symlink():
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(base)], check=True
        )
        (base / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        if CERTIFICATES.exists():
            shutil.copy2(CERTIFICATES, base / str(CERTIFICATES).lstrip("/"))
    return base


def build(directory: Path) -> Image:
    """The last stage of the Dockerfile."""
    base, stages = base_image(directory), dict[str, Image]()
    image = Image(base)
    for word, rest in instructions((ROOT / "Dockerfile").read_text()):
        print(f"-- {word} {rest}"[:100], flush=True)
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "final"
            root = directory / name
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["cp", "-a", str(base), str(root)], check=True)
            image = stages[name] = Image(root)
        elif word == "RUN":
            image.run(rest)
        elif word == "COPY":
            *sources, target = rest.split()
            above = ROOT
            if sources[0].startswith("--from="):
                above = stages[sources.pop(0).removeprefix("--from=")].root
            image.copy([above / source.lstrip("/") for source in sources], target)
        elif word == "ENV":
            image.env |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word == "WORKDIR":
            image.workdir = rest
            image.inside("").mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            image.user = rest
        else:
            image.words[word] = rest
    return image


class Container:
    """`with Container(image, volume, port) as one:` runs its command: root read-only, the volume, /proc and /dev."""

    def __init__(self, image: Image, volume: Path, port: int) -> None:
        self._image = image
        self._env = [f"{name}={value}" for name, value in (image.env | {"PORT": str(port)}).items()]
        root, data = shlex.quote(str(image.root)), shlex.quote(str(volume))
        self._mounts = " && ".join(
            [
                f"mount --bind {root} {root}",
                f"mount --bind {data} {root}{image.words['VOLUME']}",
                f"mount -t proc proc {root}/proc",
                f"mount --rbind /dev {root}/dev",
                f"mount -o remount,bind,ro {root}",
            ]
        )
        self.lines: list[str] = []

    def _command(self, argv: list[str]) -> list[str]:
        """The command as the image's user, without capabilities."""
        as_user = ["chroot", f"--userspec={self._image.user}", str(self._image.root), "env", "-i", *self._env, *argv]
        script = f"{self._mounts} && exec {shlex.join(as_user)}"
        return ["unshare", "--mount", "--pid", "--fork", "/bin/sh", "-c", script]

    def __enter__(self) -> Self:
        argv = json.loads(self._image.words["ENTRYPOINT"]) + json.loads(self._image.words["CMD"])
        self._process = subprocess.Popen(self._command(argv), stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("  curl "):
                break
        return self

    def __exit__(self, *_: object) -> None:
        """Kill with -9, as `docker kill`. The starter waits for the container's first process, and ends with it."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        os.kill(int(children), signal.SIGKILL)
        self._process.wait()

    def also(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        """Run another command in such a container."""
        return subprocess.run(self._command(argv), capture_output=True, text=True, check=False)


def call(port: int, key: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    image = build(directory)
    volume, port = directory / "volume", free_port()
    shutil.rmtree(volume, ignore_errors=True)
    shutil.copytree(image.root / image.words["VOLUME"].lstrip("/"), volume)  # as an engine fills a new volume
    user, group = map(int, image.user.split(":"))
    os.chown(volume, user, group)
    health = json.loads(image.words["HEALTHCHECK"].partition("CMD ")[2])
    with Container(image, volume, port) as container:
        print("\n".join(container.lines))
        key = next(line.split()[3] for line in container.lines if line.startswith("Created client"))
        job_id = call(port, key, "/jobs", {"payload": "work"})["job_id"]
        checked = container.also(health)
        assert checked.returncode == 0, checked
        for path in ("/opt/fastq/x", "/tmp/x", "/x", "/etc/x"):
            refused = container.also(["python", "-c", f"open({path!r}, 'w')"])
            assert "Read-only file system" in refused.stderr, refused
    assert container.also(health).returncode == 1, "the server is gone"
    with Container(image, volume, port) as container:
        print("\n".join(container.lines))
        job = call(port, key, f"/jobs/{job_id}")
        assert job["state"] == "READY", job
    print(f"killed with -9, started again, and the job is there: {job}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
