# The state machine's data. Its methods are in machine.pxi; only applying.pxi changes [log] fields.

@cython.final
cdef class Core:
    cdef Tail tail
    cdef CoreSettings settings
    cdef Tables t
    cdef Heap delayed, leased, expiring
    cdef Line due                   # lists of finished jobs, by when retention removes their oldest job
    cdef Line ended_first[FINAL_COUNT]      # the same by when it ended, for each terminal state
    cdef uint64_t surplus_count[FINAL_COUNT], surplus_bytes[FINAL_COUNT]    # of the lists in them
    cdef int64_t kept_ms[FINAL_COUNT]       # the server's retention
    cdef uint64_t finished_max, finished_bytes_max
    cdef object idle_groups         # indexes of empty groups whose turn may not be over
    cdef dict shares                # a set of weighted queues -> its Shares, least recently used first
    cdef uint32_t last_owner, last_queue    # of the last new job: an index of names and one of queues, or NONE
    cdef uint32_t last_holding              # that was looked up, or NONE
    cdef dict documents_by_kind     # kind -> {name: (body, its RecordPlace)}
    cdef dict requests              # (key_id, request_id) -> (lease time, {seq: lease_no}), while those leases last
    cdef dict request_of            # seq -> (key_id, request_id)
    cdef dict progress              # seq -> (percent, note, time)
    cdef dict blocks                # number of a block of seqs -> the number of its jobs
    cdef uint64_t block, block_jobs # the current block, kept out of the dict: see listing.pxi
    cdef uint32_t oldest_key, newest_key, last_key  # of the list of remembered idempotency keys
    cdef uint64_t remembered_count  # of the keys: a transaction's key counts for each of its answers, any other once
    cdef uint64_t keyed_jobs        # jobs that are JOB_KEYED
    cdef object touched             # names of queues in which jobs became ready, while `watching`
    cdef public bint watching
    cdef list ended                 # of watched jobs that finished or were removed: (id, JobView at the end or None)
    cdef list forgotten             # JobViews of jobs that retention removed soon after their end
    cdef uint64_t counts_by_state[STATE_COUNT]
    cdef uint64_t next_seq, epoch, skipped_count
    cdef readonly uint64_t live_bytes       # what a rewrite would append: see live.pxi
    cdef readonly uint64_t dropped_early
    cdef readonly uint64_t oldest_frame, broken_links
    cdef readonly int64_t last_us
    cdef readonly bytes database_id
    cdef SipKey key
    cdef uint64_t tag
    cdef bint serves                # `resume` was called: what happens is counted
    cdef uint8_t edited_as             # of the last edit: CHANGE_EDITED or CHANGE_REPLACED
    cdef uint64_t counted[COUNTED]  # of all queues
    cdef QueueTraffic* last_traffic # that was counted in, or NULL
    cdef Feed feed
    cdef object failure_groups      # (owner_id, queue, error code, line) -> FailureGroup, the one seen last at the end
    cdef uint64_t dropped_failures
    cdef Durations durations
    cdef uint32_t durations_count   # queues with Durations of their own
    cdef uint32_t first_active, last_active # of the list of queues with traffic since it was read; NONE
    cdef int64_t second, second_end_us      # the latest second in which something was counted
    cdef uint32_t cell                      # of the windows, that counts this second
    cdef uint32_t lease_fence       # new leases have higher numbers
    cdef uint32_t depth_limits      # how many limits on unfinished jobs are set: of queues, and of owners
