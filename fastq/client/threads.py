"""A pool of daemon threads. A thread cannot be stopped, so a process that ends does not wait for these."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """An executor for an event loop. Python's own one is joined when the process ends, and a stuck thread keeps it.

    A handler may leave something behind that throws an exception into its thread later. It costs no call and no thread:
    a call stays with its thread until its future is done.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, name)
        self._most, self._name = most, name
        self._all: list[_Thread] = []
        self._idle: dict[_Thread, None] = {}
        self._waiting: deque[_Call] = deque()
        self._is_ended = False
        self._lock = threading.Lock()
        self._signals_blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call the function in a thread. Raises RuntimeError: no thread can be started."""
        call = _Call(fn, args, kwargs)
        with self._lock:
            if self._idle:
                self._idle.popitem()[0].give(call)
            elif len(self._all) < self._most:
                thread = _Thread(call)
                hook: object = threading.excepthook
                if not callable(hook):  # a handler's doing: no thread could start
                    threading.excepthook = threading.__excepthook__
                threading.Thread(
                    target=self._serve, args=(thread,), name=f"{self._name}_{len(self._all)}", daemon=True
                ).start()
                self._all.append(thread)
            else:
                self._waiting.append(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 -- the executor's
        """End the threads that are idle, and the others after their call. It does not wait for them."""
        self._is_ended = True
        for thread in self._all:
            thread.wake.put(None)

    def _serve(self, thread: _Thread) -> None:
        while True:
            try:
                if (call := thread.call) is None:
                    if not self._take(thread):
                        thread.wake.get()
                    if self._is_ended and not thread.has_call():
                        return
                    continue
                # An earlier call, or a handler on the loop that started this thread, may have blocked signals: a
                # process that is forked from here would have them blocked too, and nothing could end it.
                signal.pthread_sigmask(signal.SIG_SETMASK, self._signals_blocked)
                call.run()
                asyncio.set_event_loop(None)
                thread.call = call = None
            except BaseException:  # noqa: BLE001, S112 -- thrown into the thread from outside
                continue

    def _take(self, thread: _Thread) -> bool:
        """Give the thread the call that waits longest, or make it idle. Returns whether it has a call."""
        with self._lock:
            if thread.has_call():
                return True
            if not self._waiting:
                self._idle[thread] = None
                return False
            thread.call = self._waiting[0]
            self._waiting.popleft()
            return True


class _Thread:
    """call: what it runs, or is to run. wake: an item for each call that it is given while it is idle."""

    def __init__(self, call: _Call) -> None:
        self.call: _Call | None = call
        self.wake: SimpleQueue[None] = SimpleQueue()

    def has_call(self) -> bool:
        return self.call is not None

    def give(self, call: _Call) -> None:
        self.call = call
        self.wake.put(None)


class _Call:
    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.future: Future[Any] = Future()
        self._function, self._args, self._kwargs = function, args, kwargs
        self._is_begun = False

    def run(self) -> None:
        """Call the function once, and set the future. An exception from outside may end this: then call it again."""
        future = self.future
        if future.done() or not (future.running() or future.set_running_or_notify_cancel()):
            return
        error: BaseException | None = None
        value = None
        if self._is_begun:
            error = RuntimeError("an exception was thrown into the thread of the function")
        else:
            self._is_begun = True
            try:
                value = self._function(*self._args, **self._kwargs)
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
