"""HTTP/1.1 without I/O: builds requests and parses answers, one request at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httptools

from fastq import __version__
from fastq.client.protocol import Answer, Call

RETRY_AFTER_S_MAX = 3600.0
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')  # in a header Link


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server, and the header fields of every request to it."""

    host: str
    port: int
    is_tls: bool
    prefix: str
    head: bytes

    @classmethod
    def of(cls, url: str, key: str) -> Address:
        """Raises ValueError. The message never contains the key."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"url must be http://host:port or https://host:port, not {url!r}: {error}") from None
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        if not is_url or any(character.isspace() for character in url):
            raise ValueError(f"url must be http://host:port or https://host:port, not {url!r}")
        if parts.username is not None:
            raise ValueError("url must not contain a user name: pass the key as `key`")
        if not key:
            raise ValueError("a key is needed: set FASTQ_KEY or pass key=")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("key must be an API key: printable ASCII without spaces")
        is_tls = parts.scheme == "https"
        head = (
            f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nUser-Agent: fastq-python/{__version__}\r\n"
            "Content-Type: application/json\r\n"
        )
        return cls(str(parts.hostname), port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"), head.encode())

    def request(self, call: Call[object]) -> bytes:
        """The bytes of a request. Raises ValueError: the idempotency key is not printable ASCII."""
        key = call.idempotency_key
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError("idempotency_key must be printable ASCII")
        keyed = f"Idempotency-Key: {key}\r\n" if key else ""
        first = f"{call.method} {self.prefix}{call.path} HTTP/1.1\r\n{keyed}Content-Length: {len(call.body)}\r\n"
        return b"".join((first.encode(), self.head, b"\r\n", call.body))


class Reply:
    """The parser of one answer. Feed it until `answer` is set."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.keep_alive = False
        self._body = bytearray()
        self._retry_after_s: float | None = None
        self._request_id = ""
        self._cursor = ""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse more bytes. Raises ValueError: they are not HTTP."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise ValueError(f"the answer is not HTTP: {error}") from error

    # --- called by the parser -----------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"retry-after" and value.isdigit():
            self._retry_after_s = min(float(value), RETRY_AFTER_S_MAX)
        elif name == b"x-request-id":
            self._request_id = value.decode("latin-1")
        elif name == b"link" and (following := _NEXT.search(value.decode("latin-1"))):
            (self._cursor,) = parse_qs(urlsplit(following[1]).query).get("cursor", [""])[:1]

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # 1xx: the answer follows
            self.keep_alive = self._parser.should_keep_alive()
            self.answer = Answer(status, bytes(self._body), self._retry_after_s, self._request_id, self._cursor)
