"""A server for the tests of the SDK, and a proxy that loses answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from fastq import AsyncClient, Client, JobStatus
from fastq.client.async_transport import LoopTransport
from fastq.client.sync_client import address_of
from tests.served import Served

Starts = Callable[..., Any]
Made = Callable[..., "Both"]
WAIT_S = 20


class Place:
    def __init__(self, server: Served) -> None:
        self.server = server
        self.keys = dict(server.keys)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def jobs(self, **query: str) -> list[dict[str, Any]]:
        """All jobs that match, with payloads."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            asked = {**query, "limit": "1000", **({"cursor": cursor} if cursor else {})}
            path = "/jobs?" + "&".join(f"{name}={value}" for name, value in asked.items())
            status, page = self.server.call(self.keys["admin"], "GET", path)
            assert status == 200, page
            found += page["jobs"]
            cursor = page.get("cursor", "")
            if not cursor:
                return found

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        _, answer = self.server.call(self.keys["admin"], "GET", f"/jobs/{job_id}/attempts")
        attempts: list[dict[str, Any]] = answer["attempts"]
        return attempts


class Both:
    """Either client with blocking methods: AsyncClient runs in the event loop of a thread."""

    def __init__(self, kind: str, url: str, key: str, **options: Any) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        if kind == "sync":
            self._client: Any = Client(url, key, **options)
            return
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = AsyncClient(url, key, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._client, name)
        if self._loop is None:
            return method
        loop = self._loop

        async def awaited(*args: Any, **options: Any) -> Any:
            asked = method(*args, **options)
            return [item async for item in asked] if hasattr(asked, "__aiter__") else await asked

        return lambda *args, **options: asyncio.run_coroutine_threadsafe(awaited(*args, **options), loop).result(60)

    def end(self) -> None:
        self.close()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@contextlib.contextmanager
def lossy(port: int, is_lost: Callable[[int], bool]) -> Iterator[tuple[str, list[int]]]:
    """A proxy that forwards requests and drops the answers that `is_lost` selects by number.

    Gives its URL, and the numbers of the answers that were lost.
    """
    loop = asyncio.new_event_loop()
    lost: list[int] = []
    count = iter(range(1_000_000))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)

        asked = [False]  # whether the next bytes begin an answer, which may come in pieces

        async def forth() -> None:
            while data := await reader.read(65536):
                asked[0] = True
                to_writer.write(data)
            to_writer.close()

        forward = loop.create_task(forth())
        try:
            while data := await to_reader.read(1 << 20):
                if not asked[0]:
                    writer.write(data)
                    continue
                asked[0], number = False, next(count)
                if is_lost(number):
                    lost.append(number)
                    return
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            forward.cancel()
            writer.close()
            to_writer.close()

    async def open_it() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    server = loop.run_until_complete(open_it())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", lost
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def outcome(aclient: AsyncClient, queue: str, payload: Any = "x", **options: Any) -> JobStatus:
    return await aclient.submit_and_wait(payload, queue=queue, timeout_s=WAIT_S, **options)


def watched(place: Place, before: Callable[[str], Awaitable[None]], after: Callable[[str], Awaitable[None]]) -> Any:
    """A transport that calls `before` with the path of each request, and `after` when its answer is there."""

    class Watched(LoopTransport):
        async def send(self, call: Any, timeout_s: float) -> Any:
            await before(call.path)
            answer = await super().send(call, timeout_s)
            await after(call.path)
            return answer

    return Watched(address_of(place.url, place.keys["worker"]))


async def nothing(path: str) -> None:
    pass


async def until_running(aclient: AsyncClient, job_id: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await aclient.get(job_id)).state != "RUNNING":  # noqa: ASYNC110 -- no event for it
            await asyncio.sleep(0.01)
