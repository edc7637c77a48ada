# Where one record is: the sequence number of its frame, its offset in the frame's records, and its length. A place is
# known while the frame fills, and stays true in whatever file the frame lies. Records contain places as 12 bytes,
# little-endian: from the lowest bit on, 26 bits of length, 26 of offset, 44 of the frame.

cdef packed struct Place:   # 12 bytes; all zeros: none
    uint64_t low
    uint32_t high

cdef enum:
    PLACE_BITS = 26         # of a length, and of an offset
    FRAME_RECORD_BYTES_MAX = 0x3ffffff  # the records of a frame: 64 MiB - 1. A batch submit of 8 MiB is one record of
                            #   less than half of that
    FRAME_BITS = 44         # 46 years of 12,000 frames a second


cdef inline Place new_place(uint64_t frame, uint32_t offset, uint32_t bytes) noexcept nogil:
    cdef Place place
    place.low = frame << 2 * PLACE_BITS | <uint64_t>offset << PLACE_BITS | bytes
    place.high = <uint32_t>(frame >> (64 - 2 * PLACE_BITS))
    return place


cdef inline uint64_t place_frame(const Place* place) noexcept nogil:
    return <uint64_t>place.high << (64 - 2 * PLACE_BITS) | place.low >> 2 * PLACE_BITS


cdef inline uint32_t place_offset(const Place* place) noexcept nogil:
    return <uint32_t>(place.low >> PLACE_BITS) & FRAME_RECORD_BYTES_MAX


cdef inline uint32_t place_bytes(const Place* place) noexcept nogil:
    """The frame of a place; 0: no place."""
    return <uint32_t>place.low & FRAME_RECORD_BYTES_MAX


cdef inline bint same_place(const Place* one, const Place* other) noexcept nogil:
    return one.low == other.low and one.high == other.high


@cython.final
cdef class RecordPlace:     # a Place outside of the core
    cdef Place place
