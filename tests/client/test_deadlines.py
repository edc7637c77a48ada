"""A call gives up in time, whatever the server does, and says how often and how long it tried and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastq import AsyncClient, Busy, Client, ClientError, NotFinished, Refused, Retries, ServerUnreachable
from fastq.client.async_transport import LoopTransport
from fastq.client.sync_client import address_of
from tests.client.served import Made, Place
from tests.served import free_port

TIMEOUT_S = 0.6
LATE_S = 5.0  # of a loaded machine; half of what a call takes by default


class Listener:
    """A server of the test: `answer` gets each connection, and its number."""

    def __init__(self, answer: Callable[[socket.socket, int], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.ended = threading.Event()
        self.taken = 0
        self._answer = answer
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.taken += 1
                threading.Thread(target=self._serve, args=(connection, self.taken), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            self._answer(connection, number)

    def close(self) -> None:
        self.ended.set()
        self._socket.close()


Listens = Callable[..., Listener]


@pytest.fixture
def listens() -> Iterator[Listens]:
    made: list[Listener] = []

    def listen(answer: Callable[[socket.socket, int], None]) -> Listener:
        made.append(Listener(answer))
        return made[-1]

    yield listen
    for one in made:
        one.close()


def answering(status: str, body: bytes = b'{"error":"why","code":"busy"}', *headers: str) -> Any:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])

    def answer(connection: socket.socket, _number: int) -> None:
        while connection.recv(65536):
            connection.sendall(head.encode() + body)

    return answer


def silent(connection: socket.socket, _number: int) -> None:
    while connection.recv(65536):
        pass


def trickling(connection: socket.socket, _number: int) -> None:
    connection.recv(65536)
    for byte in itertools.chain(b"HTTP/1.1 200 OK\r\n", itertools.cycle(b"X-A: b\r\n")):
        connection.sendall(bytes([byte]))
        threading.Event().wait(0.02)


def closing(connection: socket.socket, _number: int) -> None:
    connection.recv(65536)


def other_protocol(connection: socket.socket, _number: int) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    connection.recv(65536)


def fails(call: Callable[[], Any], within_s: float = TIMEOUT_S) -> ClientError:
    """The error of a call, which comes in time, and tells no more time than has passed."""
    begun = time.monotonic()
    with pytest.raises(ClientError) as failed:
        call()
    took_s = time.monotonic() - begun
    assert took_s < within_s + LATE_S
    assert failed.value.tried_s <= took_s
    return failed.value


def test_the_default_suits_a_web_request() -> None:
    assert Retries().for_s == 10


CALLS: dict[str, Callable[[Any], Any]] = {
    "submit": lambda client: client.submit("x"),
    "submit_many": lambda client: client.submit_many(["x"]),
    "get": lambda client: client.get("j"),
    "cancel": lambda client: client.cancel("j"),
    "jobs": lambda client: list(client.jobs()),
    "submit_and_wait": lambda client: client.submit_and_wait("x"),
    "wait_for_completion": lambda client: client.wait_for_completion("j", 0.1),
    "create_key": lambda client: client.create_key("k", "o", "client"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_down(made: Made, name: str) -> None:
    error = fails(lambda: CALLS[name](made(f"http://127.0.0.1:{free_port()}", timeout_s=TIMEOUT_S)))
    assert isinstance(error, ServerUnreachable) and not error.sent
    assert error.tries > 1 and error.tried_s > 0
    assert "refused" in str(error)
    assert f"tried {error.tries} times in {error.tried_s:.1f} s" in str(error)
    assert "start the server, or check the URL" in str(error)


@pytest.mark.parametrize("answer", [silent, trickling, closing])
def test_a_server_that_takes_the_request_and_does_not_answer(made: Made, listens: Listens, answer: Any) -> None:
    listener = listens(answer)
    client = made(listener.url, timeout_s=TIMEOUT_S)
    for name in ("submit", "get", "create_key"):
        error = fails(lambda name=name: CALLS[name](client))  # type: ignore[misc]
        assert isinstance(error, ServerUnreachable) and error.sent
        assert error.tries == 1 or answer is closing
        assert "tried" in str(error)
    error = fails(lambda: client.submit_and_wait("x", timeout_s=TIMEOUT_S))
    assert isinstance(error, ServerUnreachable)


def test_the_timeout_of_one_call(made: Made, listens: Listens) -> None:
    client = made(listens(silent).url)
    calls = [
        lambda: client.submit("x", timeout_s=TIMEOUT_S), lambda: client.submit_many(["x"], timeout_s=TIMEOUT_S),
        lambda: client.get("j", timeout_s=TIMEOUT_S), lambda: client.submit_and_wait("x", timeout_s=TIMEOUT_S),
    ]  # fmt: skip
    for call in calls:
        assert isinstance(fails(call), ServerUnreachable)
    for bad in (0, -1):
        with pytest.raises(ValueError, match="timeout_s must be > 0 seconds"):
            client.submit("x", timeout_s=bad)
        with pytest.raises(ValueError, match="timeout_s must be > 0 seconds"):
            made(timeout_s=bad)


def test_the_timeout_of_a_few_calls(listens: Listens, place: Place) -> None:
    with Client(listens(silent).url, "k") as client:
        assert isinstance(fails(lambda: client.within(TIMEOUT_S).cancel("j")), ServerUnreachable)

    async def in_a_loop() -> None:
        async with AsyncClient(place.url, place.keys["client"]) as one:
            job_id = (await one.within(5).submit("x")).job_id
            assert (await one.get(job_id)).state == "READY"

    asyncio.run(in_a_loop())


def test_a_name_that_is_not_found(made: Made) -> None:
    error = fails(lambda: made("http://no-such-host.invalid:8080", timeout_s=TIMEOUT_S).submit("x"), 8)
    assert isinstance(error, ServerUnreachable) and not error.sent
    assert "the host no-such-host.invalid is not found" in str(error) and "check the URL" in str(error)


def test_a_name_server_that_does_not_answer(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, before = threading.Event(), socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host == "slow.example.org" and not options.get("flags"):
            ended.wait(30)
        return before(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        error = fails(lambda: made("http://slow.example.org:8080", timeout_s=TIMEOUT_S).submit("x"))
        assert isinstance(error, ServerUnreachable) and not error.sent
    finally:
        ended.set()


@pytest.mark.parametrize("status", ["503 draining", "429 full", "502 gone", "504 late"])
def test_a_server_that_is_busy(made: Made, listens: Listens, status: str) -> None:
    listener = listens(answering(status))
    error = fails(lambda: made(listener.url, timeout_s=TIMEOUT_S).submit("x"))
    assert isinstance(error, Refused) and error.status == int(status[:3])
    assert error.tries > 1
    assert str(error).startswith(f"why ({status[:3]} busy); tried {error.tries} times in ")
    if isinstance(error, Busy):
        assert "try again later" in str(error)


def test_a_server_that_asks_for_a_longer_wait_than_there_is_time(made: Made, listens: Listens) -> None:
    listener = listens(answering("503 draining", b'{"error":"why","code":"draining"}', "Retry-After: 30"))
    error = fails(lambda: made(listener.url, timeout_s=5).submit("x"), 0)
    assert isinstance(error, Busy) and (error.tries, error.retry_after_s) == (1, 30)
    assert "tried once" in str(error)


def test_a_server_that_is_busy_for_a_while(made: Made, listens: Listens) -> None:
    count = itertools.count()

    def answer(connection: socket.socket, _number: int) -> None:
        while connection.recv(65536):
            busy = next(count) < 3
            body = b'{"error":"w","code":"draining"}' if busy else b'{"job_id":"j"}'
            status = b"503 b\r\nRetry-After: 0" if busy else b"201 c"
            connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    assert made(listens(answer).url).submit("x").job_id == "j"


@pytest.mark.parametrize("status", ["507 no space", "500 bug", "401 who", "403 no", "404 none", "413 large"])
def test_an_answer_that_a_retry_does_not_change(made: Made, listens: Listens, status: str) -> None:
    asked: list[int] = []

    def answer(connection: socket.socket, number: int) -> None:
        asked.append(number)
        answering(status)(connection, number)

    error = fails(lambda: made(listens(answer).url, timeout_s=30).submit("x"), 0)
    assert isinstance(error, Refused) and asked == [1]
    assert "tried" not in str(error)


def test_a_port_of_another_protocol(made: Made, listens: Listens) -> None:
    listener = listens(other_protocol)
    error = fails(lambda: made(listener.url, timeout_s=30).submit("x"), 0)
    assert isinstance(error, ServerUnreachable) and error.tries == 1
    assert "is not HTTP" in str(error) and "check that the URL" in str(error)


def test_https_to_a_server_without_tls(made: Made, place: Place) -> None:
    error = fails(lambda: made(place.url.replace("http:", "https:"), timeout_s=30).submit("x"), 0)
    assert isinstance(error, ServerUnreachable) and (error.tries, error.sent) == (1, False)
    assert "no TLS with 127.0.0.1" in str(error) and "http or https" in str(error)


def test_a_certificate_that_is_not_trusted(made: Made, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost -keyout"
    subprocess.run([*argv.split(), str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    tries: list[int] = []

    def answer(connection: socket.socket, number: int) -> None:
        tries.append(number)
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True).recv(65536)

    listener = Listener(answer)
    try:
        port = listener.url.rpartition(":")[2]
        error = fails(lambda: made(f"https://127.0.0.1:{port}", timeout_s=30).submit("x"), 0)
    finally:
        listener.close()
    assert isinstance(error, ServerUnreachable) and (error.tries, error.sent, tries) == (1, False, [1])
    assert "is not trusted: self-signed certificate" in str(error) and "SSL_CERT_FILE" in str(error)


async def test_all_connections_are_in_use(listens: Listens) -> None:
    transport = LoopTransport(address_of(listens(silent).url, "k"), connections_max=2)
    async with AsyncClient(transport=transport) as client:
        slow = [asyncio.create_task(client.submit("x", timeout_s=20)) for _ in range(2)]
        await asyncio.sleep(0)  # both have a connection
        begun = time.monotonic()
        with pytest.raises(
            ServerUnreachable, match=r"all 2 connections were in use.*make fewer calls at once"
        ) as failed:
            await client.submit("x", timeout_s=TIMEOUT_S)
        assert time.monotonic() - begun < TIMEOUT_S + LATE_S
        assert not failed.value.sent
        for one in slow:
            one.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        with pytest.raises(ServerUnreachable, match="no answer"):  # the connections are free again
            await client.submit("x", timeout_s=TIMEOUT_S)


async def test_a_cancel_ends_the_retries() -> None:
    async with AsyncClient(f"http://127.0.0.1:{free_port()}", "k", retries=Retries(for_s=None)) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.submit("x")


def test_close_ends_the_retries() -> None:
    client = Client(f"http://127.0.0.1:{free_port()}", "k", retries=Retries(for_s=None, base_s=60, cap_s=60))
    threading.Timer(0.2, client.close).start()
    assert "was closed" in str(fails(lambda: client.submit("x"), 1))


def test_a_wait_is_bounded_by_its_timeout(made: Made, listens: Listens, both: Any, queue: str) -> None:
    job_id = both.submit("x", queue=queue).job_id
    assert isinstance(fails(lambda: both.wait_for_completion(job_id, TIMEOUT_S)), NotFinished)
    assert isinstance(fails(lambda: both.submit_and_wait("x", queue=queue, timeout_s=TIMEOUT_S)), NotFinished)
    client = made(listens(silent).url)
    assert isinstance(fails(lambda: client.wait_for_completion(job_id, TIMEOUT_S), TIMEOUT_S + 1), ServerUnreachable)


def test_is_ready_is_bounded(made: Made, listens: Listens) -> None:
    assert isinstance(fails(lambda: made(listens(silent).url, timeout_s=TIMEOUT_S).is_ready()), ServerUnreachable)
