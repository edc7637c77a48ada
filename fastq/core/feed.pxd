# The newest changes of jobs, for those who watch. All of it is [memory].

cdef enum:
    CHANGES_KEPT = 1024
    CHANGES_A_SECOND = 200  # others are only counted

cdef struct JobChanged:
    int64_t at_us
    int64_t created_us      # of the job
    uint64_t job            # its number
    uint64_t frame          # that holds the change
    uint64_t left_out       # changes that were only counted before this one
    uint32_t queue          # indexes in the names: the feed uses them, so they stay
    uint32_t group          # NONE: the default group
    uint32_t owner
    uint16_t attempt
    uint8_t state           # a State; 0: SCHEDULED
    uint8_t what

cdef struct Feed:
    JobChanged* ring        # by number modulo CHANGES_KEPT; NULL before `resume`
    uint64_t first          # number of the oldest one that is kept
    uint64_t next
    uint64_t left_out
    uint64_t left_out_frame # of the last one
    uint32_t room           # how many more are kept in this second
