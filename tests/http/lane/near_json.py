"""Bodies that are almost JSON, or JSON at its limits: made from a good body by one change."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

NUMBERS = [
    b"0", b"-0", b"-0.0", b"00", b"01", b"-01", b"1.", b".5", b"+1", b"1.0", b"1e5", b"1E+2", b"1e-2", b"1e400",
    b"1e999",
    b"-1e999", b"1e-400", b"1e308", b"1.8e308", b"NaN", b"Infinity", b"-Infinity", b"0x10", b"1_000", b"--1", b"-",
    b"1e",
    b"2147483647", b"2147483648", b"-2147483648", b"-2147483649", b"4294967296", b"9007199254740993",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809",
    b"18446744073709551615", b"18446744073709551616", b"1" * 100, b"1" * 101, b"1" * 400, b"1" * 401, b"0." + b"1" * 99,
]  # fmt: skip
STRINGS = [
    rb'"\ud83d"', rb'"\ude00"', rb'"\ud83d\ude00"', rb'"\ude00\ud83d"', rb'"\ud83d\u0041"', rb'"\u00"', rb'"\u00g0"',
    rb'"\u0000"', rb'"\x41"', rb'"\/"', rb'"\a"', b'"\\', b'"\\"', b'"\x00"', b'"\x1f"', b'"\x7f"', b'"\t"', b'"\n"',
    b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x80\xa8"', b'"\xc3"', b'"\xef\xbf\xbf"',
    b"'a'", b'"a', b'"' + b"a" * 7 + b'"', b'"' + b"a" * 8 + b'\n"', b'"aaaaaaa\\"', b'"aaaaaa\\u00e9"',
]  # fmt: skip
WORDS = [
    b"tru",
    b"true1",
    b"True",
    b"nul",
    b"nulll",
    b"undefined",
    b"fals",
    b"falsey",
    b"[]",
    b"{}",
    b"[,]",
    b"{,}",
    b"",
]
SPACES = [b" ", b"\n", b"\t\r\n", b"\x0b", b"\x0c", b"\xc2\xa0", b"\xef\xbb\xbf", b"\x00", b"/**/", b"//x\n"]

_NUMBER = re.compile(rb"(?<=[:,\[ ])-?\d[\d.eE+-]*")
_STRING = re.compile(rb'"[^"\\]*"')
_NAME = re.compile(rb'"([a-z_]+)"(?= ?:)')
_VALUE = re.compile(rb"(?<=:)[^,{}\[\]]+")
_END = re.compile(rb"[}\]]")


def nested(depth: int, rng: random.Random) -> bytes:
    """`depth` levels of arrays and objects."""
    opened = [rng.choice([b"[", b'{"a":']) for _ in range(depth)]
    return b"".join(opened) + b"1" + b"".join(b"]" if one == b"[" else b"}" for one in reversed(opened))


def _somewhere(pattern: re.Pattern[bytes], change: Callable[[bytes, random.Random], bytes]) -> Callable[..., bytes]:
    def changed(body: bytes, rng: random.Random) -> bytes:
        found = list(pattern.finditer(body))
        if not found:
            return body
        one = rng.choice(found)
        return body[: one.start()] + change(one[0], rng) + body[one.end() :]

    return changed


def _escaped(name: bytes, rng: random.Random) -> bytes:
    """A member's name with one character as an escape."""
    at = rng.randrange(1, len(name) - 1)
    return name[:at] + b"\\u%04x" % name[at] + name[at + 1 :]


def _given_twice(body: bytes, rng: random.Random) -> bytes:
    members = re.findall(rb'"[a-z_]+" ?: ?(?:"[^"\\]*"|\d+|null|\{\})', body)
    if not members:
        return body
    at = body.find(b"{") + 1
    return body[:at] + rng.choice(members) + b"," + body[at:]


def _inserted(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice([*SPACES, b",", b"}", b"]", b'"', b"\\", b"0", b"{", b"[", b":"]) + body[at:]


def _byte_changed(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body))
    return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]


def _part_doubled(body: bytes, rng: random.Random) -> bytes:
    at, to = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    return body[:to] + body[at:to] + body[to:]


def _part_dropped(body: bytes, rng: random.Random) -> bytes:
    at, to = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    return body[:at] + body[to:]


CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    lambda body, rng: body[: rng.randrange(len(body))],  # cut
    lambda body, rng: body[: rng.choice([one.end() for one in _END.finditer(body)] or [0])],  # cut at a bracket
    lambda body, rng: body + rng.choice([*SPACES, b",", b"}", b"]", b"1", body]),
    lambda body, rng: rng.choice(SPACES) + body,
    _somewhere(_END, lambda end, rng: rng.choice([b",", b" , ", b",,"]) + end),
    _somewhere(_END, lambda end, rng: b"" if rng.random() < 0.5 else bytes([end[0] ^ 0x26])),  # ] for }, } for ]
    _somewhere(_NUMBER, lambda _, rng: rng.choice(NUMBERS)),
    _somewhere(_NUMBER, lambda _, rng: rng.choice(NUMBERS)),
    _somewhere(_STRING, lambda _, rng: rng.choice(STRINGS)),
    _somewhere(_VALUE, lambda _, rng: rng.choice(NUMBERS + STRINGS + WORDS)),
    _somewhere(_VALUE, lambda _, rng: nested(rng.choice([2, 61, 62, 63, 64, 65, 66]), rng)),
    _somewhere(_NAME, _escaped),
    _given_twice,
    _inserted,
    _byte_changed,
    _part_doubled,
    _part_dropped,
]


def changed(body: bytes, rng: random.Random) -> bytes:
    """The body with one change."""
    return rng.choice(CHANGES)(body, rng) if body else rng.choice([b"", *SPACES, *WORDS, b"{", b"[]", b"null"])
