"""The tail alone: where batches lie, which stay in memory, and when there is room."""

from __future__ import annotations

import random

import pytest

from fastq._core import FRAME_HEAD_BYTES, FRAME_RECORD_BYTES_MAX, Batch, Core, CoreSettings, RecordPlace, Tail
from fastq.errors import RecordTooLarge

HEAD_BYTES = 24  # of a document record named "n" by nobody: head 12, time 8, kind 1, name 2; and one byte of body


def core_on(tail: Tail) -> Core:
    return Core(tail, CoreSettings())


def put(core: Core, n: int, fill: bytes = b"x") -> None:
    """Append one record of n bytes."""
    core.put_document(1, 1, "n", fill * (n - HEAD_BYTES + 1))


def take_all(tail: Tail) -> list[Batch]:
    batches = []
    while (batch := tail.take()) is not None:
        batches.append(batch)
    return batches


def test_batches_are_adjacent() -> None:
    tail = Tail(512, 1 << 20, 4096)
    core = core_on(tail)
    tail.offer_segment(1, 4096, 32 * 1024)
    tail.offer_segment(2, 4096, 32 * 1024)
    rng = random.Random(3)
    expected, segment, seq = 4096, 1, 0
    for _ in range(40):
        for _ in range(rng.randrange(1, 4)):
            put(core, rng.randrange(HEAD_BYTES, 600))
        for batch in take_all(tail):
            seq += 1
            if batch.segment != segment:
                assert batch.segment == segment + 1, "segments are used in order"
                assert expected + batch.frame_bytes > 32 * 1024 - 512, "a segment was left though the batch fitted"
                segment, expected = batch.segment, 4096
            assert (batch.seq, batch.offset) == (seq, expected)
            expected += batch.frame_bytes
            assert expected <= 32 * 1024 - 512, "the last block belongs to the seal"


def test_padding_is_zero_also_in_memory_that_was_used_before() -> None:
    tail = Tail(4096, 0, 1 << 20)
    core = core_on(tail)
    tail.offer_segment(1, 4096, 64 << 20)
    for n in [1_040_000] * 3 + [30, 5000] * 300:
        put(core, n, b"\xff")
        for batch in take_all(tail):
            frame = bytes(batch)
            assert frame[:FRAME_HEAD_BYTES] == bytes(FRAME_HEAD_BYTES)
            assert not any(frame[FRAME_HEAD_BYTES + batch.record_bytes :])
            tail.durable(batch.seq)
    assert tail.memory_bytes < 8 << 20


def test_a_batch_keeps_its_bytes_while_others_fill_and_go() -> None:
    tail = Tail(512, 0, 1 << 20)
    core = core_on(tail)
    tail.offer_segment(1, 4096, 64 << 20)
    put(core, 500_000, b"a")
    first = tail.take()
    assert first is not None
    copy = bytes(first)
    for _ in range(8):
        put(core, 400_000, b"b")
    assert bytes(first) == copy


def test_the_cache_holds_what_was_written_last() -> None:
    tail = Tail(512, 64 * 1024, 1 << 20)
    core = core_on(tail)
    tail.offer_segment(1, 4096, 64 << 20)
    places: list[RecordPlace] = []
    for i in range(500):
        put(core, 1000, bytes([i % 251]))
        batch = tail.take()
        assert batch is not None
        places.append(RecordPlace(batch.seq, 0, batch.record_bytes))
        assert tail.cached(places[-1]) is not None, "what is not durable is in memory"
        tail.durable(batch.seq)
    cached = [tail.cached(place) for place in places]
    first = next(i for i, record in enumerate(cached) if record is not None)
    assert all(record is None for record in cached[:first])
    for i in range(first, 500):
        record = cached[i]
        assert record is not None and record[-1] == i % 251 and len(record) == 1000
    assert 30 <= 500 - first <= 43  # 64 KiB of frames of 1,536 bytes
    assert tail.cached(RecordPlace(501, 0, 10)) is None, "it is not begun"
    assert tail.cached(RecordPlace(500, 990, 11)) is None, "the frame ends before it does"


def test_has_room_agrees_with_append() -> None:
    """If `has_room` is true the append succeeds, at random sizes around the limits."""
    rng = random.Random(11)
    for _ in range(300):
        tail = Tail(512, 0, 4096)
        core = core_on(tail)
        assert not tail.has_room(HEAD_BYTES, 0)
        for number in range(1, rng.randrange(2, 5)):
            tail.offer_segment(number, 4096, 16 * 1024)
        while tail.has_room(n := rng.choice([HEAD_BYTES, 400, 3000, 9000]), 0):
            left = tail.segments_offered
            put(core, n)
            assert tail.segments_offered >= left - 1
            if rng.random() < 0.4:
                tail.take()


def test_has_room_keeps_spare_segments() -> None:
    tail = Tail(512, 0, 4096)
    core = core_on(tail)
    tail.offer_segment(1, 4096, 16 * 1024)
    tail.offer_segment(2, 4096, 16 * 1024)
    assert tail.has_room(1000, 1) and not tail.has_room(1000, 2)
    while tail.has_room(1000, 1):
        put(core, 1000)
    assert tail.segments_offered == 1 and tail.has_room(1000, 0)


def test_a_record_larger_than_a_segment_changes_nothing() -> None:
    tail = Tail(512, 0, 4096)
    core = core_on(tail)
    tail.offer_segment(1, 4096, 16 * 1024)
    put(core, 100)
    tail.offer_segment(2, 4096, 16 * 1024)
    with pytest.raises(RecordTooLarge):
        put(core, 20_000)
    assert tail.segments_offered == 1
    put(core, 100)
    assert [batch.count for batch in take_all(tail)] == [1, 1]


def test_a_frame_is_bounded_by_the_bits_of_a_place() -> None:
    tail = Tail(4096, 0, 4096)
    core = core_on(tail)
    for number in (1, 2):
        tail.offer_segment(number, 4096, 128 << 20)
    assert tail.record_bytes_max == FRAME_RECORD_BYTES_MAX
    put(core, 100)
    put(core, FRAME_RECORD_BYTES_MAX)
    put(core, 100)
    with pytest.raises(RecordTooLarge):
        put(core, FRAME_RECORD_BYTES_MAX + 1)
    assert [batch.record_bytes for batch in take_all(tail)] == [100, FRAME_RECORD_BYTES_MAX, 100]
    place = RecordPlace(2, FRAME_RECORD_BYTES_MAX - 1, 1)
    assert tail.cached(place) == b"x"
    with pytest.raises(ValueError, match="batch_bytes_max"):
        Tail(4096, 0, FRAME_RECORD_BYTES_MAX + 1)


def test_a_place_holds_each_number_up_to_its_last_bit() -> None:
    edges = (1, 2**13 - 1, 2**26 - 1)
    for frame in (0, 1, 2**12 - 1, 2**12, 2**44 - 1):
        for offset in (0, *edges):
            for length in edges:
                place = RecordPlace(frame, offset, length)
                assert (place.frame, place.offset, place.bytes) == (frame, offset, length)
    same, other = RecordPlace(7, 8, 9), RecordPlace(7, 9, 8)
    assert same == RecordPlace(7, 8, 9) and same != other and hash(same) == hash(RecordPlace(7, 8, 9))
    for outside in ((2**44, 0, 1), (0, 2**26, 1), (0, 0, 2**26), (0, 0, 0)):
        with pytest.raises(ValueError, match="not a place"):
            RecordPlace(*outside)


@pytest.mark.parametrize("align", [0, 100, 511, 768, 1 << 17])
def test_align_is_a_power_of_two_in_range(align: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Tail(align, 0, 4096)


def test_sequence_numbers_go_on_where_the_log_ended() -> None:
    tail = Tail(512, 0, 4096)
    tail.resume(42)
    assert (tail.appended_seq, tail.durable_seq) == (41, 41)
    core = core_on(tail)
    tail.offer_segment(9, 4096, 16 * 1024)
    put(core, 100)
    assert (tail.appended_seq, tail.durable_seq, tail.unsynced_bytes) == (42, 41, 100)
    batch = tail.take()
    assert batch is not None and (batch.seq, batch.durable_seq) == (42, 41)
    tail.durable(42)
    assert (tail.durable_seq, tail.unsynced_bytes) == (42, 0)
