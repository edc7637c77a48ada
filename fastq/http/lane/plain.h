/* How far a text is plain. Sixteen bytes at a time with SSE2, which every x86-64 has; elsewhere eight.
   A machine without little-endian words is refused by core/crc32c.h. */

#pragma once

#include <stdint.h>
#include <string.h>

#define PLAIN_EACH 0x0101010101010101u
#define PLAIN_HIGH 0x8080808080808080u

#if defined(__SSE2__)
#include <emmintrin.h>

static inline unsigned plain_ends(const unsigned char *at) {
    const __m128i text = _mm_loadu_si128((const __m128i *)at);
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(text, _mm_set1_epi8(0x1f)), text);
    const __m128i quote = _mm_cmpeq_epi8(text, _mm_set1_epi8('"'));
    const __m128i backslash = _mm_cmpeq_epi8(text, _mm_set1_epi8('\\'));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, backslash)));
}
#endif

/* A bit of the first byte of the word that is 0; bits of later bytes may be wrong. No bit: no byte is 0. */
static inline uint64_t plain_zeros(uint64_t word) { return (word - PLAIN_EACH) & ~word & PLAIN_HIGH; }

/* The first quote, backslash or control character of a string; or where fewer than eight bytes are left. */
static inline const unsigned char *past_plain(const unsigned char *at, const unsigned char *end) {
    uint64_t word, ends;
#if defined(__SSE2__)
    for (; end - at >= 16; at += 16)
        if ((ends = plain_ends(at))) return at + __builtin_ctzll(ends);
#endif
    for (; end - at >= 8; at += 8) {
        memcpy(&word, at, 8);
        ends = plain_zeros(word ^ PLAIN_EACH * '"') | plain_zeros(word ^ PLAIN_EACH * '\\');
        ends |= (word - PLAIN_EACH * 0x20) & ~word & PLAIN_HIGH;
        if (ends) return at + (__builtin_ctzll(ends) >> 3);
    }
    return at;
}

/* The first byte that is not ASCII; else the end. */
static inline const unsigned char *past_ascii(const unsigned char *at, const unsigned char *end) {
    uint64_t word;
#if defined(__SSE2__)
    for (; end - at >= 32; at += 32) {
        const __m128i *text = (const __m128i *)at;
        if (_mm_movemask_epi8(_mm_or_si128(_mm_loadu_si128(text), _mm_loadu_si128(text + 1)))) break;
    }
#endif
    for (; end - at >= 8; at += 8) {
        memcpy(&word, at, 8);
        if (word & PLAIN_HIGH) break;
    }
    while (at < end && *at < 0x80) at++;
    return at;
}
