"""The roots of all errors, and how a message repeats a caller's text."""

from __future__ import annotations

ECHO_CHARACTERS_MAX = 200


def shown(text: str) -> str:
    """A caller's text as a message repeats it: at most ECHO_CHARACTERS_MAX characters."""
    return text if len(text) <= ECHO_CHARACTERS_MAX else text[:ECHO_CHARACTERS_MAX] + "…"


class FastqError(Exception):
    """The root of all of them."""


class ApiError(FastqError):
    """A refusal: the command changed nothing. The message says what was wrong, the limit, and what to do.

    Args:
        code: a stable word that programs may test.
        retry_after_s: when the same command may succeed, from now; None: waiting does not help.
    """

    code: str
    retry_after_s: int | None = None

    def fields(self) -> dict[str, str]:
        """What a program may want to know beside the code, by name."""
        return {}


class StartError(FastqError):
    """The server does not start. The message says what to do about it."""

    exit_code = 1
