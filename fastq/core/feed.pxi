# The feed: the newest changes of jobs in a ring, made into Python objects only when somebody reads.
#
# Numbers begin with the time of the start, so that they go on rising after a restart.

@cython.final
cdef class JobChange:
    cdef readonly uint64_t seq, frame
    cdef readonly int64_t at_us
    cdef readonly str job_id, state, queue, group, owner_id, what
    cdef readonly int attempt


cdef int begin_feed(Core core, int64_t now_us) except -1:
    if core.feed.ring == NULL:
        core.feed.ring = <JobChanged*>calloc(CHANGES_KEPT, sizeof(JobChanged))
        if core.feed.ring == NULL:
            raise MemoryError
        core.feed.first = core.feed.next = <uint64_t>max(now_us, <int64_t>1)
    return 0


cdef inline int tell(Core core, Job* job, int what, int64_t at_us, Place* place) except -1:
    """Tell of a change, after `count` and with the job's new state. Call it only while `core.serves`."""
    if core.feed.room:
        return keep_change(core, job, what, at_us, place_frame(place))
    core.feed.left_out += 1
    core.feed.left_out_frame = place_frame(place)
    return 0


cdef inline JobChanged* change_at(Feed* feed, uint64_t number) noexcept nogil:
    return &feed.ring[number % CHANGES_KEPT]


cdef int keep_change(Core core, Job* job, int what, int64_t at_us, uint64_t frame) except -1:
    cdef Feed* feed = &core.feed
    cdef JobChanged* change = change_at(feed, feed.next)
    if feed.next - feed.first == CHANGES_KEPT:
        drop_change(core, change)
        feed.first += 1
    feed.next += 1
    feed.room -= 1
    change.at_us = at_us
    change.created_us = job.created_us
    change.job = job.seq
    change.frame = frame
    change.left_out = feed.left_out
    change.queue = queue_at(core, job.group).name
    change.group = group_by(core, job.group).name
    change.owner = job.owner
    change.attempt = job.attempts
    change.state = 0 if job.state == READY and job.run_at_us > at_us else job.state
    change.what = <uint8_t>what
    named(core, change.queue).uses += 1
    named(core, change.owner).uses += 1
    if change.group != NONE:
        named(core, change.group).uses += 1
    return 0


cdef int drop_change(Core core, JobChanged* change) except -1:
    drop_name(core, change.queue)
    drop_name(core, change.owner)
    return 0 if change.group == NONE else drop_name(core, change.group)


cdef JobChange change_view(Core core, uint64_t number):
    cdef JobChanged* change = change_at(&core.feed, number)
    cdef JobChange view = JobChange.__new__(JobChange)
    view.seq = number
    view.frame = change.frame
    view.at_us = change.at_us
    view.job_id = id_text(change.created_us, change.job, core.tag)
    view.state = STATES[change.state]
    view.queue = name_text(core, change.queue)
    view.group = name_text(core, change.group)
    view.owner_id = name_text(core, change.owner)
    view.what = WHAT_HAPPENED[change.what]
    view.attempt = change.attempt
    return view


cdef tuple changes_after(Core core, uint64_t after, uint64_t until_frame, int limit):
    """The changes after a number up to a frame, how many were left out before the end of these, and the oldest kept."""
    cdef Feed* feed = &core.feed
    cdef list found = []
    cdef uint64_t number = max(after + 1, feed.first), left_out = 0
    if after >= feed.next:  # no number of this server
        number = feed.first
    if feed.next > feed.first:
        left_out = change_at(feed, max(number - 1, feed.first)).left_out
    while number < feed.next and len(found) < limit and change_at(feed, number).frame <= until_frame:
        left_out = change_at(feed, number).left_out
        found.append(change_view(core, number))
        number += 1
    if number == feed.next and feed.left_out_frame <= until_frame:
        left_out = feed.left_out
    return found, left_out, feed.first
