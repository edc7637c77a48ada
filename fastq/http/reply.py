"""Answers: JSON bodies, and times in RFC 3339, UTC with `Z`, to the microsecond."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson

JSON = "application/json"
_EPOCH = datetime(1970, 1, 1)  # naive: _AS_UTC tells orjson that it is UTC
_AS_UTC = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def time_of(unix_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_us)


def encode(answer: Any) -> bytes:
    return orjson.dumps(answer, option=_AS_UTC)
