"""A pool of daemon threads. A thread cannot be stopped, so a process that ends does not wait for these."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """An executor for an event loop. Python's own one is joined when the process ends, and a stuck thread keeps it."""

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, name)
        self._most, self._name = most, name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call the function in a thread. Raises RuntimeError: no thread can be started."""
        future: Future[T] = Future()
        with self._lock:
            if not self._idle.acquire(blocking=False) and len(self._started) < self._most:
                self._start_thread()
            self._calls.put(lambda: _call(future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 -- the executor's
        """End the threads that are idle, and the others after their call. It does not wait for them."""
        for _ in self._started:
            self._calls.put(None)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"{self._name}_{len(self._started)}", daemon=True)
        thread.start()
        self._started.append(thread)

    def _serve(self) -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        while True:
            try:
                while (call := self._calls.get()) is not None:
                    call()
                    del call  # it holds the arguments and the result
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # the next call finds the thread as it was
                    asyncio.set_event_loop(None)
                    self._idle.release()
                return
            except BaseException:  # noqa: BLE001, S112 -- thrown into the thread by a watchdog of a handler, too late
                continue


def _call(future: Future[Any], function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Set the future, also if exceptions are thrown into the thread from outside."""
    if not future.set_running_or_notify_cancel():
        return
    error: BaseException | None = None
    value = None
    try:
        value = function(*args, **kwargs)
    except BaseException as raised:  # noqa: BLE001 -- the caller gets it
        error = raised
    if isinstance(error, StopIteration):  # a future of asyncio cannot hold it
        error = RuntimeError("the function raised StopIteration")
    while not future.done():
        try:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)
        except BaseException:  # noqa: BLE001, S112 -- as in `_serve`
            continue
