# What the core hands out: plain values, made when they are asked for.

cdef tuple STATE_NAMES = ("", "READY", "RUNNING", "RETRY", "ACKED", "DEAD")


cdef inline tuple place_tuple(Place* place):
    return (place.segment, place.offset, place.bytes)


@cython.final
cdef class Leased:
    cdef readonly str job_id
    cdef readonly str token
    cdef readonly str queue
    cdef readonly tuple place
    cdef readonly int64_t lease_until_us
    cdef readonly int64_t created_us
    cdef readonly int32_t priority
    cdef readonly int attempt
    cdef readonly int max_retries


@cython.final
cdef class JobView:
    cdef readonly str job_id
    cdef readonly str state
    cdef readonly str queue
    cdef readonly str owner_id
    cdef readonly tuple place
    cdef readonly object close_place
    cdef readonly object lease_until_us
    cdef readonly int64_t created_us
    cdef readonly int64_t run_at_us
    cdef readonly int32_t priority
    cdef readonly int attempts
    cdef readonly int max_retries
    cdef readonly bint expired


# --- the bodies of records that were read from the log ----------------------------------------------------------------

cdef Reader open_record(bytes record, uint8_t type, uint64_t seq, uint16_t* flags) except *:
    """A reader past the head and the seq of a record that must be of this type and job."""
    cdef Reader r
    cdef uint8_t found
    r.p = <const char*>record
    r.end = r.p + len(record)
    r.short = False
    found = <uint8_t>get_int(&r, 1)
    get_int(&r, 1)
    flags[0] = <uint16_t>get_int(&r, 2)
    if get_int(&r, 4) != <uint64_t>len(record) or found != type or get_int(&r, 8) != seq or r.short:
        raise LogDamaged(f"the log does not hold record {type} of job {seq} where it should")
    return r


cdef uint64_t seq_of(str job_id):
    """The sequence number in an id that the core itself has given out."""
    return (int(job_id[19:23] + job_id[24:], 16) >> TAG_BITS) & ((<uint64_t>1 << SEQ_BITS) - 1)


def submit_payload(bytes record, str job_id):
    cdef uint16_t flags = 0
    cdef Reader r = open_record(record, SUBMIT, seq_of(job_id), &flags)
    cdef SubmitFields f
    read_submit(&r, flags, &f)
    if r.short:
        raise LogDamaged(f"the submit record of job {job_id} is cut short")
    return PyBytes_FromStringAndSize(r.p, r.end - r.p)


def close_result(bytes record, str job_id):
    cdef uint16_t flags = 0
    cdef Reader r = open_record(record, CLOSE, seq_of(job_id), &flags)
    cdef CloseFields f
    read_close(&r, flags, &f)
    if r.short:
        raise LogDamaged(f"the close record of job {job_id} is cut short")
    result = PyBytes_FromStringAndSize(r.p, r.end - r.p) if flags & CLOSE_RESULT else None
    return result, (f.error[:f.error_bytes]).decode()
