"""Signals: SIGHUP reloads the certificate; none but SIGTERM and SIGINT ends the server."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.served import Served

PATIENCE_S = 30
HARMLESS = [
    "SIGHUP",
    "SIGUSR1",
    "SIGUSR2",
    "SIGPIPE",
    "SIGWINCH",
    "SIGALRM",
    "SIGVTALRM",
    "SIGPROF",
    "SIGCHLD",
    "SIGURG",
]


def make_certificate(name: str, cert: Path, key: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip


def shown_certificate(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain, context.wrap_socket(plain) as connection:
        found = connection.getpeercert(binary_form=True)
        assert found is not None
        return found


def until_logged(server: Served, text: str, times: int = 1) -> None:
    until = time.monotonic() + PATIENCE_S
    while server.stderr.count(text) < times:
        assert time.monotonic() < until, server.stderr
        goes_on(server)


def goes_on(server: Served) -> None:
    """Wait a moment for the server to end, and fail if it does."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise AssertionError(f"exit {server.process.wait(0.02)}: {server.stderr}")


def der(cert: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_sighup_reloads_the_certificate_and_keeps_it_if_the_new_one_is_bad(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_certificate("first", cert, key)
    with Served(tmp_path / "data", TLS_CERT=str(cert), TLS_KEY=str(key)) as server:
        first = der(cert)
        assert shown_certificate(server.port) == first
        context = ssl.create_default_context(cafile=str(cert))
        with (
            socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as kept,
        ):
            make_certificate("second", cert, key)
            second = der(cert)
            server.process.send_signal(signal.SIGHUP)
            until_logged(server, "new connections use the certificate")
            assert shown_certificate(server.port) == second != first
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(1000).startswith(b"HTTP/1.1 200"), "an open connection goes on"
        for number, (path, text) in enumerate([(key, "no key"), (cert, "no certificate"), (cert, None)], start=1):
            path.unlink() if text is None else path.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            until_logged(server, "the certificate in use stays", number)
            assert shown_certificate(server.port) == second
        make_certificate("third", cert, key)
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + PATIENCE_S
        while shown_certificate(server.port) != der(cert):
            assert time.monotonic() < until, server.stderr
        assert server.stop() == 0


def test_signals_that_mean_no_stop_change_nothing(tmp_path: Path) -> None:
    with Served(tmp_path / "data") as server:
        for name in HARMLESS:
            server.process.send_signal(getattr(signal, name))
            assert server.call(None, "GET", "/health") == (200, b"OK"), name
        until_logged(server, "nothing to reload")
        assert server.stop() == 0


def test_a_reload_while_the_server_starts_does_not_end_it(tmp_path: Path) -> None:
    server = Served(tmp_path / "data")
    server._launch(subprocess.PIPE)
    try:
        status = f"/proc/{server.process.pid}/status"
        until = time.monotonic() + PATIENCE_S
        while not _ignores_sighup(Path(status).read_text()):
            assert time.monotonic() < until
        for _ in range(5):
            server.process.send_signal(signal.SIGHUP)
            goes_on(server)
        assert server.process.stdout is not None
        assert "serves at" in server.process.stdout.readline()
    finally:
        server.kill()


def _ignores_sighup(status: str) -> bool:
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn:", "SigCgt:"))]
    return any(mask >> (signal.SIGHUP - 1) & 1 for mask in masks)
