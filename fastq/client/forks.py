"""What a fork leaves behind: the connections and the signal handlers of the SDK belong to the process that made them.

A handler may fork, itself or by `multiprocessing`. A child that kept a connection of its parent would keep the server
waiting for a worker that is gone. A child that kept the signal handlers would stop the worker when it is signalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
from socket import SHUT_RDWR
from socket import socket as _socket  # a handler may replace the module's
from types import FrameType
from typing import Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

SignalHandler: TypeAlias = Any  # as of signal.signal


class Open(Protocol):
    def fileno(self) -> int: ...


class _State(threading.local):
    """Of the thread that forks, from before the fork to after it."""

    mask: set[int] | None = None
    loop: asyncio.AbstractEventLoop | None = None


_private: WeakSet[Open] = WeakSet()
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()  # of workers; the thread of each
_handling: set[int] = set()  # this process, if it runs nothing but handlers
_signals: dict[int, SignalHandler] = {}
_before = _State()


def keep_private(opened: Open) -> None:
    """Close it in children after a fork."""
    _private.add(opened)


def shut(opened: Open) -> None:
    """Shut down a connection, which closes it for its peer although a child process may hold it too."""
    if opened in _private:
        with contextlib.suppress(OSError, ValueError), _socket(fileno=os.dup(opened.fileno())) as copy:
            copy.shutdown(SHUT_RDWR)


def keep_loop(loop: asyncio.AbstractEventLoop) -> None:
    """End a child that is forked in this thread when it comes back to the event loop."""
    _loops[loop] = threading.get_ident()


def forget_loop(loop: asyncio.AbstractEventLoop) -> None:
    _loops.pop(loop, None)


def keep_all_loops() -> None:
    """This process runs nothing but handlers: `keep_loop` for each event loop that one of them runs."""
    _handling.add(os.getpid())


def take_signals(handlers: dict[int, SignalHandler]) -> dict[int, SignalHandler]:
    """Set signal handlers, in the main thread, for this process but not for its children. Returns those before."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    _signals.update({number: handler or signal.SIG_DFL for number, handler in before.items()})
    return before


def give_back_signals(before: dict[int, SignalHandler]) -> None:
    """Undo `take_signals`."""
    for number, handler in before.items():
        signal.signal(number, handler or signal.SIG_DFL)
        _signals.pop(number, None)


def quiet(number: int, frame: FrameType | None) -> None:
    """A signal handler that does nothing. Unlike SIG_IGN, a program that the process starts does not inherit it."""


# --- around a fork ----------------------------------------------------------------------------------------------------


def _before_fork() -> None:
    if _signals:  # no signal may reach a child that still has its parent's handlers
        _before.mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, _signals))
    if _handling or _loops:  # a handler may run a loop of its own, in any thread
        _before.loop = asyncio._get_running_loop()


def _after_in_parent() -> None:
    _before.loop = None
    if _before.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)
        _before.mask = None


def _after_in_child() -> None:
    if _signals:
        signal.set_wakeup_fd(-1)
        for number, handler in _signals.items():
            signal.signal(number, handler)
        _signals.clear()
    _hide(_private)
    _private.clear()
    _leave_loops()
    _after_in_parent()


def _hide(opened: WeakSet[Open]) -> None:
    """Put /dev/null in the place of descriptors. A number that is closed would be given to another file."""
    null = os.open(os.devnull, os.O_RDWR)
    for one in opened:
        with contextlib.suppress(OSError, ValueError):  # it is closed
            if (descriptor := one.fileno()) >= 0:
                os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _leave_loops() -> None:
    """End a child as soon as it comes back to an event loop, which is its parent's.

    The two share the loop's poll object: what the child removes from it, when it closes the loop, the parent waits for.
    """
    left = [loop for loop, thread in _loops.items() if thread == threading.get_ident()]
    if _before.loop is not None and _before.loop not in left:
        left.append(_before.loop)
    for loop in left:
        _replace_poll(loop)
        loop.call_soon(os._exit, 0)


def _replace_poll(loop: Any) -> None:
    """Give a loop a poll object of its own, which knows no descriptor."""
    if not hasattr(select, "epoll"):
        return
    with contextlib.suppress(OSError, AttributeError), select.epoll() as nothing:
        # uvloop's and asyncio's know their descriptor by different names
        polled = loop._get_backend_id() if hasattr(loop, "_get_backend_id") else loop._selector.fileno()
        os.dup2(nothing.fileno(), polled, inheritable=False)


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
