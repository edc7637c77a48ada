# Failures: attempts that failed, grouped by owner, queue, error code and the first line of the error.

cdef enum:
    FAILURE_GROUPS_MAX = 10_000     # the one that was seen longest ago leaves
    FAILURE_LINE_BYTES = 200

cdef bytes TRACEBACK = b"Traceback (most recent call last):"


@cython.final
cdef class FailureGroup:
    cdef readonly str queue, owner_id, error_code, error, job_id
    cdef readonly uint64_t count
    cdef readonly int64_t first_us, last_us

    def __init__(self, *, str queue not None, str owner_id not None, str error_code not None, str error not None,
                 uint64_t count, int64_t first_us, int64_t last_us, str job_id not None):
        self.queue, self.owner_id, self.error_code, self.error = queue, owner_id, error_code, error
        self.count, self.first_us, self.last_us, self.job_id = count, first_us, last_us, job_id


cdef FailureGroup copy_of(FailureGroup group):
    """What a caller gets does not change any more."""
    return FailureGroup(queue=group.queue, owner_id=group.owner_id, error_code=group.error_code, error=group.error,
                        count=group.count, first_us=group.first_us, last_us=group.last_us, job_id=group.job_id)


cdef int note_failure(Core core, Job* job, CloseFields* f) except -1:
    """Count a failed attempt in its group. Expired leases and other ends without a text have their outcome as text."""
    cdef str queue = queue_name(core, group_by(core, job.group).queue), owner = name_text(core, job.owner)
    cdef str code = text_of(f.error_code)
    cdef str line = first_line(f.error[:f.error_bytes]) if f.error_bytes else ""
    cdef FailureGroup group
    if not line and f.outcome != OUTCOME_ERROR:
        line = OUTCOME_NAMES[f.outcome]
    key = (owner, queue, code, line)
    group = core.failure_groups.get(key)
    if group is None:
        group = FailureGroup(queue=queue, owner_id=owner, error_code=code, error=line, count=0, first_us=f.at_us,
                             last_us=f.at_us, job_id="")
        core.failure_groups[key] = group
        bound_failures(core)
    else:
        core.failure_groups.move_to_end(key)
    group.count += 1
    group.last_us = f.at_us
    group.job_id = job_id_of(core, job)
    return 0


def error_line(str error not None):
    """What stands for an error in lists and groups: see `first_line`."""
    return first_line(error.encode())


cdef str first_line(bytes error):
    """The first line of an error, at most 200 bytes of it. Of a Python traceback, the first line of its exception."""
    cdef bytes text = error.strip()
    if text.startswith(TRACEBACK):
        text = last_exception(text)
    return cut_text(text.split(b"\n", 1)[0].rstrip(), FAILURE_LINE_BYTES).decode("utf-8", "replace")


cdef bytes last_exception(bytes traceback):
    """The line that names the exception; of a chain, the last one. The whole text if it was cut before any."""
    cdef bytes found = traceback, line
    cdef bint is_awaited = False
    for line in traceback.split(b"\n"):
        if line.startswith(TRACEBACK):
            is_awaited = True
        elif is_awaited and line.strip() and not line[:1].isspace():
            found = line
            is_awaited = False
    return found


cdef int bound_failures(Core core) except -1:
    while len(core.failure_groups) > FAILURE_GROUPS_MAX:
        core.failure_groups.popitem(last=False)
        core.dropped_failures += 1
    return 0


cdef list find_failures(Core core, Access access, str queue, int64_t since_us, int limit):
    """Copies of the groups that exist for a caller, the one seen last first."""
    cdef list found = []
    cdef str owner = None if access.owner is None else access.owner.decode()
    cdef FailureGroup group
    for group in reversed(core.failure_groups.values()):
        if len(found) >= limit:
            break
        if group.last_us < since_us or (queue is not None and group.queue != queue):
            continue
        if (owner is None or group.owner_id == owner) and (access.queues is None or group.queue in access.queues):
            found.append(copy_of(group))
    return found


cdef int add_failures(Core core, list groups) except -1:
    """Add groups that were remembered since an earlier start."""
    cdef FailureGroup group, known
    for group in groups:
        key = (group.owner_id, group.queue, group.error_code, group.error)
        known = core.failure_groups.get(key)
        if known is None:
            core.failure_groups[key] = copy_of(group)
            continue
        known.count += group.count
        known.first_us = min(known.first_us, group.first_us)
        if group.last_us > known.last_us:
            known.last_us, known.job_id = group.last_us, group.job_id
    core.failure_groups = OrderedDict(sorted(core.failure_groups.items(), key=last_seen))
    return bound_failures(core)


cdef int64_t last_seen(tuple item) except -1:
    return (<FailureGroup>item[1]).last_us
