# Unique keys and idempotency keys. Memory has a keyed hash of 128 bits for each, never the text.

cdef enum:
    REMEMBER_LEAST_US = 60_000_000  # younger idempotency keys are not dropped to make room
    SCOPED_BYTES_MAX = 768


cdef int scoped_hash(Core core, Name owner, Name queue, Name key, uint64_t* hash) except -1:
    """The hash of a key within its scope. It includes the names' lengths, so that scopes stay distinct."""
    cdef char data[SCOPED_BYTES_MAX]
    cdef SipKey other
    cdef char* p = put_text(put_text(put_text(data, owner), queue), key)
    other.k0 = ~core.key.k1
    other.k1 = ~core.key.k0
    hash[0] = siphash(core.key, data, p - data)
    hash[1] = siphash(other, data, p - data) | 1  # never both 0, which is `none`
    return 0


cdef inline Name no_name() noexcept:
    cdef Name name
    name.p = NULL
    name.n = 0
    return name


# --- unique keys: at most one unfinished job each ---------------------------------------------------------------------

cdef uint32_t unique_holder(Core core, Name owner, Name queue, Name key) except? NONE:
    """The slot of the unfinished job that has the key, or NONE."""
    cdef uint64_t hash[2]
    scoped_hash(core, owner, queue, key, hash)
    return index_find_key(&core.t, BY_UNIQUE, hash)


cdef int hold_unique(Core core, uint32_t slot) except -1:
    """Enter the unique key of an unfinished job, if it has one. Raises LogDamaged if the key is taken."""
    cdef Job* job = job_at(&core.t, slot)
    if job.extra == NONE or extra_at(&core.t, job.extra).unique[1] == 0:
        return 0
    if index_find_key(&core.t, BY_UNIQUE, extra_at(&core.t, job.extra).unique) != NONE:
        raise LogDamaged(f"two unfinished jobs have the unique key of job {job.seq}")
    return index_add(&core.t, BY_UNIQUE, slot)


cdef void release_unique(Core core, uint32_t slot) noexcept:
    cdef Job* job = job_at(&core.t, slot)
    if job.extra != NONE and extra_at(&core.t, job.extra).unique[1]:
        index_drop(&core.t, BY_UNIQUE, slot)


# --- idempotency keys and their answers -------------------------------------------------------------------------------

cdef uint32_t remembered_key(Core core, int64_t now_us, uint64_t* key) noexcept:
    """The slot of a key whose answer still counts, or NONE."""
    cdef uint32_t i = index_find_key(&core.t, BY_KEY, key)
    if i != NONE and remembered_at(&core.t, i).used_us + core.settings.idempotency_us <= now_us:
        return NONE
    return i


cdef int remember(Core core, int64_t used_us, uint64_t* key, uint64_t body_digest, uint64_t seq, int64_t created_us,
                  uint64_t frame, object answer) except -1:
    """Remember the answer to a key that was used at used_us.

    If the key is already remembered, only note the new record that contains it: the cleaner has moved it.
    """
    cdef uint32_t i = index_find_key(&core.t, BY_KEY, key)
    cdef Remembered* entry
    if i != NONE:
        entry = remembered_at(&core.t, i)
        if entry.used_us == used_us:
            entry.frame = frame
            return 0
        forget_key(core, i)
    i = pool_take(&core.t.remembered)
    entry = remembered_at(&core.t, i)
    entry.key[0] = key[0]
    entry.key[1] = key[1]
    entry.body_digest = body_digest
    entry.seq = seq
    entry.created_us = created_us
    entry.used_us = used_us
    entry.frame = frame
    if answer is not None:
        core.answers[key[0], key[1]] = answer
    index_add(&core.t, BY_KEY, i)
    list_key(core, i)
    return 0


cdef void list_key(Core core, uint32_t i) noexcept:
    """Insert a key into the list by time: at the end, except for moved keys in a replay."""
    cdef int64_t used_us = remembered_at(&core.t, i).used_us
    cdef uint32_t older = core.newest_key, newer = NONE
    if older != NONE and remembered_at(&core.t, older).used_us > used_us:
        older = core.last_key
        while older != NONE and remembered_at(&core.t, older).used_us > used_us:
            older = remembered_at(&core.t, older).older
        newer = core.oldest_key if older == NONE else remembered_at(&core.t, older).newer
        while newer != NONE and remembered_at(&core.t, newer).used_us <= used_us:
            older = newer
            newer = remembered_at(&core.t, newer).newer
    remembered_at(&core.t, i).older = older
    remembered_at(&core.t, i).newer = newer
    if older == NONE:
        core.oldest_key = i
    else:
        remembered_at(&core.t, older).newer = i
    if newer == NONE:
        core.newest_key = i
    else:
        remembered_at(&core.t, newer).older = i
    core.last_key = i


cdef int forget_key(Core core, uint32_t i) except -1:
    cdef Remembered* entry = remembered_at(&core.t, i)
    if entry.older == NONE:
        core.oldest_key = entry.newer
    else:
        remembered_at(&core.t, entry.older).newer = entry.newer
    if entry.newer == NONE:
        core.newest_key = entry.older
    else:
        remembered_at(&core.t, entry.newer).older = entry.older
    if core.last_key == i:
        core.last_key = entry.older
    if entry.seq == 0:
        core.answers.pop((entry.key[0], entry.key[1]), None)
    index_drop(&core.t, BY_KEY, i)
    pool_give(&core.t.remembered, i)
    return 0


cdef bint keys_are_full(Core core, int64_t now_us, uint64_t more, int64_t repeated_us) noexcept:
    """Whether more keys would drop one that is too young, or one used at repeated_us or later."""
    cdef uint64_t over, count = core.t.remembered.live + more
    cdef uint32_t i = core.oldest_key
    while i != NONE and count > core.settings.idempotency_keys_max:
        if remembered_at(&core.t, i).used_us + core.settings.idempotency_us > now_us:
            break
        i = remembered_at(&core.t, i).newer
        count -= 1
    if count <= core.settings.idempotency_keys_max:
        return False
    over = count - core.settings.idempotency_keys_max
    while over and i != NONE:
        if remembered_at(&core.t, i).used_us + REMEMBER_LEAST_US > now_us:
            return True
        if remembered_at(&core.t, i).used_us >= repeated_us:
            return True
        i = remembered_at(&core.t, i).newer
        over -= 1
    return over > 0


cdef int make_room_for_keys(Core core, int64_t now_us, uint64_t more) except -1:
    """Forget the oldest keys to make room for more. Call `keys_are_full` first."""
    cdef uint64_t count = core.t.remembered.live + more
    cdef uint32_t i = core.oldest_key
    cdef int64_t through_us = 0
    while i != NONE:
        if count <= core.settings.idempotency_keys_max and remembered_at(&core.t, i).used_us != through_us:
            break  # those used at the same time go together
        through_us = remembered_at(&core.t, i).used_us
        if through_us + core.settings.idempotency_us > now_us:
            core.dropped_early += 1
        i = remembered_at(&core.t, i).newer
        count -= min(count, <uint64_t>1)
    return append_forget_keys(core, now_us, through_us) if through_us else 0


cdef uint32_t forget_old_keys(Core core, int64_t now_us, uint32_t limit) except? 0:
    """Forget keys whose window is over, up to limit and those used at the same time. Returns how many were examined."""
    cdef uint32_t n = 0, i = core.oldest_key
    cdef int64_t through_us = 0
    while i != NONE and n < limit and remembered_at(&core.t, i).used_us + core.settings.idempotency_us <= now_us:
        through_us = remembered_at(&core.t, i).used_us
        i = remembered_at(&core.t, i).newer
        n += 1
    if n:
        append_forget_keys(core, now_us, through_us)
    return n


cdef int append_forget_keys(Core core, int64_t now_us, int64_t through_us) except -1:
    cdef Place place
    cdef uint32_t n = RECORD_HEAD_BYTES + 16
    cdef char* record = core.tail.reserve(n, &place)
    put_i64(put_i64(put_head(record, FORGET_KEYS, 0, n), now_us), through_us)
    return commit(core, record, n, &place)


cdef int apply_forget_keys(Core core, Reader* r) except -1:
    cdef int64_t at_us = <int64_t>get_int(r, 8), through_us = <int64_t>get_int(r, 8)
    if r.short:
        return 0
    note_time(core, at_us)
    while core.oldest_key != NONE and remembered_at(&core.t, core.oldest_key).used_us <= through_us:
        forget_key(core, core.oldest_key)
    return 0


cdef int append_remember(Core core, int64_t now_us, uint64_t* key, uint64_t body_digest, list answer,
                         bint transaction) except -1:
    """Log the answer to a key: (seq, value, how) of each job or extended lease."""
    cdef Place place
    cdef uint32_t n = RECORD_HEAD_BYTES + 32 + 17 * len(answer)
    cdef char* record = core.tail.reserve(n, &place)
    cdef char* p = put_i64(put_head(record, REMEMBER, REMEMBER_TRANSACTION if transaction else 0, n), now_us)
    p = put_u64(put_u64(put_u64(p, key[0]), key[1]), body_digest)
    for seq, value, how in answer:
        p = put_u8(put_i64(put_u64(p, seq), value), how)
    return commit(core, record, n, &place)


cdef int apply_remember(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    cdef int64_t at_us = <int64_t>get_int(r, 8)
    cdef uint64_t key[2]
    cdef uint64_t body_digest
    cdef list answer = []
    key[0] = get_int(r, 8)
    key[1] = get_int(r, 8)
    body_digest = get_int(r, 8)
    while r.p < r.end and not r.short:
        answer.append((get_int(r, 8), <int64_t>get_int(r, 8), get_int(r, 1)))
    if r.short or not (answer or flags & REMEMBER_TRANSACTION):
        raise LogDamaged(f"the record at {place_text(place)} remembers nothing")
    note_time(core, at_us)
    if flags & REMEMBER_TRANSACTION:
        return remember(core, at_us, key, body_digest, 0, 0, place_frame(place), answer)
    return remember(core, at_us, key, body_digest, answer[0][0], answer[0][1], place_frame(place), None)
