"""Log lines on standard error, as text or JSON; and numbers as text."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

import orjson

from fastq.clock import wall_us

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_SECRET = re.compile(r"\b(client|worker|admin)_[A-Za-z0-9_-]{32,}")


def counted(n: int, noun: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def jobs_counted(counts: Mapping[str, int]) -> str:
    """`3 jobs (2 READY, 1 RUNNING)`. counts: of `Core.counts`."""
    states = ", ".join(f"{n:,} {state}" for state, n in counts.items() if n and state.isupper())
    return counted(counts["jobs"], "job") + (f" ({states})" if states else "")


def without_secrets(text: str) -> str:
    """`text` with everything that looks like a key masked."""
    return _SECRET.sub(r"\1_****", text)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    """The caller's `extra=` fields, such as request_id."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _time(created_s: float) -> str:
    moment = datetime.fromtimestamp(created_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def notice(message: str) -> str:
    """A line of the start message as JSON, with the members of a log line. It may have a secret: it is shown once."""
    line = {"time": _time(wall_us() / 1e6), "level": "info", "logger": "fastq.start", "message": message.strip()}
    return orjson.dumps(line).decode()


class TextFormatter(logging.Formatter):
    """time LEVEL logger: message name=value …; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        line = f"{_time(record.created)} {record.levelname} {record.name}: {record.getMessage()}{extras}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return without_secrets(line)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, the extras, and `exception` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _extras(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return without_secrets(orjson.dumps(line, default=str).decode())


def configure_logs(log_format: str, stream: IO[str] | None = None) -> None:
    """Send every logger's lines to `stream` (standard error).

    Args:
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # uvicorn logs its start and every connection; the server logs its own start once.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    access = logging.getLogger("uvicorn.access")
    access.handlers[:] = []
    access.propagate = False
    logging.getLogger("asyncio").setLevel(logging.WARNING)
