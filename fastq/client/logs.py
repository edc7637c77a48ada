"""The log of the worker itself. A log handler of the program that raises, or that a handler broke, does not stop it."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from fastq.client.errors import Interrupted

EXCEPTIONS_MAX = 100  # whose tracebacks are written for one line


class WorkerLog(logging.LoggerAdapter[logging.Logger]):
    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, {})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        try:
            super().log(level, msg, *args, stacklevel=2, **kwargs)
        except Interrupted:
            raise
        except BaseException:  # noqa: BLE001, S110 -- there is no other place to tell it
            pass

    def handle(self, record: logging.LogRecord) -> None:
        """Write a record of a child process, to the logger that it names."""
        own = self.logger.name == record.name
        logger = self.logger if own else logging.getLogger(record.name)
        try:
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        except BaseException:  # noqa: BLE001, S110 -- as above
            pass


def is_short(error: BaseException) -> bool:
    """Whether its traceback can be written while the event loop waits. That of a large group takes seconds."""
    found: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left and len(found) <= EXCEPTIONS_MAX:
        one = left.pop()
        if one is None or id(one) in found:
            continue
        found[id(one)] = one
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions[: EXCEPTIONS_MAX + 1]
        left += [one.__cause__, one.__context__]
    return len(found) <= EXCEPTIONS_MAX
