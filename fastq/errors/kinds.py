"""What kinds of errors there are, and what their messages share."""

from __future__ import annotations

ECHO_MAX = 200  # characters of a caller's text that a message repeats


def shown(text: str) -> str:
    """A caller's text as it may stand in a message: not without end."""
    return text if len(text) <= ECHO_MAX else text[:ECHO_MAX] + "…"


class FastqError(Exception):
    """The root of all of them."""


class ApiError(FastqError):
    """An answer other than success. `code` is a stable word that programs may test; the message is for people."""

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
    """For a Retry-After header."""
    return str(max(1, -(-wait_us // 1_000_000)))
