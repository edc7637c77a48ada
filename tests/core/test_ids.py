"""Job ids and lease tokens."""

from __future__ import annotations

import uuid

import pytest

from fastq._core import ALL, Ack, Core, CoreSettings, NewJob, Tail
from fastq.errors import JobNotFound, LeaseLost

NOW_US = 1_763_973_600_123_456


def new_core() -> Core:
    tail = Tail(512, 1 << 20, 1 << 20)
    tail.offer_segment(1, 4096, 1 << 20)
    core = Core(tail, CoreSettings())
    core.identify(b"\xa7" * 16)
    return core


def submit(core: Core, now_us: int) -> str:
    return core.submit(now_us, NewJob(b"1", 1), owner_id="o", key_id="k")[0]


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_it() -> None:
    job_id = submit(new_core(), NOW_US)
    parsed = uuid.UUID(job_id)
    assert str(parsed) == job_id
    assert parsed.version == 7 and parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == NOW_US // 1000
    assert parsed.int >> 64 & 0xFFF == NOW_US % 1000


def test_ids_sort_by_creation() -> None:
    core = new_core()
    ids = [submit(core, NOW_US + step // 3) for step in range(3000)]
    assert ids == sorted(ids) and len(set(ids)) == 3000


def test_any_other_spelling_of_an_id_is_refused() -> None:
    core = new_core()
    job_id = submit(core, NOW_US)
    assert core.job(NOW_US, ALL, job_id).job_id == job_id
    for i, char in enumerate(job_id):
        other = job_id[:i] + ("0" if char != "0" else "1") + job_id[i + 1 :]
        with pytest.raises(JobNotFound):
            core.job(NOW_US, ALL, other)
    for other in [job_id.upper(), job_id[:-1], job_id + "0", job_id.replace("-", ""), f"{{{job_id}}}", " " + job_id]:
        with pytest.raises(JobNotFound):
            core.job(NOW_US, ALL, other)


def siphash_2_4(key: bytes, data: bytes) -> int:
    """An independent SipHash, written from its paper; checked below by the paper's own test value."""
    mask = (1 << 64) - 1
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def half_round(a: int, b: int, s: int) -> None:
        v[a] = (v[a] + v[b]) & mask
        v[b] = ((v[b] << s | v[b] >> (64 - s)) & mask) ^ v[a]

    def rounds(n: int) -> None:
        for _ in range(n):
            half_round(0, 1, 13)
            half_round(2, 3, 16)
            v[0] = (v[0] << 32 | v[0] >> 32) & mask
            half_round(2, 1, 17)
            half_round(0, 3, 21)
            v[2] = (v[2] << 32 | v[2] >> 32) & mask

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_a_token_is_the_lease_number_and_a_mac() -> None:
    assert siphash_2_4(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5  # the paper's appendix
    core = new_core()
    submit(core, NOW_US)
    (leased,) = core.lease(NOW_US, ["default"], 1, lease_ms=1000, key_id="k")
    halves = [siphash_2_4(b"\xa7" * 16, b"lease token %d" % i).to_bytes(8, "little") for i in (0, 1)]
    mac = siphash_2_4(b"".join(halves), (1).to_bytes(8, "little") + (1).to_bytes(4, "little"))
    assert leased.token == f"{1:08x}{mac:016x}"


def test_every_changed_token_is_refused() -> None:
    core = new_core()
    job_id = submit(core, NOW_US)
    (leased,) = core.lease(NOW_US, ["default"], 1, lease_ms=1000, key_id="k")
    for i, char in enumerate(leased.token):
        forged = leased.token[:i] + ("0" if char != "0" else "1") + leased.token[i + 1 :]
        with pytest.raises(LeaseLost):
            core.ack(NOW_US, ALL, Ack(job_id, forged), key_id="k")
    assert core.ack(NOW_US, ALL, Ack(job_id, leased.token), key_id="k")
