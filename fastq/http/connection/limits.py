"""What one connection may send, and how long it may take."""

from __future__ import annotations

import re

HEAD_BYTES_MAX = 16 << 10  # request line, headers and the blank line
HEADERS_MAX = 100
URL_BYTES_MAX = 8 << 10
CHUNK_EXTENSION_BYTES_MAX = 256
CHUNK_PIECE_BYTES = CHUNK_EXTENSION_BYTES_MAX + 32  # room for the size and the line's end
HEAD_S_MAX = 10.0
BODY_S_MAX = 30.0
UNREAD_S_MAX = 60.0  # how long a client may leave answers unread that do not fit into buffers any more
PIPELINED_MAX = 64  # requests read ahead of the one being answered
PIPELINED_BYTES = 4 << 10  # what each of them takes, about, beside its body
DISCARDED_BYTES_MAX = 8 << 20  # of a body whose request was answered before it came
LINGER_S = 1.0  # how long a refused client may take to read why before the connection goes

_HOST = re.compile(rb"[A-Za-z0-9._~%:\[\]-]*")


def is_host(value: bytes) -> bool:
    """Whether this may be the value of a Host header."""
    return _HOST.fullmatch(value) is not None
