"""A proxy that shows a server below a path: it strips the path and says so in X-Forwarded-Prefix."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

HEAD_END = b"\r\n\r\n"


@contextmanager
def below(prefix: str, port: int) -> Iterator[int]:
    """Run the proxy in a thread of its own. Gives its port."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def serve() -> None:
        end = asyncio.Event()
        passing: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly

        def accept(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
            passing.add(asyncio.ensure_future(_pass(client, answers, prefix, port)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        started.set_result((asyncio.get_running_loop(), end, server.sockets[0].getsockname()[1]))
        await end.wait()
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop, end, own_port = started.result()
    try:
        yield own_port
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


async def _pass(client: asyncio.StreamReader, answers: asyncio.StreamWriter, prefix: str, port: int) -> None:
    """Pass one request on, on a connection of its own."""
    try:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request, _, headers = (await client.readuntil(HEAD_END)).decode("latin-1").partition("\r\n")
            method, path, version = request.split(" ")
            if not path.startswith(prefix + "/"):
                answers.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            kept = [line for line in headers.splitlines() if line and not line.lower().startswith("connection:")]
            kept += [f"X-Forwarded-Prefix: {prefix}", "Connection: close"]
            head = "\r\n".join([f"{method} {path.removeprefix(prefix)} {version}", *kept])
            await _answer(client, answers, head.encode("latin-1") + HEAD_END, port)
    finally:
        answers.close()


async def _answer(client: asyncio.StreamReader, answers: asyncio.StreamWriter, head: bytes, port: int) -> None:
    upstream, requests = await asyncio.open_connection("127.0.0.1", port)
    requests.write(head)
    sending = asyncio.ensure_future(_copy(client, requests))
    try:
        await _copy(upstream, answers)
    finally:
        sending.cancel()
        requests.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while content := await source.read(65_536):
            target.write(content)
            await target.drain()
