/* CRC32C (Castagnoli), by the processor's instruction if it has one.
   Each extension that includes this file has its own tables: it calls crc32c_prepare once. */

#pragma once

#include <stdint.h>
#include <string.h>
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the log is little-endian, and this machine is not: byte swaps are not implemented"
#endif

#define CRC32C_LANE 1024  /* bytes that each of three interleaved streams takes in one round */

static uint32_t crc32c_table[8][256];
static uint32_t crc32c_skip[4][256];  /* the effect of CRC32C_LANE zero bytes on each byte of a register */
static int crc32c_fast = 0;

static void crc32c_prepare(void) {
    uint32_t basis[32];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t r = i;
        for (int bit = 0; bit < 8; bit++) r = (r >> 1) ^ (0x82f63b78u & (0u - (r & 1)));
        crc32c_table[0][i] = r;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            crc32c_table[t][i] = (crc32c_table[t - 1][i] >> 8) ^ crc32c_table[0][crc32c_table[t - 1][i] & 255];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t r = 1u << bit;
        for (int n = 0; n < CRC32C_LANE; n++) r = (r >> 8) ^ crc32c_table[0][r & 255];
        basis[bit] = r;
    }
    for (int byte = 0; byte < 4; byte++)
        for (int value = 0; value < 256; value++) {
            uint32_t r = 0;
            for (int bit = 0; bit < 8; bit++) if (value >> bit & 1) r ^= basis[8 * byte + bit];
            crc32c_skip[byte][value] = r;
        }
#if defined(__x86_64__)
    crc32c_fast = __builtin_cpu_supports("sse4.2") != 0;
#endif
}

static uint32_t crc32c_by_table(uint32_t r, const uint8_t *p, size_t n) {
    uint64_t w;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        w ^= r;
        r = crc32c_table[7][w & 255] ^ crc32c_table[6][w >> 8 & 255] ^ crc32c_table[5][w >> 16 & 255]
          ^ crc32c_table[4][w >> 24 & 255] ^ crc32c_table[3][w >> 32 & 255] ^ crc32c_table[2][w >> 40 & 255]
          ^ crc32c_table[1][w >> 48 & 255] ^ crc32c_table[0][w >> 56];
    }
    for (; n; n--) r = (r >> 8) ^ crc32c_table[0][(r ^ *p++) & 255];
    return r;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
static inline uint32_t crc32c_over_lane(uint32_t r) {
    return crc32c_skip[0][r & 255] ^ crc32c_skip[1][r >> 8 & 255]
         ^ crc32c_skip[2][r >> 16 & 255] ^ crc32c_skip[3][r >> 24];
}

/* Eight words at a time, then what is left by halves: a record is short, so each step of a loop would count. */
__attribute__((target("sse4.2")))
static inline uint32_t crc32c_of_rest(uint64_t a, const uint8_t *p, size_t n) {
    uint64_t x;
    uint32_t y;
    uint16_t z;
#define CRC32C_WORD(at) (memcpy(&x, p + (at), 8), a = _mm_crc32_u64(a, x))
#define CRC32C_WORDS(at) (CRC32C_WORD(at), CRC32C_WORD((at) + 8))
    for (; n >= 64; p += 64, n -= 64) CRC32C_WORDS(0), CRC32C_WORDS(16), CRC32C_WORDS(32), CRC32C_WORDS(48);
    if (n & 32) { CRC32C_WORDS(0), CRC32C_WORDS(16); p += 32; }
    if (n & 16) { CRC32C_WORDS(0); p += 16; }
    if (n & 8) { CRC32C_WORD(0); p += 8; }
#undef CRC32C_WORDS
#undef CRC32C_WORD
    uint32_t r = (uint32_t)a;
    if (n & 4) { memcpy(&y, p, 4); r = _mm_crc32_u32(r, y); p += 4; }
    if (n & 2) { memcpy(&z, p, 2); r = _mm_crc32_u16(r, z); p += 2; }
    return n & 1 ? _mm_crc32_u8(r, *p) : r;
}

/* The instruction takes three cycles and one can start in each cycle: compute three streams at once. */
__attribute__((target("sse4.2")))
static uint32_t crc32c_by_instruction(uint32_t r, const uint8_t *p, size_t n) {
    uint64_t a = r, b, c, x, y, z;
    for (; n >= 3 * CRC32C_LANE; p += 3 * CRC32C_LANE, n -= 3 * CRC32C_LANE) {
        b = c = 0;
        for (size_t i = 0; i < CRC32C_LANE; i += 8) {
            memcpy(&x, p + i, 8);
            memcpy(&y, p + i + CRC32C_LANE, 8);
            memcpy(&z, p + i + 2 * CRC32C_LANE, 8);
            a = _mm_crc32_u64(a, x);
            b = _mm_crc32_u64(b, y);
            c = _mm_crc32_u64(c, z);
        }
        a = crc32c_over_lane((uint32_t)a) ^ (uint32_t)b;
        a = crc32c_over_lane((uint32_t)a) ^ (uint32_t)c;
    }
    return crc32c_of_rest(a, p, n);
}

__attribute__((target("sse4.2")))
static uint32_t crc32c_pair_by_instruction(const uint8_t *word, const uint8_t *p, size_t n) {
    uint64_t x;
    memcpy(&x, word, 8);
    uint32_t r = (uint32_t)_mm_crc32_u64(~0u, x);
    return n < 3 * CRC32C_LANE ? crc32c_of_rest(r, p, n) : crc32c_by_instruction(r, p, n);
}
#else
#define crc32c_by_instruction crc32c_by_table
static uint32_t crc32c_pair_by_instruction(const uint8_t *word, const uint8_t *p, size_t n) {
    return crc32c_by_table(crc32c_by_table(~0u, word, 8), p, n);
}
#endif

static inline uint32_t crc32c_slowly(const uint8_t *p, size_t n) { return ~crc32c_by_table(~0u, p, n); }
static inline uint32_t crc32c_of(const uint8_t *p, size_t n) {
    return crc32c_fast ? ~crc32c_by_instruction(~0u, p, n) : crc32c_slowly(p, n);
}
/* The checksum of eight bytes at `word`, followed by n bytes at p. */
static inline uint32_t crc32c_of_pair(const uint8_t *word, const uint8_t *p, size_t n) {
    if (crc32c_fast) return ~crc32c_pair_by_instruction(word, p, n);
    return ~crc32c_by_table(crc32c_by_table(~0u, word, 8), p, n);
}
