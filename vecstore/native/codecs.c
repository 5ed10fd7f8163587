/* A pack's deltas in and out of the order in which they are packed: packs/codecs/chunks.py in one pass.

The stretches of equal exponent of the reference follow one another; inside one, elements keep their order. */

#include "common.h"

#define ORDERED(raw, top) ((raw) & (top) ? ~(raw) : (raw) | (top))
#define UNORDERED(ordered, top) ((ordered) & (top) ? (ordered) ^ (top) : ~(ordered))

/* `next` is where the next element of each exponent lies, and moves on. */
#define CODEC(TYPE, SIGNED, BITS)                                                                                   \
    void pv_sort##BITS(const TYPE *restrict raw, const TYPE *restrict reference, int64_t n, int32_t mantissa,      \
                       uint32_t mask, int64_t *restrict next, TYPE *restrict folded) {                              \
        const TYPE top = (TYPE)1 << (BITS - 1);                                                                     \
        for (int64_t i = 0; i < n; i++) {                                                                           \
            TYPE own = reference[i], its = raw[i];                                                                  \
            TYPE step = (TYPE)((TYPE)ORDERED(its, top) - (TYPE)ORDERED(own, top));                                  \
            TYPE sign = (TYPE)((SIGNED)step >> (BITS - 1));                                                         \
            folded[next[(own >> mantissa) & mask]++] = (TYPE)((TYPE)(step << 1) ^ sign);                            \
        }                                                                                                           \
    }                                                                                                               \
    void pv_unsort##BITS(const TYPE *restrict folded, const TYPE *restrict reference, int64_t n, int32_t mantissa, \
                         uint32_t mask, int64_t *restrict next, TYPE *restrict raw) {                               \
        const TYPE top = (TYPE)1 << (BITS - 1);                                                                     \
        for (int64_t i = 0; i < n; i++) {                                                                           \
            TYPE own = reference[i], value = folded[next[(own >> mantissa) & mask]++];                              \
            TYPE step = (TYPE)((value >> 1) ^ (TYPE)(-(TYPE)(value & 1)));                                          \
            TYPE ordered = (TYPE)((TYPE)ORDERED(own, top) + step);                                                  \
            raw[i] = (TYPE)UNORDERED(ordered, top);                                                                 \
        }                                                                                                           \
    }                                                                                                               \
    void pv_count##BITS(const TYPE *restrict reference, int64_t n, int32_t mantissa, uint32_t mask,                \
                        int64_t *restrict counts) {                                                                 \
        for (int64_t i = 0; i < n; i++) counts[(reference[i] >> mantissa) & mask]++;                               \
    }

CODEC(uint8_t, int8_t, 8)
CODEC(uint16_t, int16_t, 16)
CODEC(uint32_t, int32_t, 32)
