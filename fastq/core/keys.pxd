# Idempotency keys.

cdef enum:
    ANSWER_BYTES = 17       # seq u64, value i64, how u8: of one job or extended lease, as REMEMBER records have it

cdef union RememberedAnswer:
    int64_t created_us      # of the job
    char* text              # a transaction's: ANSWER_BYTES for each job and extended lease

cdef struct Remembered:     # 64 bytes; an idempotency key and its answer, in a list by time
    uint64_t key[2]         # [log] keyed hash of (owner, idempotency key)
    uint64_t body_digest    # [log] of the request
    uint64_t seq            # [log] the job; 0: a transaction
    RememberedAnswer answer # [log]
    int64_t used_us         # [log] the key's first use
    uint32_t anchor         # [memory] anchor_at the frame of the record that contains it
    uint32_t answers        # [log] a transaction's jobs and extended leases. [memory] of a job: 0 if its SUBMIT record
                            #   stated the key, 1 if a REMEMBER record did
    uint32_t older
    uint32_t newer
