"""Limits of one connection: sizes and times."""

from __future__ import annotations

import re

HEAD_BYTES_MAX = 16 << 10  # request line, headers and the blank line
HEADERS_MAX = 100
URL_BYTES_MAX = 8 << 10
CHUNK_EXTENSION_BYTES_MAX = 256
CHUNK_PIECE_BYTES = CHUNK_EXTENSION_BYTES_MAX + 32  # with the chunk's size and the line's end
HEAD_S_MAX = 10.0
BODY_S_MAX = 30.0
UNREAD_S_MAX = 60.0  # how long unread answers above UNREAD_BYTES_FREE stay, and any of a connection that closes
UNREAD_BYTES_FREE = 4 << 10  # unread bytes of a connection that are not counted
PIPELINED_MAX = 64  # requests after the one that is being answered
PIPELINED_BYTES = 4 << 10  # memory of each of them, about, without its body
DISCARDED_BYTES_MAX = 8 << 20  # of a body that arrives after its request was answered
LINGER_S = 1.0  # between a refusal and the end of the connection

_HOST = re.compile(rb"[A-Za-z0-9._~%:\[\]-]*")


def is_host(value: bytes) -> bool:
    """Whether `value` is a valid Host header."""
    return _HOST.fullmatch(value) is not None
