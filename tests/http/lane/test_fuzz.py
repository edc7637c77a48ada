"""The short form of the lane's differential fuzzer, and its kept inputs: see `tests.http.lane.fuzz`."""

from __future__ import annotations

import zlib
from pathlib import Path

import orjson
import pytest

from tests.http.lane import records
from tests.http.lane.corpus import FILES, filled, packets
from tests.http.lane.fuzz import Side, compare, compare_states, fuzz, pair

REQUESTS = 3000
POST = "POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {secret}\r\nContent-Length: {n}\r\n\r\n"


@pytest.mark.parametrize("seed", range(3))
async def test_both_ways_have_the_same_answers_records_and_jobs(seed: int) -> None:
    sent, taken = await fuzz(seed, REQUESTS)
    assert taken > sent / 6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_kept_inputs(file: Path) -> None:
    """Each packet alone, and behind a request of the short way; whole and byte by byte."""
    async with pair(0) as sides:
        for packet in packets(file):
            for behind in (False, True):
                for bytewise in (False, True):
                    values = await held_lease(sides)
                    data = filled(packet, values)
                    if behind:
                        data = posted("/jobs", values["client"], b'{"payload":1}') + data
                    pieces = [data[at : at + 1] for at in range(len(data))] if bytewise else [data]
                    await compare(sides, pieces, file.stem)
        await compare_states(sides, file.stem)
        assert sides[0].taken > 0


def posted(path: str, secret: str, body: bytes) -> bytes:
    return POST.format(path=path, secret=secret, n=len(body)).encode() + body


async def held_lease(sides: tuple[Side, Side]) -> dict[str, str]:
    """A new job's lease, from heads that the short way knows."""
    secrets = sides[0].world.secrets
    values = {name: secrets[name] for name in ("client", "worker", "admin")}
    await compare(sides, [posted("/jobs", values["client"], b'{"payload":1}')], "submit")
    (body,) = await compare(sides, [posted("/jobs/lease", values["worker"], b"{}")], "lease")
    lease = orjson.loads(body)
    return values | {"id": lease["job_id"], "token": lease["lease_token"]}


# --- the comparison itself --------------------------------------------------------------------------------------------


def record(kind: int, flags: int, body: bytes) -> bytes:
    check = zlib.crc32(body)
    return records.HEAD.pack(kind, 1, flags, records.HEAD.size + len(body), check) + body


JOB_7 = (7).to_bytes(8, "little")
JOB_8 = (8).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (record(4, 0, JOB_7), record(4, 0, JOB_7), True),
        (record(4, 0, JOB_7), record(4, 0, JOB_8), False),
        (record(4, 0, JOB_7), record(4, 1, JOB_7), False),
        (record(4, 0, JOB_7), b"", False),
        (record(4, 0, JOB_7 + b"a"), record(4, 0, JOB_7 + b"b"), False),
        (record(5, 0, JOB_7 + b"a"), record(5, 0, JOB_7 + b"b"), False),
        (record(5, 64, JOB_7 + b"a"), record(5, 64, JOB_7 + b"b"), True),  # the place of the record before it
        (record(5, 64, JOB_7 + b"a" * 13), record(5, 64, JOB_7 + b"b" * 13), False),
        (record(8, 0, record(4, 0, JOB_7)), record(4, 0, JOB_7), True),  # alone in a group
        (record(8, 0, record(4, 0, JOB_7) + record(4, 0, JOB_8)), record(4, 0, JOB_7) + record(4, 0, JOB_8), False),
        (record(3, 0, JOB_7) + record(11, 0, JOB_8), record(11, 0, JOB_8) + record(3, 0, JOB_7), True),
        (record(3, 0, JOB_7) + record(4, 0, JOB_7), record(4, 0, JOB_7) + record(3, 0, JOB_7), False),
    ],
)
def test_what_counts_as_a_difference_of_records(one: bytes, other: bytes, same: bool) -> None:
    assert (records.difference(one, other) == "") is same
