# Idempotency keys.

cdef struct Remembered:     # 64 bytes; an idempotency key and its answer, in a list by time
    uint64_t key[2]         # [log] keyed hash of (owner, idempotency key)
    uint64_t body_digest    # [log] of the request
    uint64_t seq            # [log] the job; 0: a transaction, whose answer is in `answers`
    int64_t created_us      # [log] the job's
    int64_t used_us         # [log] the key's first use
    uint64_t frame          # [memory] of the record that contains it
    uint32_t older
    uint32_t newer
