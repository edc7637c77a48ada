"""The server process: its messages, its stop, and what the next start finds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fastq import __version__
from tests.served import ROOT, SERVE, Served, free_port

pytestmark = pytest.mark.slow

KEY = re.compile(r"(client|worker|admin)_[A-Za-z0-9_-]{32}")
QUICK = {"LEASE_CHECK_INTERVAL": "50ms", "WAL_SEGMENT_BYTES": "4MiB"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def shell(line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ["LD_PRELOAD"] = ""  # the sanitizer's library (./dev asan) is for Python only
    return subprocess.run(
        ["sh", "-c", line], env=os.environ | environ, capture_output=True, text=True, timeout=30, check=False
    )


# --- start messages ---------------------------------------------------------------------------------------------------


def test_a_first_start_prints_url_keys_and_a_curl_line(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        first, data, *rest = server.lines
        assert first == f"fastq {__version__} serves at http://127.0.0.1:{server.port}"
        assert data == f"Data in {directory}: a new log"
        for line, key_type in zip(rest, ("client", "worker", "admin"), strict=False):
            assert re.fullmatch(rf"Created {key_type} key: {KEY.pattern} \(owner: dev-{key_type}\)", line)
        assert rest[3].startswith("Warning: these are development keys")
        assert rest[4] == "Submit a job:"
        assert len(rest) == 6
        assert server.stderr == ""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_works_as_printed(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        answer = shell(server.lines[-1])
        assert answer.returncode == 0, answer.stderr
        job_id = json.loads(answer.stdout)["job_id"]
        status, job = server.call(server.keys["client"], "GET", f"/jobs/{job_id}")
        assert (status, job["state"]) == (200, "READY")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_later_start_prints_no_key(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        secret = server.keys["client"]
        server.submit(secret)
        assert server.stop() == 0
        server.start()
        assert not any(KEY.search(line) for line in server.lines)
        assert re.search(r"recovered \d+ frames, \d+ records, 1 job \(1 READY\)$", server.lines[1])
        answer = shell(server.lines[-1], CLIENT=secret)
        assert "job_id" in json.loads(answer.stdout)


def test_the_command_line() -> None:
    def fastq(*arguments: str) -> str:
        command = [sys.executable, "-m", "fastq", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout

    assert fastq("--version") == f"fastq, version {__version__}\n"
    assert "serve" in fastq("--help")
    assert "LEASE_DURATION (30s)" in " ".join(fastq("serve", "--help").split())


def test_as_json_every_line_of_the_start_is_an_object(directory: Path) -> None:
    environ = os.environ | {"WAL_DIR": str(directory), "PORT": "0", "LOG_FORMAT": "json"}
    with subprocess.Popen(SERVE, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = []
        while not seen or not seen[-1]["message"].startswith("curl "):
            seen.append(json.loads(process.stdout.readline()))
        process.terminate()
        more, errors = process.communicate(timeout=30)
    seen += [json.loads(line) for line in [*more.splitlines(), *errors.splitlines()]]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in seen)
    assert sum("Created client key: client_" in line["message"] for line in seen) == 1, "a secret is shown once, whole"


def test_a_first_start_beside_the_originals_log_names_import_wal(directory: Path) -> None:
    directory.mkdir()
    (directory / "jobs.wal").write_bytes(b'{"job_id":"a","event":"JOB_CREATED","metadata":{"payload":"p"}}\n')
    with Served(directory, **QUICK) as server:
        assert f"fastq import-wal {directory / 'jobs.wal'}" in "\n".join(server.lines)
        server.submit(server.keys["client"])
        assert server.stop() == 0
        assert "import-wal" not in "\n".join(server.start().lines), "a log that has jobs is no first start"
    assert (directory / "jobs.wal").read_bytes().startswith(b'{"job_id"'), "it is left alone"


def test_json_logs_and_the_warning_about_plain_text(directory: Path) -> None:
    with Served(directory, LOG_FORMAT="json", HOST="0.0.0.0", **QUICK) as server:
        assert server.lines[0].endswith(f"http://127.0.0.1:{server.port}")
        assert server.call(None, "GET", "/health") == (200, b"OK")
        assert server.stop() == 0
        warning, *rest = [json.loads(line) for line in server.stderr.splitlines()]
        assert warning["level"] == "warning"
        assert "HOST is 0.0.0.0 and there is no TLS_CERT" in warning["message"]
        assert [line["message"] for line in rest][-1] == "stopped"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls(directory: Path) -> None:
    cert, key = directory.with_name("cert.pem"), directory.with_name("key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with Served(directory, HOST="0.0.0.0", TLS_CERT=str(cert), TLS_KEY=str(key), **QUICK) as server:
        url = f"https://127.0.0.1:{server.port}"
        assert server.lines[0].endswith(url)
        context = ssl.create_default_context(cafile=str(cert))
        request = urllib.request.Request(
            f"{url}/jobs", b'{"payload":"x"}', {"Authorization": f"Bearer {server.keys['client']}"}
        )
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            assert answer.status == 201
        assert server.stop() == 0
        assert "TLS_CERT" not in server.stderr


# --- keys at a first start --------------------------------------------------------------------------------------------


def test_without_development_keys_the_first_admin_key_is_in_a_file(directory: Path) -> None:
    with Served(directory, SEED_DEV_KEYS="false", **QUICK) as server:
        file = directory / "admin.key"
        assert f"The first admin key is in {file}: keep it, then remove the file" in server.lines
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        secret = file.read_text().strip()
        assert KEY.fullmatch(secret)
        assert not any(KEY.search(line) for line in server.lines)
        status, made = server.call(secret, "POST", "/admin/keys", {"name": "n", "owner_id": "o", "type": "client"})
        assert status == 201
        server.submit(made["key"])
        file.unlink()
        assert server.stop() == 0
        server.start()
        assert not file.exists()
        assert server.call(secret, "GET", "/keys")[0] == 200


def test_an_admin_key_can_be_given(directory: Path) -> None:
    given = directory.with_name("given")
    secret = "admin_" + "Ab0-" * 8
    given.write_text(secret + "\n")
    with Served(directory, SEED_DEV_KEYS="false", ADMIN_KEY_FILE=str(given), **QUICK) as server:
        status, listed = server.call(secret, "GET", "/admin/keys")
        assert status == 200
        assert [(key["type"], key["key"]) for key in listed] == [("admin", "admin_****Ab0-")]
        assert not (directory / "admin.key").exists()


def test_a_key_file_left_by_a_start_that_died_is_used(directory: Path) -> None:
    directory.mkdir()
    secret = "admin_" + "x" * 32
    (directory / "admin.key").write_text(secret)
    with Served(directory, SEED_DEV_KEYS="false", **QUICK) as server:
        assert server.call(secret, "GET", "/admin/keys")[0] == 200


def test_no_secret_is_in_the_log_or_the_output(directory: Path) -> None:
    with Served(directory, LOG_FORMAT="json", **QUICK) as server:
        keys = server.keys
        status, made = server.call(
            keys["admin"], "POST", "/admin/keys", {"name": "n", "owner_id": "o", "type": "worker"}
        )
        assert status == 201
        shown = json.dumps(server.call(keys["admin"], "GET", "/admin/keys"))
        shown += json.dumps(server.call(keys["client"], "GET", "/keys"))
        shown += json.dumps(server.call(keys["client"], "DELETE", f"/keys/{made['key']}"))
        shown += json.dumps(server.call(keys["admin"], "DELETE", f"/keys/{made['key']}"))
        shown += json.dumps(server.call(made["key"], "POST", "/jobs/lease"))
        shown += json.dumps(server.call(keys["admin"], "GET", f"/jobs/{made['key']}")).replace(made["key"], "", 1)
        server.submit(keys["client"], "canary payload")
        assert server.stop() == 0
        kept = server.segments()
        assert b"canary payload" in kept, "the log is what was searched"
        for secret in (*keys.values(), made["key"]):
            tail = secret.partition("_")[2]
            assert tail.encode() not in kept
            assert tail not in server.stderr
            assert tail not in shown


# --- stop and start again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server(directory: Path, number: signal.Signals) -> None:
    with Served(directory, **QUICK) as server:
        server.process.send_signal(number)
        assert server.wait(10) == 0


REQUESTS = 200


def test_requests_in_flight_at_a_stop_are_answered_and_durable(directory: Path) -> None:
    """The server is stopped (SIGSTOP) while requests and the signal arrive. Every request gets an answer."""
    with Served(directory, **QUICK) as server:
        key = server.keys["client"]
        submit = _request("POST", "/jobs", key, b'{"payload":"x"}')
        sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(20)]
        for each in sockets:
            each.sendall(submit)  # the first is answered before the stop
        answers = [_read_answer(each) for each in sockets]
        assert {status for status, _ in answers} == {201}
        server.process.send_signal(signal.SIGSTOP)
        for each in sockets:
            each.sendall(submit * (REQUESTS // 20))
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        late = [_read_answer(each) for each in sockets for _ in range(REQUESTS // 20)]
        for each in sockets:
            each.close()
        assert server.wait(10) == 0
        assert {status for status, _ in late} <= {201, 503}
        assert len(late) == REQUESTS
        server.start()
        acknowledged = [body["job_id"] for status, body in answers + late if status == 201]
        assert len(acknowledged) >= 20
        for job_id in acknowledged:
            assert server.call(key, "GET", f"/jobs/{job_id}")[0] == 200


def _request(method: str, path: str, key: str, content: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def _read_answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Read exactly one answer. The head is read byte by byte, because later bytes belong to the next answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"no answer, only {head!r}"
        head += byte
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(head.split()[1]), json.loads(body)


def test_a_stopping_server_is_not_ready_but_accepts_acks(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        client, worker = server.keys["client"], server.keys["worker"]
        job_id = server.submit(client)
        status, lease = server.call(worker, "POST", "/jobs/lease", {})
        assert (status, lease["job_id"]) == (200, job_id)
        connections = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(4)]
        for each in connections:  # known to the server before the signal
            each.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert _read_answer(each)[0] == 200
        server.process.send_signal(signal.SIGTERM)
        answered = _until_draining(connections[0])
        assert answered["code"] == "draining"
        wanted = [
            ("POST", "/jobs", client, b'{"payload":"x"}', 503),
            ("POST", "/jobs/lease", worker, b"{}", 503),
            ("POST", f"/jobs/{job_id}/ack", worker, json.dumps({"lease_token": lease["lease_token"]}).encode(), 200),
        ]
        for each, (method, path, key, content, expected) in zip(connections[1:], wanted, strict=True):
            each.sendall(_request(method, path, key, content))
            assert _read_status(each) == expected, path
        for each in connections:
            each.close()
        assert server.wait(10) == 0
        server.start()
        assert server.call(client, "GET", f"/jobs/{job_id}")[1]["state"] == "ACKED"


def _until_draining(connection: socket.socket) -> dict[str, str]:
    while True:
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        status, body = _read_answer(connection)
        if status == 503:
            return body


def _read_status(connection: socket.socket) -> int:
    return int(connection.recv(65_536).split()[1])


def test_a_kill_keeps_every_state(directory: Path) -> None:
    with Served(directory, LEASE_DURATION="60s", BACKOFF_BASE="10m", **QUICK) as server:
        client, worker = server.keys["client"], server.keys["worker"]
        ready = server.submit(client, "ready", priority=-5)
        later = server.submit(client, "later", delay_ms=3_600_000)
        jobs = {name: server.submit(client, name, max_retries=2) for name in ("acked", "failed", "running")}
        leases = {}
        for _ in jobs:
            lease = server.call(worker, "POST", "/jobs/lease", {})[1]
            leases[lease["payload"]] = lease
        assert leases.keys() == jobs.keys()
        ack = {"lease_token": leases["acked"]["lease_token"], "result": {"n": [1, 2.50]}}
        assert server.call(worker, "POST", f"/jobs/{jobs['acked']}/ack", ack)[0] == 200
        fail = {"lease_token": leases["failed"]["lease_token"], "result_error": "oh"}
        assert server.call(worker, "POST", f"/jobs/{jobs['failed']}/ack", fail)[0] == 200
        before = {name: server.call(client, "GET", f"/jobs/{job_id}") for name, job_id in jobs.items()}
        server.kill()
        server.start()
        after = {name: server.call(client, "GET", f"/jobs/{job_id}") for name, job_id in jobs.items()}
        assert after["acked"] == before["acked"]
        assert after["acked"][1]["state"] == "ACKED"
        assert after["acked"][1]["result"] == {"n": [1, 2.5]}
        assert after["failed"] == before["failed"]
        assert (after["failed"][1]["state"], after["failed"][1]["result_error"]) == ("RETRY", "oh")
        assert after["running"][1]["state"] == "RUNNING"
        assert after["running"][1]["lease_until"] >= before["running"][1]["lease_until"]
        assert server.call(client, "GET", f"/jobs/{ready}")[1]["state"] == "READY"
        assert server.call(client, "GET", f"/jobs/{later}")[1]["state"] == "SCHEDULED"
        # the lease outlives the kill, and an ack that is repeated is answered as it was
        done = {"lease_token": leases["running"]["lease_token"], "result": "done"}
        assert server.call(worker, "POST", f"/jobs/{jobs['running']}/ack", done)[0] == 200
        assert server.call(worker, "POST", f"/jobs/{jobs['acked']}/ack", ack)[0] == 200


def test_keys_outlive_a_kill(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        keys = server.keys
        before = server.call(keys["admin"], "GET", "/admin/keys")[1]
        assert server.call(keys["worker"], "DELETE", f"/keys/{keys['worker']}")[0] == 200
        assert server.call(keys["worker"], "GET", "/keys")[1]["error"] == "API key has been revoked"
        server.kill()
        server.start()
        assert server.keys == {}
        after = server.call(keys["admin"], "GET", "/admin/keys")[1]
        assert [key["key_id"] for key in after] == [key["key_id"] for key in before]
        assert server.call(keys["worker"], "GET", "/keys")[1]["error"] == "API key has been revoked"
        server.submit(keys["client"])


def test_the_last_use_of_a_key_outlives_a_stop(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        keys = server.keys
        server.submit(keys["client"])
        used = {key["key_id"]: key["last_used_at"] for key in server.call(keys["admin"], "GET", "/admin/keys")[1]}
        assert server.stop() == 0
        server.start()
        again = server.call(keys["admin"], "GET", "/admin/keys")[1]
        client = next(key for key in again if key["type"] == "client")
        assert client["last_used_at"] == used[client["key_id"]] > client["created_at"]


def test_owner_isolation(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        keys = server.keys
        job_id = server.submit(keys["client"])
        made = server.call(keys["admin"], "POST", "/admin/keys", {"name": "n", "owner_id": "o", "type": "client"})[1]
        assert server.call(made["key"], "GET", f"/jobs/{job_id}")[0] == 404
        assert server.stop() == 0
    with Served(directory, OWNER_ISOLATION="false", **QUICK) as server:
        assert server.call(made["key"], "GET", f"/jobs/{job_id}")[0] == 200


def test_a_client_that_never_ends_its_request_does_not_hold_up_a_stop(directory: Path) -> None:
    with Served(directory, **QUICK) as server:
        head = _request("POST", "/jobs", server.keys["client"], b'{"payload":"x"}')[:-1]
        with (
            socket.create_connection(("127.0.0.1", server.port)) as slow,
            socket.create_connection(("127.0.0.1", server.port)) as silent,
        ):
            slow.sendall(head)
            silent.sendall(b"GET /rea")
            server.submit(server.keys["client"])
            server.process.send_signal(signal.SIGTERM)
            assert server.wait(10) == 0
        assert "Traceback" not in server.stderr


def test_a_closed_standard_output_does_not_stop_the_server(directory: Path) -> None:
    """`fastq serve | head -1` ends the reader, not the server."""
    reading, writing = os.pipe()
    os.close(reading)
    server = Served(directory, PORT=str(free_port()), SEED_DEV_KEYS="false", **QUICK)
    with server.launched(writing):
        while server.process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError):
                assert server.call(None, "GET", "/ready")[0] == 200
                break
        assert server.stop() == 0
        assert "standard output" in server.stderr


@pytest.mark.parametrize(("proxies", "last"), [("127.0.0.1", [429, 401]), ("", [429, 429])])
def test_failed_logins_count_for_the_address_that_a_trusted_proxy_names(
    directory: Path, proxies: str, last: list[int]
) -> None:
    with Served(directory, TRUSTED_PROXIES=proxies, **QUICK) as server:

        def fail(address: str) -> int:
            return server.call("client_wrong", "GET", "/keys", headers={"X-Forwarded-For": address})[0]

        assert [fail("192.0.2.1") for _ in range(20)] == [401] * 20
        assert [fail("192.0.2.1"), fail("192.0.2.2")] == last
        assert server.call(server.keys["client"], "GET", "/keys")[0] == 200
