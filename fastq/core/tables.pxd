# The tables of jobs: pools of fixed structs, and the indexes to their slots.

cdef enum:
    POOL_CHUNK_ITEMS = 4096
    SHARDS = 1024           # of an index: each grows by itself, so that growing takes no long pause


cdef struct PoolChunk:      # POOL_CHUNK_ITEMS items, mapped by itself: its memory goes back when the last item goes
    char* items             # NULL: it has no memory
    uint32_t used           # items ever used
    uint32_t live
    uint32_t free_head      # first free item, the others linked through their first four bytes; NONE
    uint32_t next           # of the list that the chunk is in: with free items, or without memory; NONE at the ends
    uint32_t previous


cdef struct Pool:           # of structs of one size; an item is named by its slot and never moves
    PoolChunk* chunks
    uint32_t chunk_count
    uint32_t free_chunk     # first chunk with a free item; NONE
    uint32_t gone_chunk     # first chunk without memory; NONE
    uint32_t spare_chunk    # an empty chunk that keeps its memory; NONE
    uint32_t live
    uint32_t item_bytes


cdef enum:                  # IndexKind
    BY_SEQ = 0              # jobs, by number
    BY_UNIQUE = 1           # unfinished jobs, by unique key
    BY_KEY = 2              # remembered idempotency keys
    BY_NAME = 3             # names, by text
    BY_GROUP = 4            # groups, by queue and name
    BY_HOLDING = 5          # holdings, by queue and owner
    INDEX_KINDS = 6


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
    Pool names
    Pool queues
    Pool groups
    Pool holdings
    Pool traffic
    Index by[INDEX_KINDS]   # an IndexKind each
