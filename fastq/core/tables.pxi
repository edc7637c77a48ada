# The tables of jobs: pools of fixed structs, the indexes to their slots, and the heaps that order slots.

cdef inline void* pool_at(Pool* pool, uint32_t slot) noexcept nogil:
    return pool.chunks[slot // POOL_CHUNK_ITEMS] + <size_t>(slot % POOL_CHUNK_ITEMS) * pool.item_bytes


cdef void pool_init(Pool* pool, uint32_t item_bytes) noexcept:
    memset(pool, 0, sizeof(Pool))
    pool.free_head = NONE
    pool.item_bytes = item_bytes


cdef void pool_clear(Pool* pool) noexcept:
    cdef uint32_t i
    for i in range(pool.chunk_count):
        free(pool.chunks[i])
    free(pool.chunks)


cdef uint32_t pool_take(Pool* pool) except NONE:
    """A new slot, all bytes zero."""
    cdef uint32_t slot = pool.free_head
    cdef char** chunks
    if slot != NONE:
        memcpy(&pool.free_head, pool_at(pool, slot), 4)
    else:
        slot = pool.used
        if slot // POOL_CHUNK_ITEMS == pool.chunk_count:
            chunks = <char**>realloc(pool.chunks, (pool.chunk_count + 1) * sizeof(char*))
            if chunks == NULL:
                raise MemoryError
            pool.chunks = chunks
            chunks[pool.chunk_count] = <char*>malloc(<size_t>POOL_CHUNK_ITEMS * pool.item_bytes)
            if chunks[pool.chunk_count] == NULL:
                raise MemoryError
            pool.chunk_count += 1
        pool.used += 1
    memset(pool_at(pool, slot), 0, pool.item_bytes)
    pool.live += 1
    return slot


cdef inline void pool_give(Pool* pool, uint32_t slot) noexcept nogil:
    memset(pool_at(pool, slot), 0, pool.item_bytes)
    memcpy(pool_at(pool, slot), &pool.free_head, 4)
    pool.free_head = slot
    pool.live -= 1


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


cdef void tables_clear(Tables* t) noexcept:
    cdef int kind, i
    pool_clear(&t.jobs)
    pool_clear(&t.runs)
    pool_clear(&t.extras)
    pool_clear(&t.closings)
    pool_clear(&t.sizes)
    pool_clear(&t.remembered)
    for kind in range(3):
        for i in range(SHARDS):
            free(t.by[kind].shards[i].slots)


cdef inline uint64_t seq_hash(uint64_t seq) noexcept nogil:
    return seq * <uint64_t>0x9e3779b97f4a7c15  # 2^64 / golden ratio: spreads neighbours evenly


cdef inline uint64_t slot_hash(Tables* t, int kind, uint32_t slot) noexcept nogil:
    if kind == BY_SEQ:
        return seq_hash(job_at(t, slot).seq)
    if kind == BY_UNIQUE:
        return extra_at(t, job_at(t, slot).extra).unique[0]
    return remembered_at(t, slot).key[0]


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


cdef inline void shard_put(Tables* t, int kind, Shard* shard, uint32_t slot) noexcept nogil:
    cdef uint32_t mask = shard.capacity - 1
    cdef uint32_t i = <uint32_t>(slot_hash(t, kind, slot) >> 22) & mask
    while shard.slots[i] != NONE:
        i = (i + 1) & mask
    shard.slots[i] = slot


cdef int index_add(Tables* t, int kind, uint32_t slot) except -1:
    cdef Shard* shard = shard_of(t, kind, slot_hash(t, kind, slot))
    cdef uint32_t* old = shard.slots
    cdef uint32_t i, old_capacity = shard.capacity
    if (shard.used + 1) * 4 > old_capacity * 3:
        shard.slots = <uint32_t*>malloc(max(8, old_capacity * 2) * sizeof(uint32_t))
        if shard.slots == NULL:
            shard.slots = old
            raise MemoryError
        shard.capacity = max(8, old_capacity * 2)
        memset(shard.slots, 0xff, shard.capacity * sizeof(uint32_t))
        for i in range(old_capacity):
            if old[i] != NONE:
                shard_put(t, kind, shard, old[i])
        free(old)
    shard_put(t, kind, shard, slot)
    shard.used += 1
    return 0


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
        slots = <uint32_t*>realloc(heap.slots, max(4, <size_t>heap.capacity * 2) * sizeof(uint32_t))
        if slots == NULL:
            raise MemoryError
        heap.slots = slots
        heap.capacity = max(4, heap.capacity * 2)
    heap.count += 1
    if heap.kind != IN_EXPIRING:
        job_at(t, slot).heap = heap.kind
    heap_up(t, heap, heap.count - 1, slot)
    return 0


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


# --- finished jobs, oldest first: a list through the runs -------------------------------------------------------------

cdef void finished_add(Tables* t, Finished* list, uint32_t slot) noexcept nogil:
    """Insert a job into its list by the time of its end: last, except for moved jobs in a replay.

    Moved jobs come in runs of neighbours, so the search begins where the last one was inserted.
    """
    cdef Run* run = run_at(t, job_at(t, slot).run)
    cdef uint32_t older = list.newest, newer = NONE
    if older != NONE and finished_us(t, older) > run.ended_us:
        older = list.last_added
        while older != NONE and finished_us(t, older) > run.ended_us:
            older = run_at(t, job_at(t, older).run).older
        newer = list.oldest if older == NONE else run_at(t, job_at(t, older).run).newer
        while newer != NONE and finished_us(t, newer) <= run.ended_us:
            older = newer
            newer = run_at(t, job_at(t, newer).run).newer
    run.older = older
    run.newer = newer
    if older == NONE:
        list.oldest = slot
    else:
        run_at(t, job_at(t, older).run).newer = slot
    if newer == NONE:
        list.newest = slot
    else:
        run_at(t, job_at(t, newer).run).older = slot
    list.last_added = slot
    list.count += 1
    list.bytes += kept_bytes(t, job_at(t, slot))


cdef inline int64_t finished_us(Tables* t, uint32_t slot) noexcept nogil:
    return run_at(t, job_at(t, slot).run).ended_us


cdef void finished_drop(Tables* t, Finished* list, uint32_t slot) noexcept nogil:
    cdef Run* run = run_at(t, job_at(t, slot).run)
    if run.older == NONE:
        list.oldest = run.newer
    else:
        run_at(t, job_at(t, run.older).run).newer = run.newer
    if run.newer == NONE:
        list.newest = run.older
    else:
        run_at(t, job_at(t, run.newer).run).older = run.older
    if list.last_added == slot:
        list.last_added = run.older
    list.count -= 1
    list.bytes -= kept_bytes(t, job_at(t, slot))
