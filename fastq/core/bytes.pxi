# Little-endian reading and writing, and the keyed hash. x86-64 and AArch64 are little-endian: a copy is the encoding.


cdef inline char* put_u8(char* p, uint8_t value) noexcept nogil:
    p[0] = <char>value
    return p + 1


cdef inline char* put_u16(char* p, uint16_t value) noexcept nogil:
    memcpy(p, &value, 2)
    return p + 2


cdef inline char* put_u32(char* p, uint32_t value) noexcept nogil:
    memcpy(p, &value, 4)
    return p + 4


cdef inline char* put_u64(char* p, uint64_t value) noexcept nogil:
    memcpy(p, &value, 8)
    return p + 8


cdef inline char* put_i64(char* p, int64_t value) noexcept nogil:
    memcpy(p, &value, 8)
    return p + 8


cdef inline char* put_double(char* p, double value) noexcept nogil:
    memcpy(p, &value, 8)
    return p + 8


cdef inline char* put_bytes(char* p, const char* data, size_t n) noexcept nogil:
    if n:  # an empty text may have a NULL pointer, which memcpy must not get
        memcpy(p, data, n)
    return p + n


cdef inline char* put_name(char* p, bytes name):
    cdef size_t n = len(name)
    p[0] = <char><uint8_t>n
    memcpy(p + 1, <const char*>name, n)
    return p + 1 + n


cdef inline const char* get_bytes(Reader* r, size_t n) noexcept nogil:
    """A pointer to the next n bytes; NULL if fewer are left."""
    cdef const char* p = r.p
    if <size_t>(r.end - p) < n:
        r.short = True
        r.p = r.end
        return NULL
    r.p = p + n
    return p


cdef inline uint64_t get_int(Reader* r, size_t n) noexcept nogil:
    """An unsigned integer of n bytes, at most 8."""
    cdef uint64_t value = 0
    cdef const char* p = get_bytes(r, n)
    if p != NULL:
        memcpy(&value, p, n)
    return value


cdef inline double get_double(Reader* r) noexcept nogil:
    cdef double value = 0
    cdef const char* p = get_bytes(r, 8)
    if p != NULL:
        memcpy(&value, p, 8)
    return value


cdef inline bytes get_name(Reader* r):
    cdef size_t n = get_int(r, 1)
    cdef const char* p = get_bytes(r, n)
    return b"" if p == NULL else p[:n]


# --- SipHash-2-4 (Aumasson and Bernstein, 2012): a short-input MAC ----------------------------------------------------

cdef inline uint64_t rotl(uint64_t x, int n) noexcept nogil:
    return (x << n) | (x >> (64 - n))


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = rotl(v[1], 13) ^ v[0]
    v[3] = rotl(v[3], 16) ^ v[2]
    v[0] = rotl(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = rotl(v[1], 17) ^ v[2]
    v[3] = rotl(v[3], 21) ^ v[0]
    v[2] = rotl(v[2], 32)


cdef uint64_t siphash(SipKey key, const char* data, size_t n) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef size_t i, whole = n & ~<size_t>7
    v[0] = key.k0 ^ <uint64_t>0x736f6d6570736575
    v[1] = key.k1 ^ <uint64_t>0x646f72616e646f6d
    v[2] = key.k0 ^ <uint64_t>0x6c7967656e657261
    v[3] = key.k1 ^ <uint64_t>0x7465646279746573
    for i in range(0, whole, 8):
        memcpy(&word, data + i, 8)
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
    word = <uint64_t>n << 56
    for i in range(whole, n):
        word |= <uint64_t><uint8_t>data[i] << (8 * (i - whole))
    v[3] ^= word
    sip_round(v)
    sip_round(v)
    v[0] ^= word
    v[2] ^= 0xff
    for i in range(4):
        sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
