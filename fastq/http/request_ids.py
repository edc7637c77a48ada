"""Request ids."""

from __future__ import annotations

import re

_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestIds:
    """An id for each request: the caller's if it is well-formed, else a new one."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._next = 1

    def choose(self, offered: str | None) -> str:
        if offered is not None and _WELL_FORMED.fullmatch(offered):
            return offered
        return f"{self.instance}-{self.reserve(1):x}"

    def reserve(self, n: int) -> int:
        """Reserve n numbers and return the first. An id is the instance, `-` and a number in hexadecimal."""
        first = self._next
        self._next += n
        return first
