# Holdings: one owner's jobs in one queue, counted. A client key sees the queues in which its owner has a holding.

cdef inline Holding* holding_by(Core core, uint32_t index) noexcept:
    return <Holding*>pool_at(&core.t.holdings, index)


cdef inline uint32_t find_holding(Core core, uint32_t queue, uint32_t owner) noexcept:
    """The index of an owner's holding in a queue, or NONE. Jobs come in runs: the last one is tried first."""
    cdef Holding* last
    if core.last_holding != NONE:
        last = holding_by(core, core.last_holding)
        if last.queue == queue and last.owner == owner:
            return core.last_holding
    return look_up_holding(core, queue, owner)


cdef uint32_t look_up_holding(Core core, uint32_t queue, uint32_t owner) noexcept:
    cdef uint64_t hashed = group_hash(queue, owner)
    cdef Shard* shard = shard_of(&core.t, BY_HOLDING, hashed)
    cdef uint32_t mask, i
    cdef Holding* one
    if shard.capacity == 0:
        return NONE
    mask = shard.capacity - 1
    i = <uint32_t>(hashed >> 22) & mask
    while shard.slots[i] != NONE:
        one = holding_by(core, shard.slots[i])
        if one.queue == queue and one.owner == owner:
            core.last_holding = shard.slots[i]
            return core.last_holding
        i = (i + 1) & mask
    return NONE


cdef inline Holding* holding_at(Core core, Job* job) noexcept:
    """The holding of a job."""
    return holding_by(core, find_holding(core, group_by(core, job.group).queue, job.owner))


cdef int join_holding(Core core, Job* job) except -1:
    """Count a new job, or one that was moved to its queue, in the holding, which is made if it does not exist."""
    cdef uint32_t queue = group_by(core, job.group).queue
    cdef uint32_t at = find_holding(core, queue, job.owner)
    cdef Holding* one
    cdef Named* owner
    if at == NONE:
        at = pool_take(&core.t.holdings)
        one = holding_by(core, at)
        owner = named(core, job.owner)
        one.queue, one.owner = queue, job.owner
        one.previous, one.next = NONE, owner.first_holding
        if one.next != NONE:
            holding_by(core, one.next).previous = at
        owner.first_holding = at
        index_add(&core.t, BY_HOLDING, at)
        core.last_holding = at
    one = holding_by(core, at)
    one.jobs += 1
    one.counts[job.state] += 1
    return 0


cdef int leave_holding(Core core, uint32_t queue, Job* job) except -1:
    """Count a job of the queue out of its holding, in its present state. The last job takes the holding with it."""
    cdef uint32_t at = find_holding(core, queue, job.owner)
    cdef Holding* one = holding_by(core, at)
    one.counts[job.state] -= 1
    one.jobs -= 1
    if one.jobs:
        return 0
    if one.previous == NONE:
        named(core, one.owner).first_holding = one.next
    else:
        holding_by(core, one.previous).next = one.next
    if one.next != NONE:
        holding_by(core, one.next).previous = one.previous
    index_drop(&core.t, BY_HOLDING, at)
    pool_give(&core.t.holdings, at)
    core.last_holding = NONE
    return 0


cdef bint has_queue(Core core, Access access, uint32_t queue) except *:
    """Whether a queue exists for a caller: for an owner, one that has its jobs."""
    cdef uint32_t owner
    if access.queues is not None and queue_name(core, queue) not in access.queues:
        return False
    if access.owner is None:
        return True
    owner = find_name(core, access.owner)
    return owner != NONE and find_holding(core, queue, owner) != NONE


cdef list holding_names(Core core, bytes owner):
    """The names of the queues in which an owner has jobs."""
    cdef list names = []
    cdef uint32_t at = find_name(core, owner)
    if at != NONE:
        at = named(core, at).first_holding
    while at != NONE:
        names.append(queue_name(core, holding_by(core, at).queue))
        at = holding_by(core, at).next
    return names


cdef tuple holdings_counted(Core core, bytes owner, uint32_t first, uint32_t end, uint32_t names_max):
    """An owner's jobs in the holdings of these places, counted by stored state; and the names of some of these queues.

    `due` counts those of READY and RETRY that are due, `queues` the holdings.
    """
    cdef uint64_t counts[STATE_COUNT]
    cdef uint64_t due = 0, holdings = 0
    cdef uint32_t i, state, at = find_name(core, owner)
    cdef Holding* one
    cdef list names = []
    memset(counts, 0, sizeof(counts))
    if at != NONE:
        for i in range(first, min(end, pool_end(&core.t.holdings))):
            if not pool_has(&core.t.holdings, i):
                continue
            one = holding_by(core, i)
            if one.owner != at:
                continue
            due += one.ready
            holdings += 1
            for state in range(STATE_COUNT):
                counts[state] += one.counts[state]
            if <uint32_t>len(names) < names_max:
                names.append(queue_name(core, one.queue))
    found = {STATE_NAMES[i]: counts[i] for i in range(1, STATE_COUNT)}
    found["due"], found["queues"] = due, holdings
    return found, names
