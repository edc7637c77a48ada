# The tail of the log in memory: batches are encoded where they are written from, and then stay as a bounded cache.

cdef Chunk* chunk_new(size_t capacity) except NULL:
    cdef Chunk* chunk = <Chunk*>malloc(sizeof(Chunk))
    cdef void* data = NULL
    if chunk == NULL or posix_memalign(&data, CHUNK_ALIGN, capacity) != 0:
        free(chunk)
        raise MemoryError
    chunk.data = <char*>data
    chunk.capacity = capacity
    chunk.extents = 0
    return chunk


cdef void chunk_free(Chunk* chunk) noexcept:
    free(chunk.data)
    free(chunk)


@cython.final
cdef class Batch:
    @property
    def seq(self):
        return self.extent.seq

    @property
    def segment(self):
        return self.extent.segment

    @property
    def offset(self):
        return self.extent.offset

    @property
    def record_bytes(self):
        return self.extent.record_bytes

    @property
    def frame_bytes(self):
        return self.extent.frame_bytes

    @property
    def count(self):
        return self.extent.count

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.extent.data, self.extent.frame_bytes, False, flags)

    def __repr__(self):
        return f"<Batch {self.seq}: {self.count} records at {self.segment}:{self.offset}>"


@cython.final
cdef class Tail:
    def __init__(self, uint32_t align, size_t cache_bytes, size_t batch_bytes_max):
        if align < 512 or align > 65536 or align & (align - 1):
            raise ValueError(f"align must be a power of two from 512 to 65536, not {align}")
        if batch_bytes_max > FRAME_RECORD_BYTES_MAX:
            raise ValueError(f"batch_bytes_max must be at most {FRAME_RECORD_BYTES_MAX}, not {batch_bytes_max}")
        self.align = align
        self.cache_bytes_max = cache_bytes
        self.batch_bytes_max = batch_bytes_max
        self.next_seq = 1
        self.offered = deque()
        self.ring_capacity = 64
        self.extents = <Extent*>malloc(64 * sizeof(Extent))
        if self.extents == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t i
        cdef Chunk* chunk
        for i in range(self.ring_count):
            chunk = self.extent_at(i).chunk
            chunk.extents -= 1
            if chunk.extents == 0 and chunk != self.chunk:
                chunk_free(chunk)
        free(self.extents)
        if self.chunk != NULL:
            chunk_free(self.chunk)
        for i in range(<uint32_t>self.spare_count):
            chunk_free(self.spare[i])

    # --- for the log --------------------------------------------------------------------------------------------------

    def resume(self, uint64_t next_seq):
        assert self.ring_count == 0 and self.open_count == 0, "resume comes before the first append"
        assert next_seq >> FRAME_BITS == 0, "a place has no more bits for the frame"
        self.next_seq = next_seq
        self.durable_seq = next_seq - 1

    def offer_segment(self, uint32_t number, uint32_t first_offset, uint32_t bytes):
        assert first_offset % self.align == 0 and bytes % self.align == 0
        self.offered.append((number, first_offset, bytes))

    @property
    def record_bytes_max(self):
        segments = [(self.segment_end + self.align) if self.segment else 0, *(found[2] for found in self.offered)]
        fitting = max(segments) - <int64_t>(4 * self.align + FRAME_HEAD_BYTES + CHUNK_ALIGN)
        return min(max(0, fitting), FRAME_RECORD_BYTES_MAX)

    def take(self):
        cdef Batch batch
        if self.taken_count == self.ring_count:
            if self.open_count == 0:
                return None
            self.close_batch()
        batch = Batch.__new__(Batch)
        batch.tail = self
        batch.extent = self.extent_at(self.taken_count)[0]
        batch.durable_seq = self.durable_seq
        self.taken_count += 1
        return batch

    def durable(self, uint64_t seq):
        cdef Extent* extent
        while self.durable_count < self.taken_count:
            extent = self.extent_at(self.durable_count)
            if extent.seq > seq:
                break
            self.durable_count += 1
            self.durable_seq = extent.seq
            self.unsynced_bytes -= extent.record_bytes
            self.cached_bytes += extent.frame_bytes
        while self.durable_count and self.cached_bytes > self.cache_bytes_max:
            self.evict()

    def cached(self, RecordPlace place not None):
        cdef const char* found = self.find(&place.place)
        return None if found == NULL else PyBytes_FromStringAndSize(found, place_bytes(&place.place))

    cdef const char* find(self, const Place* place) noexcept:
        """The bytes at a place, valid at least until the next append; NULL if they are not in memory."""
        cdef uint64_t frame = place_frame(place)
        cdef uint32_t offset = place_offset(place)
        cdef Extent* extent
        if frame >= self.next_seq:
            if frame > self.next_seq or FRAME_HEAD_BYTES + offset + place_bytes(place) > self.open_bytes:
                return NULL
            return self.chunk.data + self.chunk_used + FRAME_HEAD_BYTES + offset
        if frame + self.ring_count < self.next_seq:
            return NULL
        extent = self.extent_at(<uint32_t>(frame + self.ring_count - self.next_seq))
        if offset + place_bytes(place) > extent.record_bytes:
            return NULL
        return extent.data + FRAME_HEAD_BYTES + offset

    cpdef bint goes_here(self, uint64_t record_bytes) noexcept:
        cdef uint64_t needed = FRAME_HEAD_BYTES + record_bytes + 2 * self.align
        return self.write_offset + self.open_bytes + needed <= self.segment_end

    cpdef bint has_room(self, uint64_t record_bytes, uint32_t segments_left) except *:
        cdef uint64_t needed = FRAME_HEAD_BYTES + record_bytes + 2 * self.align
        cdef uint32_t ready = len(self.offered)
        if self.goes_here(record_bytes):
            return ready >= segments_left
        return ready > segments_left and self.offered[0][1] + needed + self.align <= self.offered[0][2]

    @property
    def room_bytes(self):
        free = self.segment_end - min(self.segment_end, self.write_offset + self.open_bytes)
        return free + sum([size - first - self.align for _, first, size in self.offered])

    @property
    def appended_seq(self):
        return self.next_seq if self.open_count else self.next_seq - 1

    @property
    def segments_offered(self):
        return len(self.offered)

    @property
    def memory_bytes(self):
        return self.chunk_bytes_total + self.ring_capacity * sizeof(Extent)

    # --- for the core -------------------------------------------------------------------------------------------------

    cdef char* reserve(self, uint32_t n, Place* place) except NULL:
        """Reserve n bytes for a record at the end of the open batch, and set its place."""
        cdef char* p
        if self.group_start:
            return self.reserve_in_group(n, place)
        if n > FRAME_RECORD_BYTES_MAX:
            raise RecordTooLarge(f"a record of {n} bytes: a frame takes at most {FRAME_RECORD_BYTES_MAX}")
        if self.open_count and (
            self.open_bytes + n > self.batch_bytes_max
            or self.write_offset + self.aligned(self.open_bytes + n) > self.segment_end
        ):
            self.close_batch()
        if self.open_count == 0:
            while self.write_offset + self.aligned(FRAME_HEAD_BYTES + n) > self.segment_end:
                self.begin_segment(n)
            self.open_bytes = FRAME_HEAD_BYTES
        self.ensure(n)
        p = self.chunk.data + self.chunk_used + self.open_bytes
        place[0] = new_place(self.next_seq, self.open_bytes - FRAME_HEAD_BYTES, n)
        self.open_bytes += n
        self.open_count += 1
        self.unsynced_bytes += n
        return p

    cdef char* reserve_in_group(self, uint32_t n, Place* place) except NULL:
        cdef char* p = self.chunk.data + self.chunk_used + self.open_bytes
        assert self.open_bytes + n <= self.group_end, "a group grew past its bound"
        place[0] = new_place(self.next_seq, self.open_bytes - FRAME_HEAD_BYTES, n)
        self.open_bytes += n
        self.unsynced_bytes += n
        return p

    cdef int begin_group(self, uint32_t bytes_max) except -1:
        """Begin a group: records reserved from here on become one record of at most bytes_max."""
        cdef Place place
        assert self.group_start == 0, "groups do not nest"
        self.reserve(RECORD_HEAD_BYTES + bytes_max, &place)
        self.open_bytes -= bytes_max
        self.unsynced_bytes -= bytes_max
        self.group_start = self.open_bytes - RECORD_HEAD_BYTES
        self.group_end = self.open_bytes + bytes_max
        return 0

    cdef void end_group(self) noexcept:
        """Complete the group's record. An empty group leaves no record."""
        cdef uint32_t n = self.open_bytes - self.group_start
        cdef char* record
        if n > RECORD_HEAD_BYTES:
            record = self.chunk.data + self.chunk_used + self.group_start
            put_head(record, GROUP, 0, n)
            seal(record, n)
        else:
            self.open_bytes -= RECORD_HEAD_BYTES
            self.unsynced_bytes -= RECORD_HEAD_BYTES
            self.open_count -= 1
            if self.open_count == 0:
                self.open_bytes = 0
        self.group_start = 0

    cdef inline uint64_t aligned(self, uint64_t n) noexcept:
        return (n + self.align - 1) & ~<uint64_t>(self.align - 1)

    cdef inline Extent* extent_at(self, uint32_t i) noexcept:
        return &self.extents[(self.ring_first + i) % self.ring_capacity]

    cdef int begin_segment(self, uint32_t n) except -1:
        cdef uint32_t first, size
        assert self.offered, "a record was appended without a segment to hold it"
        number, first, size = self.offered.popleft()
        if first + self.aligned(FRAME_HEAD_BYTES + n) > size - self.align:
            self.offered.appendleft((number, first, size))
            raise RecordTooLarge(f"a record of {n} bytes does not fit into a segment of {size}")
        self.segment = number
        self.write_offset = first
        self.segment_end = size - self.align
        return 0

    cdef int ensure(self, uint32_t n) except -1:
        """Make room for n more bytes and padding in the chunk; if it is too small, move the open batch to another."""
        cdef size_t needed = self.aligned(self.open_bytes + n)
        cdef Chunk* chunk = self.chunk
        cdef Chunk* other
        if chunk != NULL and self.chunk_used + needed <= chunk.capacity:
            return 0
        other = self.chunk_get(needed * 2 if self.open_count else needed)
        if self.open_count:
            memcpy(other.data, chunk.data + self.chunk_used, self.open_bytes)
        if chunk != NULL and chunk.extents == 0:
            self.chunk_put(chunk)
        self.chunk = other
        self.chunk_used = 0
        return 0

    cdef int close_batch(self) except -1:
        cdef uint32_t frame_bytes = self.aligned(self.open_bytes)
        cdef char* data = self.chunk.data + self.chunk_used
        cdef Extent* extent
        if self.ring_count == self.ring_capacity:
            self.grow_ring()
        memset(data, 0, FRAME_HEAD_BYTES)
        memset(data + self.open_bytes, 0, frame_bytes - self.open_bytes)
        extent = self.extent_at(self.ring_count)
        extent.seq = self.next_seq
        extent.data = data
        extent.chunk = self.chunk
        extent.segment = self.segment
        extent.offset = <uint32_t>self.write_offset
        extent.frame_bytes = frame_bytes
        extent.record_bytes = self.open_bytes - FRAME_HEAD_BYTES
        extent.count = self.open_count
        self.closed_bytes += frame_bytes
        self.closed_batches += 1
        self.closed_records += self.open_count
        self.ring_count += 1
        self.chunk.extents += 1
        self.chunk_used += frame_bytes
        self.write_offset += frame_bytes
        self.next_seq += 1
        self.open_bytes = 0
        self.open_count = 0
        return 0

    cdef int grow_ring(self) except -1:
        cdef uint32_t i, capacity = self.ring_capacity * 2
        cdef Extent* extents = <Extent*>malloc(capacity * sizeof(Extent))
        if extents == NULL:
            raise MemoryError
        for i in range(self.ring_count):
            extents[i] = self.extent_at(i)[0]
        free(self.extents)
        self.extents = extents
        self.ring_capacity = capacity
        self.ring_first = 0
        return 0

    cdef void evict(self) noexcept:
        """Forget the oldest durable batch."""
        cdef Extent* extent = self.extent_at(0)
        self.cached_bytes -= extent.frame_bytes
        extent.chunk.extents -= 1
        if extent.chunk.extents == 0 and extent.chunk != self.chunk:
            self.chunk_put(extent.chunk)
        self.ring_first = (self.ring_first + 1) % self.ring_capacity
        self.ring_count -= 1
        self.durable_count -= 1
        self.taken_count -= 1

    cdef Chunk* chunk_get(self, size_t needed) except NULL:
        cdef Chunk* chunk
        if needed <= CHUNK_BYTES and self.spare_count:
            self.spare_count -= 1
            return self.spare[self.spare_count]
        chunk = chunk_new(max(needed, <size_t>CHUNK_BYTES))
        self.chunk_bytes_total += chunk.capacity
        return chunk

    cdef void chunk_put(self, Chunk* chunk) noexcept:
        if chunk.capacity == CHUNK_BYTES and self.spare_count < CHUNKS_SPARE_MAX:
            self.spare[self.spare_count] = chunk
            self.spare_count += 1
        else:
            self.chunk_bytes_total -= chunk.capacity
            chunk_free(chunk)
