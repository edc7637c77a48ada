"""The sizes of new segments: a new log has small ones, and larger ones follow with use."""

from __future__ import annotations

from collections.abc import Sequence

SMALL_SEGMENT_BYTES = (
    33 << 19
)  # the records of the largest request take up to 16 MiB, and blocks of 64 KiB 256 KiB more


def segment_sizes(small_bytes: int, full_bytes: int) -> tuple[int, ...]:
    """The sizes that segments may have, ascending: each is twice the one before, and `full_bytes` is the last."""
    sizes = [min(small_bytes, full_bytes)]
    while sizes[-1] < full_bytes:
        sizes.append(min(2 * sizes[-1], full_bytes))
    return tuple(sizes)


def size_in_use(sizes: Sequence[int], used_bytes: int, largest_bytes: int) -> int:
    """The size of the next segment.

    Args:
        sizes: from `segment_sizes`.
        used_bytes: what the log's segments take.
        largest_bytes: of the largest segment that an opening found; 0: none. A log in use does not begin small again.
    """
    size = sizes[0]
    for larger in sizes[1:]:
        if 2 * size > used_bytes and size >= largest_bytes:
            break
        size = larger
    return size
