# The tail of the log in memory.

cdef enum:
    CHUNK_BYTES = 1 << 20
    CHUNK_ALIGN = 4096
    CHUNKS_SPARE_MAX = 4    # empty chunks kept for the next batches


cdef struct Chunk:          # memory for whole batches, one after the other
    char* data
    size_t capacity
    uint32_t extents        # batches in it, without the open one


cdef struct Extent:         # a closed batch
    uint64_t seq
    char* data
    Chunk* chunk
    uint32_t segment
    uint32_t offset
    uint32_t frame_bytes
    uint32_t record_bytes
    uint32_t count


cdef class Tail


@cython.final
cdef class Batch:
    cdef Tail tail          # keeps the memory
    cdef Extent extent
    cdef readonly uint64_t durable_seq


@cython.final
cdef class Tail:
    cdef readonly uint32_t align
    cdef size_t cache_bytes_max, batch_bytes_max, chunk_bytes_total, cached_bytes
    cdef readonly uint64_t unsynced_bytes, durable_seq
    cdef readonly uint64_t closed_bytes     # of all closed batches since the start, as they lie on the disk
    cdef readonly uint64_t closed_batches, closed_records   # since the start
    cdef uint64_t next_seq          # of the open batch, or of the next one
    # the segment that fills, and the offered ones: (number, first_offset, bytes)
    cdef uint32_t segment
    cdef uint64_t write_offset      # the next frame's offset
    cdef uint64_t segment_end       # frames end before it: the last `align` bytes are for the seal
    cdef object offered
    # the open batch
    cdef Chunk* chunk
    cdef size_t chunk_used          # bytes of the chunk before the open batch
    cdef uint32_t open_bytes        # head and records
    cdef uint32_t open_count        # records; 0: no batch is open
    cdef uint32_t group_start       # offset of the open group's record in the open batch; 0: no group is open
    cdef uint32_t group_end         # its bound
    # closed batches, oldest first: a ring
    cdef Extent* extents
    cdef uint32_t ring_capacity, ring_first, ring_count
    cdef uint32_t durable_count     # how many of them are durable: the cache
    cdef uint32_t taken_count       # how many of them were taken, durable ones included
    cdef Chunk* spare[CHUNKS_SPARE_MAX]
    cdef int spare_count

    cdef const char* find(self, const Place* place) noexcept
    cpdef bint goes_here(self, uint64_t record_bytes) noexcept
    cpdef bint has_room(self, uint64_t record_bytes, uint32_t segments_left) except *
    cdef char* reserve(self, uint32_t n, Place* place) except NULL
    cdef char* reserve_in_group(self, uint32_t n, Place* place) except NULL
    cdef int begin_group(self, uint32_t bytes_max) except -1
    cdef void end_group(self) noexcept
    cdef uint64_t aligned(self, uint64_t n) noexcept
    cdef Extent* extent_at(self, uint32_t i) noexcept
    cdef int begin_segment(self, uint32_t n) except -1
    cdef int ensure(self, uint32_t n) except -1
    cdef int close_batch(self) except -1
    cdef int grow_ring(self) except -1
    cdef void evict(self) noexcept
    cdef Chunk* chunk_get(self, size_t needed) except NULL
    cdef void chunk_put(self, Chunk* chunk) noexcept
