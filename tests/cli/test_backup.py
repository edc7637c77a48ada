"""`fastq backup` and `fastq restore` with real servers: under load, while the log is cleaned, and with kill -9."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import pytest

from tests.served import END_S, ROOT, Served, ending

pytestmark = pytest.mark.slow

SETTINGS = {
    "WAL_SEGMENT_BYTES": "4MiB", "WAL_SLACK_BYTES": "16MiB", "RETENTION_ACKED": "1s", "LEASE_CHECK_INTERVAL": "100ms",
}  # fmt: skip
FASTQ = (sys.executable, "-m", "fastq")


def environ(server: Served, key: str) -> dict[str, str]:
    return os.environ | {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "FASTQ_KEY": key}


def fastq(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*FASTQ, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=END_S * 4, check=False)


class Load:
    """Threads that submit, lease and ack, and record the answers, until the block ends or the server dies."""

    def __init__(self, server: Served, keys: dict[str, str]) -> None:
        self._server, self._keys = server, keys
        self._stopping = threading.Event()
        self.submitted: list[str] = []
        self.acked: set[str] = set()
        self.errors: list[object] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(END_S)
        assert not self.errors

    def wait_for(self, submitted: int) -> None:
        event = threading.Event()
        for _ in range(3000):
            if len(self.submitted) >= submitted or self.errors:
                return
            event.wait(0.02)
        raise AssertionError(f"only {len(self.submitted)} batches went through")

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._step()
        except OSError:  # the server was killed
            pass
        except Exception as error:  # noqa: BLE001 -- for the test to see
            self.errors.append(error)

    def _step(self) -> None:
        jobs = [{"payload": "x" * 4000, "queue": queue} for queue in ("kept", *["churn"] * 9)]
        status, body = self._server.call(self._keys["client"], "POST", "/jobs/batch", {"jobs": jobs})
        if status in (429, 503):
            return
        assert status == 201, body
        self.submitted.append(body["job_ids"][0])
        status, body = self._server.call(
            self._keys["worker"], "POST", "/jobs/lease", {"max": 9, "queues": ["churn"], "worker_id": "w"}
        )
        acks = [{"job_id": job["job_id"], "lease_token": job["lease_token"], "result": 1} for job in body["jobs"]]
        if acks:
            status, body = self._server.call(self._keys["worker"], "POST", "/jobs/ack", {"acks": acks})
            self.acked.update(one["job_id"] for one in body["results"] if one.get("ok"))


def fill(server: Served, size: int) -> None:
    """Submit jobs of `size` bytes in all."""
    left = size
    while left > 0:
        jobs = [{"payload": "x" * 100_000}] * 10
        status, body = server.call(server.keys["client"], "POST", "/jobs/batch", {"jobs": jobs})
        assert status in (201, 503), body
        left -= 1_000_000 * (status == 201)


def states_in(directory: Path, key: str, ids: list[str], **settings: str) -> list[Any]:
    """The states of jobs on a server that runs on a restored directory."""
    with Served(directory, **settings) as server:
        answers = [server.call(key, "GET", f"/jobs/{job_id}") for job_id in ids]
        assert server.stop() == 0
    return [body.get("state") if status == 200 else status for status, body in answers]


def test_a_backup_contains_everything_answered_before_it_began(tmp_path: Path) -> None:
    with Served(tmp_path / "data", **SETTINGS) as server:
        keys = server.keys
        with Load(server, keys) as load:
            for trial in range(3):
                load.wait_for((trial + 1) * 150)
                before = list(load.submitted)
                done = fastq("backup", tmp_path / f"{trial}.tar", env=environ(server, keys["admin"]))
                assert done.returncode == 0, done.stderr
                assert done.stdout.startswith(f"{tmp_path / f'{trial}.tar'}: everything up to frame ")
                after = len(load.submitted)
                done = fastq("restore", tmp_path / f"{trial}.tar", tmp_path / f"restored-{trial}")
                assert done.returncode == 0, done.stderr
                assert states_in(tmp_path / f"restored-{trial}", keys["client"], before) == ["READY"] * len(before)
                assert after > len(before), "there was no load meanwhile"
        assert not (tmp_path / "data" / "segment-00000001").exists(), "nothing was cleaned"
        secrets = [secret.encode() for secret in keys.values()]
        for trial in range(3):
            assert not any(secret in (tmp_path / f"{trial}.tar").read_bytes() for secret in secrets)


def test_kill_9_during_a_backup_leaves_no_file(tmp_path: Path) -> None:
    """Kill the server, then the command. There is no file of that name, and the partial file is refused."""
    with Served(tmp_path / "data", **SETTINGS | {"WAL_SLACK_BYTES": "64MiB"}) as server:
        keys = server.keys
        fill(server, 60 << 20)
        target = tmp_path / "backup.tar"
        with ending(started(target, server, keys["admin"])) as command:
            wait_until_partial(tmp_path, 4 << 20)
            command.kill()
            command.communicate(timeout=END_S)
        (partial,) = tmp_path.glob("backup.tar.partial-*")
        assert not target.exists()
        done = fastq("restore", partial, tmp_path / "restored")
        assert done.returncode == 65 and "this is no whole backup" in done.stderr
        partial.unlink()
        with ending(started(target, server, keys["admin"])) as command:
            wait_until_partial(tmp_path, 4 << 20)
            server.kill()
            _, told = command.communicate(timeout=END_S)
        assert command.returncode == 1 and "nothing was kept" in told
        assert not list(tmp_path.glob("backup.tar*"))
    with Served(tmp_path / "data", **SETTINGS) as server:
        done = fastq("backup", target, env=environ(server, keys["admin"]))
        assert done.returncode == 0, done.stderr


def started(target: Path, server: Served, key: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*FASTQ, "backup", str(target)], cwd=ROOT, env=environ(server, key), text=True, stderr=subprocess.PIPE
    )


def wait_until_partial(directory: Path, size: int) -> None:
    """Wait until `size` bytes of a backup are written."""
    event = threading.Event()
    for _ in range(20_000):
        if sum(path.stat().st_size for path in directory.glob("backup.tar.partial-*")) >= size:
            return
        event.wait(0.001)
    raise AssertionError("there is no backup under way")


def test_a_closed_connection_ends_the_backup(tmp_path: Path) -> None:
    with Served(tmp_path / "data", **SETTINGS | {"WAL_SLACK_BYTES": "64MiB"}) as server:
        keys = server.keys
        fill(server, 32 << 20)
        with socket.create_connection(("127.0.0.1", server.port)) as half:
            head = f"POST /admin/backup HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys['admin']}\r\n\r\n"
            half.sendall(head.encode())
            assert half.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            status, body = server.call(keys["admin"], "POST", "/admin/backup")
            assert (status, body["code"]) == (409, "backup_refused")
        event = threading.Event()
        while (answer := server.call(keys["admin"], "POST", "/admin/backup"))[0] == 409:
            event.wait(0.01)
        assert answer[0] == 200 and len(answer[1]) > 30 << 20
        assert server.stop() == 0
        assert "Exception" not in server.stderr


@pytest.mark.parametrize(
    ("words", "env", "code", "told"),
    [
        (["backup", "{}/b.tar"], {}, 2, "no API key"),
        (["backup", "{}/b.tar", "--server", "ftp://x"], {"FASTQ_KEY": "x"}, 2, "url must be http"),
        (["backup", "{}/b.tar", "--server", "http://127.0.0.1:1"], {"FASTQ_KEY": "x"}, 3, "Connection refused"),
        (["backup", "{}/b.tar", "--offline", "{}/absent"], {}, 2, "does not exist"),
        (["restore", "{}/absent", "{}/d"], {}, 2, "No such file"),
    ],
)
def test_errors_of_backup_and_restore(
    words: list[str], env: dict[str, str], code: int, told: str, tmp_path: Path
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTQ_")}
    done = fastq(*(word.format(tmp_path) for word in words), env=clean | env)
    assert done.returncode == code and told in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_backup_needs_an_admin_key(tmp_path: Path) -> None:
    with Served(tmp_path / "data") as server:
        key_file = tmp_path / "key"
        for kind, code in (("client", 1), ("worker", 1), ("admin", 0)):
            key_file.write_text(server.keys[kind] + "\n")
            url = f"http://127.0.0.1:{server.port}"
            done = fastq("backup", tmp_path / "b.tar", "--server", url, "--key-file", key_file)
            assert done.returncode == code, done.stderr
            assert code == 0 or "Admin access required (403" in done.stderr
