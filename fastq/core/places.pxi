# Places outside of the core, and in messages.

@cython.final
@cython.freelist(64)
cdef class RecordPlace:
    def __init__(self, uint64_t frame, uint32_t offset, uint32_t bytes):
        if frame >> FRAME_BITS or offset > FRAME_RECORD_BYTES_MAX or not 0 < bytes <= FRAME_RECORD_BYTES_MAX:
            raise ValueError(f"not a place: frame {frame}, offset {offset}, {bytes} bytes")
        self.place = new_place(frame, offset, bytes)

    @property
    def frame(self):
        return place_frame(&self.place)

    @property
    def offset(self):
        return place_offset(&self.place)

    @property
    def bytes(self):
        return place_bytes(&self.place)

    def __eq__(self, other):
        return isinstance(other, RecordPlace) and same_place(&self.place, &(<RecordPlace>other).place)

    def __hash__(self):
        return hash((self.place.low, self.place.high))

    def __repr__(self):
        return f"RecordPlace(frame={self.frame}, offset={self.offset}, bytes={self.bytes})"


cdef inline RecordPlace place_of(const Place* place):
    cdef RecordPlace made = RecordPlace.__new__(RecordPlace)
    made.place = place[0]
    return made


cdef str place_text(const Place* place):
    return f"frame {place_frame(place)}, offset {place_offset(place)}"
