"""The kinds of errors, and helpers of their messages."""

from __future__ import annotations

ECHO_MAX = 200  # characters of a caller's text that a message repeats


def shown(text: str) -> str:
    """A caller's text for a message, cut at ECHO_MAX characters."""
    return text if len(text) <= ECHO_MAX else text[:ECHO_MAX] + "…"


class FastqError(Exception):
    """The base of all errors."""


class ApiError(FastqError):
    """An answer other than success. `code` is stable and for programs; the message is for people."""

    status = 500
    code = "internal"

    def fields(self) -> dict[str, str]:
        """Further members of the answer's JSON object."""
        return {}

    def headers(self) -> dict[str, str]:
        """Further headers of the answer."""
        return {}


class StartError(FastqError):
    """The server does not start. The message says what to do about it."""

    exit_code = 1


def whole_seconds(wait_us: int) -> str:
    """A wait as whole seconds, at least 1, for a Retry-After header."""
    return str(max(1, -(-wait_us // 1_000_000)))
