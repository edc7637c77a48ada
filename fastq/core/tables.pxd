# The tables of jobs: pools of fixed structs, and the indexes to their slots.

cdef enum:
    POOL_CHUNK_ITEMS = 4096
    SHARDS = 1024           # of an index: each grows by itself, so that growing takes no long pause


cdef struct Pool:           # of structs of one size; an item is named by its slot and never moves
    char** chunks
    uint32_t chunk_count
    uint32_t used           # slots ever used
    uint32_t free_head      # first free slot, the others linked through their first four bytes; NONE
    uint32_t live
    uint32_t item_bytes


cdef enum:                  # IndexKind
    BY_SEQ = 0              # jobs, by number
    BY_UNIQUE = 1           # unfinished jobs, by unique key
    BY_KEY = 2              # remembered idempotency keys


cdef struct Shard:
    uint32_t* slots         # NONE where empty
    uint32_t capacity       # a power of two
    uint32_t used


cdef struct Index:
    Shard shards[SHARDS]


cdef struct Tables:
    Pool jobs
    Pool runs
    Pool extras
    Pool closings
    Pool sizes
    Pool remembered
    Index by[3]             # an IndexKind each
