"""Templates: Jinja2 with everything escaped, and the filters that write numbers, times and JSON for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

PRETTY_BYTES_MAX = 64 << 10  # of a payload on a page; there is a link to the whole
_JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


class Renderer:
    """Renders the templates. Jinja2 is loaded with the first page: a server without a console's visitor needs none.

    Args:
        globals: what each template sees.
    """

    def __init__(self, now_us: Callable[[], int], **globals: Any) -> None:
        self._now_us, self._globals = now_us, globals
        self._environment: Environment | None = None

    def load(self) -> None:
        """Load Jinja2 and compile all templates. It takes a few tenths of a second; any thread may do it."""
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 -- see the class

        made = Environment(
            loader=PackageLoader("fastq.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        made.filters.update(
            age=self._age, at=at_text, iso=iso, count=count_text, bytes=bytes_text, seconds=seconds_text,
            rate=rate_text, pretty=pretty, plain=plain, span=span_text,
        )  # fmt: skip
        made.globals.update(self._globals)
        for name in made.list_templates():
            made.get_template(name)
        self._environment = made

    @property
    def is_loaded(self) -> bool:
        return self._environment is not None

    def render(self, template: str, **values: Any) -> str:
        if self._environment is None:
            self.load()
        assert self._environment is not None
        return self._environment.get_template(template).render(now_us=self._now_us(), **values)

    def _age(self, at_us: int) -> str:
        """How long ago a time is, or how far ahead: `3 min ago`, `in 2 h`."""
        ahead_us = at_us - self._now_us()
        if abs(ahead_us) < 1_000_000:
            return "now"
        return f"in {span_text(ahead_us)}" if ahead_us > 0 else f"{span_text(-ahead_us)} ago"


def static_text(name: str) -> bytes:
    return files("fastq.console").joinpath("static", name).read_bytes()


def iso(at_us: int) -> str:
    """A time in RFC 3339, UTC, for machines."""
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def at_text(at_us: int) -> str:
    """A time for people: `2026-11-27 22:41:03 UTC`."""
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span_text(us: float) -> str:
    """A length of time in its largest unit that says enough: `840 ms`, `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    seconds = us / 1_000_000
    if seconds < 1:
        return f"{us / 1000:.0f} ms" if us >= 1000 else f"{us / 1000:.1f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"


def seconds_text(seconds: float) -> str:
    return span_text(seconds * 1_000_000)


def count_text(number: int) -> str:
    """A number with its thousands apart: 4,112."""
    return f"{number:,}"


def rate_text(per_s: float) -> str:
    """A number per second, with as many digits as say something."""
    if per_s >= 100:
        return f"{per_s:,.0f}"
    return f"{per_s:.1f}" if per_s >= 0.05 or per_s == 0 else "<0.1"


def bytes_text(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def pretty(text: bytes | str) -> str:
    """Indent JSON text. Its numbers and strings and the order of its members stay as they are.

    Characters that turn the direction of text are shown as escapes. Text above PRETTY_BYTES_MAX is cut.
    """
    whole = text[:PRETTY_BYTES_MAX].decode("utf-8", "ignore") if isinstance(text, bytes) else text[:PRETTY_BYTES_MAX]
    out: list[str] = []
    depth, last = 0, ""
    for mark in _JSON_MARK.findall(whole):
        if mark in "}]":
            depth -= 1
            if last not in "{[":
                out.append("\n" + "  " * depth)
        elif last in ("{", "[", ","):
            out.append("\n" + "  " * depth)
        depth += mark in ("{", "[")
        out.append(": " if mark == ":" else mark)
        last = mark
    return plain("".join(out))


def plain(text: str) -> str:
    """Text of others as it is stored: control characters and those that turn its direction are shown as escapes."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
