"""The names of requests."""

from __future__ import annotations

import re
from itertools import count

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestIds:
    """One id a request: the caller's if it is sane, else one that this process never gave before."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._count = count(1)

    def choose(self, offered: str | None) -> str:
        if offered is not None and _SANE_ID.fullmatch(offered):
            return offered
        return f"{self._instance}-{next(self._count):x}"
