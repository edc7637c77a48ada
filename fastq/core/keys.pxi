# Unique keys and idempotency keys. Memory has a keyed hash of 128 bits for each, never the text.

cdef enum:
    REMEMBER_LEAST_US = 60_000_000  # younger idempotency keys are not dropped to make room
    SURPLUS_MAX = 10_000            # answers that one command drops beyond what it adds: more would be a pause
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

cdef uint32_t unique_holder(Core core, Name owner, Name queue, Name key) except? <uint32_t>NONE:
    """The slot of the unfinished job that has the key, or NONE."""
    cdef uint64_t hash[2]
    scoped_hash(core, owner, queue, key, hash)
    return index_find_key(&core.t, BY_UNIQUE, hash)


cdef bint gives_way(Core core, uint32_t holder, int64_t now_us) noexcept:
    """Whether a unique key's holder waits past its expires_at. Log its expiry before another job takes the key."""
    return job_at(&core.t, holder).state != RUNNING and has_expired(core, holder, now_us)


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


cdef uint32_t new_key(Core core, int64_t used_us, uint64_t* key, uint32_t anchor) except? <uint32_t>NONE:
    """A new entry for a key; the caller sets the rest, then calls `enter_key`.

    NONE: the key is remembered since then. The record that contains it now is noted: the cleaner has moved it.
    """
    cdef uint32_t i = index_find_key(&core.t, BY_KEY, key)
    cdef Remembered* entry
    if i != NONE:
        if remembered_at(&core.t, i).used_us == used_us:
            remembered_at(&core.t, i).anchor = anchor
            return NONE
        forget_key(core, i)
    i = pool_take(&core.t.remembered)
    entry = remembered_at(&core.t, i)
    entry.key[0] = key[0]
    entry.key[1] = key[1]
    entry.used_us = used_us
    entry.anchor = anchor
    return i


cdef int enter_key(Core core, uint32_t i) except -1:
    index_add(&core.t, BY_KEY, i)
    list_key(core, i)
    count_key(core, remembered_at(&core.t, i))
    return 0


cdef bint remember_job(Core core, int64_t used_us, uint64_t* key, uint64_t body_digest, uint64_t seq,
                       int64_t created_us, uint64_t frame, bint by_submit) except *:
    """Remember the job that a key has made or found. False: the key was remembered already.

    Args:
        by_submit: the job's SUBMIT record states the key.
    """
    cdef uint32_t i = new_key(core, used_us, key, anchor_at(frame))
    cdef Remembered* entry
    if i == NONE:
        return False
    entry = remembered_at(&core.t, i)
    entry.body_digest = body_digest
    entry.seq = seq
    entry.answer.created_us = created_us
    entry.answers = 0 if by_submit else 1
    enter_key(core, i)
    return True


cdef int remember_answers(Core core, int64_t used_us, uint64_t* key, uint64_t body_digest, const char* answers,
                          uint32_t count, uint64_t frame) except -1:
    """Remember a transaction's answers, ANSWER_BYTES each."""
    cdef uint32_t i = new_key(core, used_us, key, anchor_at(frame))
    cdef Remembered* entry
    if i == NONE:
        return 0
    entry = remembered_at(&core.t, i)
    entry.body_digest = body_digest
    if count:
        entry.answer.text = <char*>malloc(<size_t>count * ANSWER_BYTES)
        if entry.answer.text == NULL:
            raise MemoryError
        memcpy(entry.answer.text, answers, <size_t>count * ANSWER_BYTES)
    entry.answers = count
    return enter_key(core, i)


cdef inline bytes answers_of(Remembered* entry):
    """The answers of a transaction as its REMEMBER record has them."""
    return PyBytes_FromStringAndSize(entry.answer.text, <Py_ssize_t>entry.answers * ANSWER_BYTES)


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
    uncount_key(core, entry)
    if entry.seq == 0:
        free(entry.answer.text)
    index_drop(&core.t, BY_KEY, i)
    pool_give(&core.t.remembered, i)
    return 0


cdef void free_answers(Core core) noexcept:
    cdef uint32_t i = core.oldest_key
    while i != NONE:
        if remembered_at(&core.t, i).seq == 0:
            free(remembered_at(&core.t, i).answer.text)
        i = remembered_at(&core.t, i).newer


cdef inline uint64_t surplus(Core core, uint64_t more) noexcept:
    """How many answers have to go to make room for more; after a restart with a lower maximum, a part of them."""
    cdef uint64_t count = core.remembered_count + more
    if count <= core.settings.idempotency_keys_max:
        return 0
    return min(count - core.settings.idempotency_keys_max, more + SURPLUS_MAX)


cdef inline bint is_over(Core core, Remembered* entry, int64_t now_us) noexcept:
    """Whether a key's window is over."""
    return entry.used_us + core.settings.idempotency_us <= now_us


cdef bint keys_are_full(Core core, int64_t now_us, uint64_t more, int64_t repeated_us) noexcept:
    """Whether room for more answers would take a key that is too young, or one used at repeated_us or later."""
    cdef uint64_t over = surplus(core, more)
    cdef uint32_t i = core.oldest_key
    cdef Remembered* entry
    if more > core.settings.idempotency_keys_max:
        return True
    while over and i != NONE:
        entry = remembered_at(&core.t, i)
        if not is_over(core, entry, now_us):
            if entry.used_us + REMEMBER_LEAST_US > now_us or entry.used_us >= repeated_us:
                return True
        over -= min(over, answer_count(entry))
        i = entry.newer
    return over > 0


cdef int make_room_for_keys(Core core, int64_t now_us, uint64_t more) except -1:
    """Forget the oldest keys to make room for more answers. Call `keys_are_full` first."""
    cdef uint64_t over = surplus(core, more)
    cdef uint32_t i = core.oldest_key
    cdef int64_t through_us = 0
    cdef Remembered* entry
    while i != NONE and (over or remembered_at(&core.t, i).used_us == through_us):  # those of the same time together
        entry = remembered_at(&core.t, i)
        through_us = entry.used_us
        core.dropped_early += not is_over(core, entry, now_us)
        over -= min(over, answer_count(entry))
        i = entry.newer
    return append_forget_keys(core, now_us, through_us) if through_us else 0


cdef bint has_old_keys(Core core, int64_t now_us) noexcept:
    """Whether `forget_old_keys` has work."""
    cdef Remembered* entry
    if core.oldest_key == NONE:
        return False
    entry = remembered_at(&core.t, core.oldest_key)
    if is_over(core, entry, now_us):
        return True
    return (core.remembered_count > core.settings.idempotency_keys_max
            and entry.used_us + REMEMBER_LEAST_US <= now_us)


cdef uint32_t forget_old_keys(Core core, int64_t now_us, uint32_t limit) except? 0:
    """Forget keys whose window is over, and the oldest while there are too many: up to limit and those used at the
    same time. Returns how many were examined.
    """
    cdef uint64_t over = surplus(core, 0)
    cdef uint32_t n = 0, i = core.oldest_key
    cdef int64_t through_us = 0
    cdef Remembered* entry
    while i != NONE and n < limit:
        entry = remembered_at(&core.t, i)
        if not is_over(core, entry, now_us):
            if over == 0 or entry.used_us + REMEMBER_LEAST_US > now_us:
                break
            core.dropped_early += 1
        through_us = entry.used_us
        over -= min(over, answer_count(entry))
        i = entry.newer
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


cdef int append_remember(Core core, int64_t now_us, uint64_t* key, uint64_t body_digest, bytes answers,
                         bint transaction) except -1:
    """Log the answer to a key: ANSWER_BYTES for each job or extended lease."""
    cdef Place place
    cdef uint32_t n = <uint32_t>remember_bytes(0) + <uint32_t>len(answers)
    cdef char* record = core.tail.reserve(n, &place)
    cdef char* p = put_i64(put_head(record, REMEMBER, REMEMBER_TRANSACTION if transaction else 0, n), now_us)
    p = put_u64(put_u64(put_u64(p, key[0]), key[1]), body_digest)
    put_bytes(p, <const char*>answers, len(answers))
    return commit(core, record, n, &place)


cdef int append_remember_job(Core core, int64_t now_us, uint64_t* key, uint64_t body_digest, uint64_t seq,
                             int64_t created_us) except -1:
    cdef char answer[ANSWER_BYTES]
    put_answer(answer, seq, created_us, CREATED)
    return append_remember(core, now_us, key, body_digest, answer[:ANSWER_BYTES], False)


cdef inline char* put_answer(char* p, uint64_t seq, int64_t value, uint8_t how) noexcept nogil:
    return put_u8(put_i64(put_u64(p, seq), value), how)


cdef int apply_remember(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    cdef int64_t at_us = <int64_t>get_int(r, 8)
    cdef uint64_t key[2]
    cdef uint64_t body_digest, seq
    key[0] = get_int(r, 8)
    key[1] = get_int(r, 8)
    body_digest = get_int(r, 8)
    if r.short or (r.end - r.p) % ANSWER_BYTES or not (r.p < r.end or flags & REMEMBER_TRANSACTION):
        raise LogDamaged(f"the record at {place_text(place)} remembers nothing")
    note_time(core, at_us)
    if flags & REMEMBER_TRANSACTION:
        return remember_answers(
            core, at_us, key, body_digest, r.p, <uint32_t>((r.end - r.p) // ANSWER_BYTES), place_frame(place)
        )
    seq = get_int(r, 8)
    if seq == 0:
        raise LogDamaged(f"the record at {place_text(place)} remembers no job")
    remember_job(core, at_us, key, body_digest, seq, <int64_t>get_int(r, 8), place_frame(place), False)
    return 0
