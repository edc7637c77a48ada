"""Kept inputs of the lane's fuzzer: packets that were once answered differently by the two ways, or that nearly were.

A file has one kind. Each line is a packet as a Python bytes literal. `{client}`,
`{worker}` and `{admin}` stand for a key,
`{id}` and `{token}` for a held lease, and `{n}` for the number of bytes after the first blank line.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def packets(file: Path) -> list[bytes]:
    lines = file.read_text().splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def filled(packet: bytes, values: Mapping[str, str]) -> bytes:
    """The packet with the values in its places."""
    for name, value in values.items():
        packet = packet.replace(b"{%s}" % name.encode(), value.encode())
    _, _, body = packet.partition(b"\r\n\r\n")
    return packet.replace(b"{n}", str(len(body)).encode())


@cache
def kept_bodies() -> list[bytes]:
    """The bodies of packets with one request whose length is right."""
    found = [packet.partition(b"\r\n\r\n") for file in FILES for packet in packets(file)]
    return [body for head, _, body in found if b"{n}" in head and body and b"{id}" not in body]
