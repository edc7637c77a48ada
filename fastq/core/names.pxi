# Names: texts that many jobs share, of queues, groups, owners, workers and tags. Each exists while it has uses.

cdef inline Named* named(Core core, uint32_t index) noexcept:
    return <Named*>pool_at(&core.t.names, index)


cdef inline bytes name_at(Core core, uint32_t index):
    return <bytes>named(core, index).text


cdef inline str name_text(Core core, uint32_t index):
    return "" if index == NONE else name_at(core, index).decode()


cdef inline bint is_text(Named* one, Name name) noexcept:
    if PyBytes_GET_SIZE(<object>one.text) != name.n:
        return False
    return memcmp(PyBytes_AS_STRING(<object>one.text), name.p, name.n) == 0


cdef uint32_t find_name(Core core, bytes text) except? <uint32_t>NONE:
    """The index of a name, or NONE."""
    cdef uint64_t hashed = <uint64_t>hash(text)
    cdef Shard* shard = shard_of(&core.t, BY_NAME, hashed)
    cdef uint32_t mask, i
    cdef Named* one
    if shard.capacity == 0:
        return NONE
    mask = shard.capacity - 1
    i = <uint32_t>(hashed >> 22) & mask
    while shard.slots[i] != NONE:
        one = named(core, shard.slots[i])
        if one.hash == hashed and <bytes>one.text == text:
            return shard.slots[i]
        i = (i + 1) & mask
    return NONE


cdef uint32_t name_of(Core core, bytes text) except <uint32_t>NONE:
    """The index of a name, with one more use: see `drop_name`."""
    cdef uint32_t at = find_name(core, text)
    cdef Named* one
    if at == NONE:
        at = pool_take(&core.t.names)
        one = named(core, at)
        Py_INCREF(text)
        one.text = <PyObject*>text
        one.hash = <uint64_t>hash(text)
        one.queue = one.first_holding = NONE
        index_add(&core.t, BY_NAME, at)
    named(core, at).uses += 1
    return at


cdef uint32_t owner_of(Core core, Name owner) except <uint32_t>NONE:
    """As `name_of`, for an owner. Jobs come in runs of one owner: the last one is tried before the index."""
    if core.last_owner == NONE or not is_text(named(core, core.last_owner), owner):
        core.last_owner = name_of(core, name_bytes(owner))
        return core.last_owner
    named(core, core.last_owner).uses += 1
    return core.last_owner


cdef int drop_name(Core core, uint32_t index) except -1:
    cdef Named* one = named(core, index)
    one.uses -= 1
    if one.uses:
        return 0
    if index == core.last_owner:
        core.last_owner = NONE
    index_drop(&core.t, BY_NAME, index)
    release_texts(one)
    pool_give(&core.t.names, index)
    return 0


cdef void release_texts(Named* one):
    Py_DECREF(<object>one.text)
    if one.shown != NULL:
        Py_DECREF(<object>one.shown)


cdef void names_clear(Core core):
    cdef uint32_t i
    for i in range(pool_end(&core.t.names)):
        if pool_has(&core.t.names, i) and named(core, i).text != NULL:
            release_texts(named(core, i))


cdef uint32_t find_queue(Core core, bytes name) except? <uint32_t>NONE:
    """The index of the queue of that name, or NONE."""
    cdef uint32_t at = find_name(core, name)
    return NONE if at == NONE else named(core, at).queue
