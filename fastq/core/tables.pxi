# The tables: pools of fixed structs, the indexes to their slots, and the heaps that order jobs.

cdef enum:
    HEAP_KEPT = 1024        # a heap of at most so many keeps its memory


cdef inline void* pool_at(Pool* pool, uint32_t slot) noexcept nogil:
    return pool.chunks[slot // POOL_CHUNK_ITEMS].items + <size_t>(slot % POOL_CHUNK_ITEMS) * pool.item_bytes


cdef inline uint32_t pool_end(Pool* pool) noexcept nogil:
    """All slots are below it."""
    return pool.chunk_count * POOL_CHUNK_ITEMS


cdef inline bint pool_has(Pool* pool, uint32_t slot) noexcept nogil:
    """Whether the slot has memory. It may be free: then all bytes after the first four are zero."""
    cdef PoolChunk* chunk
    if slot >= pool_end(pool):
        return False
    chunk = &pool.chunks[slot // POOL_CHUNK_ITEMS]
    return chunk.items != NULL and slot % POOL_CHUNK_ITEMS < chunk.used


cdef void pool_init(Pool* pool, uint32_t item_bytes) noexcept:
    memset(pool, 0, sizeof(Pool))
    pool.free_chunk = pool.gone_chunk = pool.spare_chunk = NONE
    pool.item_bytes = item_bytes


cdef void pool_clear(Pool* pool) noexcept:
    cdef uint32_t i
    for i in range(pool.chunk_count):
        if pool.chunks[i].items != NULL:
            munmap(pool.chunks[i].items, chunk_bytes(pool))
    free(pool.chunks)


cdef inline size_t chunk_bytes(Pool* pool) noexcept nogil:
    return <size_t>POOL_CHUNK_ITEMS * pool.item_bytes


cdef inline void link_chunk(Pool* pool, uint32_t* first, uint32_t at) noexcept nogil:
    pool.chunks[at].previous = NONE
    pool.chunks[at].next = first[0]
    if first[0] != NONE:
        pool.chunks[first[0]].previous = at
    first[0] = at


cdef inline void unlink_chunk(Pool* pool, uint32_t* first, uint32_t at) noexcept nogil:
    cdef PoolChunk* chunk = &pool.chunks[at]
    if chunk.previous == NONE:
        first[0] = chunk.next
    else:
        pool.chunks[chunk.previous].next = chunk.next
    if chunk.next != NONE:
        pool.chunks[chunk.next].previous = chunk.previous


cdef int add_chunk(Pool* pool) except -1:
    """Make a chunk with free items: one that gave its memory back, or a new one."""
    cdef uint32_t at = pool.gone_chunk
    cdef PoolChunk* chunks
    cdef void* items
    if at == NONE:
        if pool.chunk_count % 64 == 0:
            chunks = <PoolChunk*>realloc(pool.chunks, (pool.chunk_count + 64) * sizeof(PoolChunk))
            if chunks == NULL:
                raise MemoryError
            pool.chunks = chunks
        at = pool.chunk_count
        memset(&pool.chunks[at], 0, sizeof(PoolChunk))
    items = mmap(NULL, chunk_bytes(pool), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if items == MAP_FAILED:
        raise MemoryError
    if at == pool.chunk_count:
        pool.chunk_count += 1
    else:
        unlink_chunk(pool, &pool.gone_chunk, at)
    pool.chunks[at].items = <char*>items
    pool.chunks[at].used = pool.chunks[at].live = 0
    pool.chunks[at].free_head = NONE
    link_chunk(pool, &pool.free_chunk, at)
    return 0


cdef uint32_t pool_take(Pool* pool) except <uint32_t>NONE:
    """A new slot, all bytes zero."""
    cdef PoolChunk* chunk
    cdef uint32_t at, i
    if pool.free_chunk == NONE:
        add_chunk(pool)
    at = pool.free_chunk
    chunk = &pool.chunks[at]
    i = chunk.free_head
    if i != NONE:
        memcpy(&chunk.free_head, chunk.items + <size_t>i * pool.item_bytes, 4)
    else:
        i = chunk.used
        chunk.used += 1
    memset(chunk.items + <size_t>i * pool.item_bytes, 0, pool.item_bytes)
    chunk.live += 1
    pool.live += 1
    if at == pool.spare_chunk:
        pool.spare_chunk = NONE
    if chunk.live == POOL_CHUNK_ITEMS:
        unlink_chunk(pool, &pool.free_chunk, at)
    return at * POOL_CHUNK_ITEMS + i


cdef void pool_give(Pool* pool, uint32_t slot) noexcept nogil:
    cdef uint32_t at = slot // POOL_CHUNK_ITEMS, i = slot % POOL_CHUNK_ITEMS
    cdef PoolChunk* chunk = &pool.chunks[at]
    cdef char* item = chunk.items + <size_t>i * pool.item_bytes
    memset(item, 0, pool.item_bytes)
    memcpy(item, &chunk.free_head, 4)
    chunk.free_head = i
    if chunk.live == POOL_CHUNK_ITEMS:
        link_chunk(pool, &pool.free_chunk, at)
    chunk.live -= 1
    pool.live -= 1
    if chunk.live == 0:
        empty_chunk(pool, at)


cdef void empty_chunk(Pool* pool, uint32_t at) noexcept nogil:
    """Give an empty chunk's memory back, unless it is the only empty one: the next item may come at once."""
    if pool.spare_chunk == NONE:
        pool.spare_chunk = at
        return
    unlink_chunk(pool, &pool.free_chunk, at)
    munmap(pool.chunks[at].items, chunk_bytes(pool))
    pool.chunks[at].items = NULL
    link_chunk(pool, &pool.gone_chunk, at)


# --- indexes: a hash -> a slot of some pool. Open addressing with linear probing, in shards --------------------------

cdef inline Job* job_at(Tables* t, uint32_t slot) noexcept nogil:
    return <Job*>pool_at(&t.jobs, slot)


cdef inline Run* run_at(Tables* t, uint32_t slot) noexcept nogil:
    return <Run*>pool_at(&t.runs, slot)


cdef inline Extra* extra_at(Tables* t, uint32_t slot) noexcept nogil:
    return <Extra*>pool_at(&t.extras, slot)


cdef inline Closing* closing_at(Tables* t, uint32_t slot) noexcept nogil:
    return <Closing*>pool_at(&t.closings, slot)


cdef inline Sizes* sizes_at(Tables* t, uint32_t slot) noexcept nogil:
    return <Sizes*>pool_at(&t.sizes, slot)


cdef inline Remembered* remembered_at(Tables* t, uint32_t slot) noexcept nogil:
    return <Remembered*>pool_at(&t.remembered, slot)


cdef void tables_init(Tables* t) noexcept:
    memset(t, 0, sizeof(Tables))
    pool_init(&t.jobs, sizeof(Job))
    pool_init(&t.runs, sizeof(Run))
    pool_init(&t.extras, sizeof(Extra))
    pool_init(&t.closings, sizeof(Closing))
    pool_init(&t.sizes, sizeof(Sizes))
    pool_init(&t.remembered, sizeof(Remembered))
    pool_init(&t.names, sizeof(Named))
    pool_init(&t.queues, sizeof(Queue))
    pool_init(&t.groups, sizeof(Group))
    pool_init(&t.holdings, sizeof(Holding))
    pool_init(&t.traffic, sizeof(QueueTraffic))


cdef void tables_clear(Tables* t) noexcept:
    cdef int kind, i
    pool_clear(&t.jobs)
    pool_clear(&t.runs)
    pool_clear(&t.extras)
    pool_clear(&t.closings)
    pool_clear(&t.sizes)
    pool_clear(&t.remembered)
    pool_clear(&t.names)
    pool_clear(&t.queues)
    pool_clear(&t.groups)
    pool_clear(&t.holdings)
    pool_clear(&t.traffic)
    for kind in range(INDEX_KINDS):
        for i in range(SHARDS):
            free(t.by[kind].shards[i].slots)


cdef inline uint64_t seq_hash(uint64_t seq) noexcept nogil:
    return seq * <uint64_t>0x9e3779b97f4a7c15  # 2^64 / golden ratio: spreads neighbours evenly


cdef inline uint64_t slot_hash(Tables* t, int kind, uint32_t slot) noexcept nogil:
    if kind == BY_SEQ:
        return seq_hash(job_at(t, slot).seq)
    if kind == BY_UNIQUE:
        return extra_at(t, job_at(t, slot).extra).unique[0]
    if kind == BY_KEY:
        return remembered_at(t, slot).key[0]
    if kind == BY_NAME:
        return (<Named*>pool_at(&t.names, slot)).hash
    if kind == BY_HOLDING:
        return group_hash((<Holding*>pool_at(&t.holdings, slot)).queue, (<Holding*>pool_at(&t.holdings, slot)).owner)
    return group_hash((<Group*>pool_at(&t.groups, slot)).queue, (<Group*>pool_at(&t.groups, slot)).name)


cdef inline uint64_t group_hash(uint32_t queue, uint32_t name) noexcept nogil:
    return seq_hash(<uint64_t>queue << 32 | name)


cdef inline Shard* shard_of(Tables* t, int kind, uint64_t hash) noexcept nogil:
    return &t.by[kind].shards[hash >> 54]


cdef uint32_t index_find(Tables* t, uint64_t seq) noexcept nogil:
    """The slot of the job with that number, or NONE."""
    cdef uint64_t hash = seq_hash(seq)
    cdef Shard* shard = shard_of(t, BY_SEQ, hash)
    cdef uint32_t mask, i
    if shard.capacity == 0:
        return NONE
    mask = shard.capacity - 1
    i = <uint32_t>(hash >> 22) & mask
    while shard.slots[i] != NONE:
        if job_at(t, shard.slots[i]).seq == seq:
            return shard.slots[i]
        i = (i + 1) & mask
    return NONE


cdef uint32_t index_find_key(Tables* t, int kind, uint64_t* key) noexcept nogil:
    """The slot with that 128-bit key, of jobs (BY_UNIQUE) or of remembered keys (BY_KEY), or NONE."""
    cdef Shard* shard = shard_of(t, kind, key[0])
    cdef uint32_t mask, i
    cdef uint64_t* found
    if shard.capacity == 0:
        return NONE
    mask = shard.capacity - 1
    i = <uint32_t>(key[0] >> 22) & mask
    while shard.slots[i] != NONE:
        if kind == BY_UNIQUE:
            found = extra_at(t, job_at(t, shard.slots[i]).extra).unique
        else:
            found = remembered_at(t, shard.slots[i]).key
        if found[0] == key[0] and found[1] == key[1]:
            return shard.slots[i]
        i = (i + 1) & mask
    return NONE


cdef inline void shard_put(Shard* shard, uint64_t hash, uint32_t slot) noexcept nogil:
    cdef uint32_t mask = shard.capacity - 1
    cdef uint32_t i = <uint32_t>(hash >> 22) & mask
    while shard.slots[i] != NONE:
        i = (i + 1) & mask
    shard.slots[i] = slot


cdef int index_add(Tables* t, int kind, uint32_t slot) except -1:
    cdef uint64_t hash = slot_hash(t, kind, slot)
    cdef Shard* shard = shard_of(t, kind, hash)
    if (shard.used + 1) * 4 > shard.capacity * 3 and not resize_shard(t, kind, shard, max(8, shard.capacity * 2)):
        raise MemoryError
    shard_put(shard, hash, slot)
    shard.used += 1
    return 0


cdef bint resize_shard(Tables* t, int kind, Shard* shard, uint32_t capacity) noexcept nogil:
    """False: there is no memory, and nothing changed."""
    cdef uint32_t* old = shard.slots
    cdef uint32_t i, old_capacity = shard.capacity
    cdef uint32_t* slots = <uint32_t*>malloc(capacity * sizeof(uint32_t))
    if slots == NULL:
        return False
    memset(slots, 0xff, capacity * sizeof(uint32_t))
    shard.slots = slots
    shard.capacity = capacity
    for i in range(old_capacity):
        if old[i] != NONE:
            shard_put(shard, slot_hash(t, kind, old[i]), old[i])
    free(old)
    return True


cdef void index_drop(Tables* t, int kind, uint32_t slot) noexcept nogil:
    """Remove a slot, and move up later entries that the gap would hide."""
    cdef uint64_t hash = slot_hash(t, kind, slot)
    cdef Shard* shard = shard_of(t, kind, hash)
    cdef uint32_t mask = shard.capacity - 1, hole, i, home
    hole = <uint32_t>(hash >> 22) & mask
    while shard.slots[hole] != slot:
        hole = (hole + 1) & mask
    i = hole
    while True:
        i = (i + 1) & mask
        if shard.slots[i] == NONE:
            break
        home = <uint32_t>(slot_hash(t, kind, shard.slots[i]) >> 22) & mask
        if ((i - home) & mask) >= ((i - hole) & mask):  # the gap lies between its home and its place
            shard.slots[hole] = shard.slots[i]
            hole = i
    shard.slots[hole] = NONE
    shard.used -= 1
    if shard.capacity > 64 and shard.used * 8 < shard.capacity:
        resize_shard(t, kind, shard, shard.capacity // 4)


# --- heaps ------------------------------------------------------------------------------------------------------------

cdef inline bint before(Tables* t, uint8_t kind, uint32_t a, uint32_t b) noexcept nogil:
    """Whether the job in slot a comes before the one in b in a heap of this kind. A strict order."""
    cdef Job* x = job_at(t, a)
    cdef Job* y = job_at(t, b)
    cdef int64_t u, v
    if kind == IN_READY:
        if x.priority != y.priority:
            return x.priority > y.priority
        if x.run_at_us != y.run_at_us:
            return x.run_at_us < y.run_at_us
        if x.created_us != y.created_us:
            return x.created_us < y.created_us
        return x.seq < y.seq
    if kind == IN_DELAYED:
        u, v = x.run_at_us, y.run_at_us
    elif kind == IN_EXPIRING:
        u, v = extra_at(t, x.extra).expires_us, extra_at(t, y.extra).expires_us
    else:
        u, v = run_at(t, x.run).lease_until_us, run_at(t, y.run).lease_until_us
    return u < v if u != v else x.seq < y.seq


cdef inline void heap_set(Tables* t, Heap* heap, uint32_t pos, uint32_t slot) noexcept nogil:
    heap.slots[pos] = slot
    if heap.kind == IN_EXPIRING:
        extra_at(t, job_at(t, slot).extra).expiry_pos = pos
    else:
        job_at(t, slot).heap_pos = pos


cdef void heap_up(Tables* t, Heap* heap, uint32_t pos, uint32_t slot) noexcept nogil:
    """Place slot at pos or above it, in heap order."""
    cdef uint32_t parent
    while pos:
        parent = (pos - 1) // 4
        if not before(t, heap.kind, slot, heap.slots[parent]):
            break
        heap_set(t, heap, pos, heap.slots[parent])
        pos = parent
    heap_set(t, heap, pos, slot)


cdef void heap_down(Tables* t, Heap* heap, uint32_t pos, uint32_t slot) noexcept nogil:
    """Place slot at pos or below it, in heap order."""
    cdef uint32_t child, last, best
    while True:
        child = pos * 4 + 1
        if child >= heap.count:
            break
        last = min(child + 4, heap.count)
        best = child
        child += 1
        while child < last:
            if before(t, heap.kind, heap.slots[child], heap.slots[best]):
                best = child
            child += 1
        if not before(t, heap.kind, heap.slots[best], slot):
            break
        heap_set(t, heap, pos, heap.slots[best])
        pos = best
    heap_set(t, heap, pos, slot)


cdef int heap_push(Tables* t, Heap* heap, uint32_t slot) except -1:
    cdef uint32_t* slots
    if heap.count == heap.capacity:
        slots = <uint32_t*>realloc(heap.slots, max(<size_t>4, <size_t>heap.capacity * 2) * sizeof(uint32_t))
        if slots == NULL:
            raise MemoryError
        heap.slots = slots
        heap.capacity = max(4, heap.capacity * 2)
    heap.count += 1
    if heap.kind != IN_EXPIRING:
        job_at(t, slot).heap = heap.kind
    heap_up(t, heap, heap.count - 1, slot)
    return 0


cdef void shrink_heap(Heap* heap) noexcept nogil:
    cdef uint32_t* slots = <uint32_t*>realloc(heap.slots, <size_t>(heap.capacity // 4) * sizeof(uint32_t))
    if slots != NULL:
        heap.slots = slots
        heap.capacity //= 4


cdef void heap_remove(Tables* t, Heap* heap, uint32_t slot) noexcept nogil:
    cdef Job* job = job_at(t, slot)
    cdef uint32_t pos = job.heap_pos, last
    if heap.kind == IN_EXPIRING:
        pos = extra_at(t, job.extra).expiry_pos
        extra_at(t, job.extra).expiry_pos = NONE
    else:
        job.heap = IN_NONE
    heap.count -= 1
    last = heap.slots[heap.count]
    if heap.count * 8 < heap.capacity and heap.capacity > HEAP_KEPT:
        shrink_heap(heap)
    if last == slot:
        return
    if pos and before(t, heap.kind, last, heap.slots[(pos - 1) // 4]):
        heap_up(t, heap, pos, last)
    else:
        heap_down(t, heap, pos, last)


cdef void heap_rebuild(Tables* t, Heap* heap) noexcept nogil:
    """Reorder a heap after all its keys have changed: n steps, not n log n."""
    cdef uint32_t pos
    if heap.count < 2:
        return
    pos = (heap.count - 2) // 4 + 1
    while pos:
        pos -= 1
        heap_down(t, heap, pos, heap.slots[pos])
