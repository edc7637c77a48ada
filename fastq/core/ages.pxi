# Ages: since when the oldest ready job of a queue is ready, whatever the order of leases.
#
# Ready jobs are counted in spans of run_at, the oldest span first. A job's span follows from its run_at, so a removal
# finds it. When there is no room for another span, neighbours become one: the older, the wider. From the middle of the
# oldest span to the oldest job it is at most 3% of its age, or 0.1 s. The age is that by the log's latest time.

cdef enum:
    SPANS_MAX = 512         # of a queue. Even if the ages reach over a month, they need fewer
    SPANS_KEPT = 8          # a queue without ready jobs keeps the memory of so many
    SPAN_US = 200_000       # how wide the youngest spans may be
    SPAN_SHARE = 17         # others: this fraction of their age


cdef inline bint may_span(int64_t first_us, int64_t last_us, int64_t now_us, int share) noexcept nogil:
    """Whether these times may be in one span. share 0: any."""
    return last_us - first_us <= max(<int64_t>SPAN_US, (now_us - last_us) // share) if share else True


cdef inline int age_add(Ages* ages, int64_t us, int64_t now_us) except -1:
    """Count a job that is ready since a time. New ones are mostly the youngest."""
    cdef Span* span
    if ages.first < ages.end:
        span = &ages.spans[ages.end - 1]
        if us >= span.first_us and us - span.first_us <= SPAN_US:
            span.last_us = max(span.last_us, us)
            span.count += 1
            return 0
    return age_insert(ages, us, now_us)


cdef int age_insert(Ages* ages, int64_t us, int64_t now_us) except -1:
    cdef uint32_t i
    cdef Span* span
    if ages.end == ages.capacity:
        make_room(ages, now_us)
    i = span_before(ages, us)
    if i != NONE:
        span = &ages.spans[i]
        if us <= span.last_us or may_span(span.first_us, us, now_us, SPAN_SHARE):
            span.last_us = max(span.last_us, us)
            span.count += 1
            return 0
    i = ages.first if i == NONE else i + 1
    memmove(&ages.spans[i + 1], &ages.spans[i], (ages.end - i) * sizeof(Span))
    ages.end += 1
    ages.spans[i].first_us = ages.spans[i].last_us = us
    ages.spans[i].count = 1
    return 0


cdef inline uint32_t span_before(Ages* ages, int64_t us) noexcept nogil:
    """The last span that begins at this time or before; NONE: all begin later."""
    cdef uint32_t low = ages.first, high = ages.end, middle
    if low == high or us < ages.spans[low].first_us:
        return NONE
    if us <= ages.spans[low].last_us:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        if ages.spans[middle].first_us <= us:
            low = middle
        else:
            high = middle
    return low


cdef inline void age_drop(Ages* ages, int64_t us) noexcept nogil:
    ages.spans[span_before(ages, us)].count -= 1
    while ages.spans[ages.first].count == 0:
        ages.first += 1
        if ages.first == ages.end:
            ages.first = ages.end = 0
            if ages.capacity > SPANS_KEPT:
                ages_free(ages)
            return


cdef int make_room(Ages* ages, int64_t now_us) except -1:
    """Make room for a span: join neighbours, then take more memory, at last join what is wider than it should be."""
    cdef Span* spans
    cdef uint32_t capacity = max(2, <uint32_t>ages.capacity * 2)
    cdef int share = SPAN_SHARE
    if ages.first > ages.capacity // 2:
        ages.end -= ages.first
        memmove(ages.spans, &ages.spans[ages.first], ages.end * sizeof(Span))
        ages.first = 0
        return 0
    join_spans(ages, now_us, share)
    if ages.end >= ages.capacity // 4 * 3 and capacity <= SPANS_MAX:
        spans = <Span*>realloc(ages.spans, capacity * sizeof(Span))
        if spans == NULL:
            raise MemoryError
        ages.spans = spans
        ages.capacity = capacity
    while ages.end >= ages.capacity // 4 * 3 and ages.capacity == SPANS_MAX:
        share //= 2
        join_spans(ages, now_us, share)
    return 0


cdef void join_spans(Ages* ages, int64_t now_us, int share) noexcept nogil:
    """Drop empty spans, and join neighbours whose times may be in one."""
    cdef uint32_t i, end = 0
    cdef Span* last
    for i in range(ages.first, ages.end):
        last = &ages.spans[end - 1] if end else NULL
        if ages.spans[i].count == 0:
            continue
        if last != NULL and may_span(last.first_us, ages.spans[i].last_us, now_us, share):
            last.last_us = ages.spans[i].last_us
            last.count += ages.spans[i].count
        else:
            ages.spans[end] = ages.spans[i]
            end += 1
    ages.first = 0
    ages.end = end


cdef inline int64_t oldest_us(Ages* ages) noexcept nogil:
    """Since when the oldest job is ready; 0: there is none."""
    if ages.first == ages.end:
        return 0
    return (ages.spans[ages.first].first_us + ages.spans[ages.first].last_us) // 2


cdef void ages_free(Ages* ages) noexcept nogil:
    free(ages.spans)
    memset(ages, 0, sizeof(Ages))


# --- the queues whose jobs are ready the longest ----------------------------------------------------------------------

cdef list worst_queues(Core core, Access access, uint32_t first, uint32_t end, uint32_t limit):
    """The names of queues in these places that have ready jobs, the oldest first; to an owner: the most jobs first."""
    cdef uint32_t i, k, n = 0, owner = NONE if access.owner is None else find_name(core, access.owner)
    cdef int64_t rank
    cdef Queue* queue
    cdef Dated* worst
    if limit == 0 or (access.owner is not None and owner == NONE):
        return []
    worst = <Dated*>malloc(<size_t>limit * sizeof(Dated))
    if worst == NULL:
        raise MemoryError
    try:
        for i in range(first, min(end, pool_end(&core.t.queues))):
            queue = queue_by(core, i) if pool_has(&core.t.queues, i) else NULL
            if queue == NULL or queue.ready == 0:
                continue
            rank = oldest_us(&queue.ages) if owner == NONE else -owned_ready(core, owner, i)
            if rank == 0 or (n == limit and rank >= worst[n - 1].us):
                continue
            if access.queues is not None and queue_name(core, i) not in access.queues:
                continue
            k = n if n < limit else limit - 1
            n = k + 1
            while k and worst[k - 1].us > rank:
                worst[k] = worst[k - 1]
                k -= 1
            worst[k].us = rank
            worst[k].list = i
        return [queue_name(core, worst[k].list) for k in range(n)]
    finally:
        free(worst)


cdef int64_t owned_ready(Core core, uint32_t owner, uint32_t queue) noexcept:
    """How many of an owner's jobs in a queue are ready."""
    cdef uint32_t at = find_holding(core, queue, owner)
    return 0 if at == NONE else holding_by(core, at).ready
