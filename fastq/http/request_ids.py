"""The names of requests."""

from __future__ import annotations

import re

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestIds:
    """One id a request: the caller's if it is sane, else one that this process never gave before."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._next = 1

    def choose(self, offered: str | None) -> str:
        if offered is not None and _SANE_ID.fullmatch(offered):
            return offered
        return f"{self.instance}-{self.reserve(1):x}"

    def reserve(self, n: int) -> int:
        """The first of n numbers in a row. An id is the instance, `-` and a number in hexadecimal."""
        first = self._next
        self._next += n
        return first
