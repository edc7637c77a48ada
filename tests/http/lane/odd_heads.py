"""Requests around a body: good heads in several styles, and heads and framings that a client should not send."""

from __future__ import annotations

import random

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STYLES = [  # what header lines a client sends, `%s` stands for the lines that change
    "%sHost: test\r\nAuthorization: Bearer {secret}\r\nUser-Agent: fuzz\r\nContent-Type: application/json\r\n",
    "Host: test\r\nUser-Agent: curl/8\r\nAccept: */*\r\nAuthorization: Bearer {secret}\r\n%s",
    "host: test\r\n%sauthorization: Bearer {secret}\r\nconnection: keep-alive\r\n",
    "Host: test\r\nX-Odd: 1\r\n%sAuthorization: Bearer {secret}\r\n",
]
ODD_LINES = [
    "Connection: close", "Connection: Keep-Alive", "Connection: keep-alive, close", "connection:close",
    "Expect: 100-continue",
    "Expect: x", "X-Request-Id: mine", "X-Request-Id: \xe9", "Idempotency-Key: one", "Idempotency-Key: two",
    "Idempotency-Key:",
    "idempotency-key:three", "IDEMPOTENCY-KEY: four ", "Idempotency-Key: five,six", "Authorization: Bearer x",
    "Authorization: Basic eDp5", f"traceparent: {TRACE}", f"traceparent: {TRACE.replace('01', '00')}", "Host: other",
    "Host:",
    "Content-Length: 2", "Content-Length: 0", "Content-Length: -1", "Content-Length: 2, 2", "Content-Length:",
    "Content-Type: x",
    "Content-Encoding: gzip", "Content-Encoding: identity", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked, chunked", "Upgrade: websocket", "Upgrade: h2c", "Accept: text/html", "X: y\r\n folded",
    " leading: space", "No-Colon", "X\x00: y", "X: y\x00", "X : y", ": y", "X: \xff", "Cookie: " + "c" * 900,
    "Accept: " + "a" * 1500,
    "Te: trailers", "Range: bytes=0-1", "If-None-Match: *", "X-HTTP-Method-Override: DELETE",
    "X-Forwarded-For: 10.0.0.1",
]  # fmt: skip
TARGETS = [  # `%s` is the route's path
    "http://test%s", "http://other:1%s", "https://test%s", "//test%s", "%s?", "%s?a=b", "%s?wait_ms=5", "%s#f",
    "%s/", "/%s",
    "/.%s", "%s/.", "%s/..", "/x/..%s", "%s;a=b", "%s%%20", "%s%%00", "%s%%2f", "*", "%s%%", "%s\\", "%s\x7f",
    "%s\xe9", "%s ",
]  # fmt: skip
VERSIONS = [
    "HTTP/1.0",
    "HTTP/1.0",
    "HTTP/0.9",
    "HTTP/2.0",
    "HTTP/1.2",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/11",
    "HTTQ/1.1",
    "",
]
METHODS = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "post", "POSTS", "BREW", "CONNECT", "", "PRI"]


def chunked(body: bytes, rng: random.Random) -> bytes:
    """The body in chunks: mostly good ones, some with extensions, trailers or a fault."""
    parts = []
    while body:
        size = rng.randrange(1, len(body) + 1)
        extension = rng.choice([b"", b"", b"", b";a=b", b';a="b;c"', b";" + b"e" * rng.choice([9, 200, 300, 900])])
        parts.append(rng.choice([b"%x", b"%X", b"0%x"]) % size + extension + b"\r\n" + body[:size] + b"\r\n")
        body = body[size:]
    trailers = rng.choice(
        [b"", b"", b"", b"T: v\r\n", b"Content-Length: 5\r\n", b"X\r\n", b"T: v\r\n" * rng.choice([2, 99, 101])]
    )
    parts.append(b"0\r\n" + trailers + b"\r\n")
    if rng.random() < 0.25:
        at = rng.randrange(len(parts))
        parts[at] = rng.choice(
            [b"zz\r\n", b"-1\r\n", b"\r\n", b"5", b"ffffffffffffffffff\r\n", b"5 \r\nhello\r\n", parts[at][:-2]]
        )
    return b"".join(parts)


def request(path: str, secret: str, lines: list[str], body: bytes, rng: random.Random, odd: bool) -> bytes:
    """A request of the short way with `body`.

    Args:
        lines: more header lines.
        odd: change the head in one to three places.
    """
    style = rng.choices(STYLES, [8, 4, 4, 1])[0]
    method, target, version = "POST", path, "HTTP/1.1"
    text = style.format(secret=secret)
    framed = body
    changes = rng.choices(range(9), k=rng.choice([1, 1, 2, 3])) if odd else []
    if 0 in changes:
        framed = chunked(body, rng)
        lines = [*lines, "Transfer-Encoding: chunked"]
    elif body or rng.random() < 0.5:
        lines = [*lines, f"Content-Length: {len(body)}"]
    for change in changes:
        if change == 1:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(ODD_LINES))
        elif change == 2 and lines:
            lines.append(rng.choice(lines))
        elif change == 3:
            target = rng.choice(TARGETS).replace("%s", target, 1).replace("%%", "%")
        elif change == 4:
            version = rng.choice(VERSIONS)
        elif change == 5:
            method = rng.choice(METHODS)
        elif change == 6:
            text = text.replace(
                "Bearer ", rng.choice(["bearer ", "BEARER ", "Bearer  ", "Bearer\t", "Bearer", "Basic ", ""])
            )
        elif change == 7:
            lines = [_spaced(line, rng) for line in lines]
        elif change == 8:
            text = rng.choice(
                [
                    text.upper().replace(secret.upper(), secret),
                    text.replace("\r\n", "\n", 1),
                    text.replace("test", "", 1),
                ]
            )
    head = text.replace("%s", "".join(line + "\r\n" for line in lines))
    return f"{method} {target} {version}\r\n{head}\r\n".encode("latin-1") + framed


def _spaced(line: str, rng: random.Random) -> str:
    """The line with other white space around its value, or another length."""
    name, _, value = line.partition(": ")
    if name == "Content-Length" and value.isdigit() and rng.random() < 0.5:
        return (
            f"{name}: {rng.choice(['0' + value, '+' + value, value + '0', str(max(0, int(value) - 1)), value + ' 1'])}"
        )
    return rng.choice(
        [f"{name}:{value}", f"{name}:  {value}", f"{name}:\t{value}\t", f"{name.upper()}: {value}", f"{name}: {value} "]
    )
