/* The engine's inner loops. What each computes is defined by the numpy code that it stands in for, bit for bit.

Only separate IEEE single-precision operations in a fixed order: compiled without contraction into fused multiply-adds
and without fast-math (see compile.py). Nothing is allocated on a caller's word, nothing is called back, and the
interpreter's lock is not held. */

#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "this compiler keeps floats in wider registers: pv's numpy code is used instead"
#endif
#if defined(__FAST_MATH__)
#error "fast-math changes results"
#endif

#include "common.h"

#define BLOCK 2048 /* elements worked on at a time: their scratch stays in the first-level cache */

enum { F32 = 0, BF16 = 1, F16 = 2 };

/* A delta: of `whole` tensors, the tensor minus the base; else the delta itself. `kind` is its dtype. */
typedef struct {
    const void *data;
    int32_t kind;
    int32_t whole;
    float weight;
    uint32_t negated;     /* ties: the delta counts with the other sign */
    uint32_t threshold;   /* ties: kept if the magnitude's bits are above it, */
    uint32_t all;         /* (or always) */
    int64_t ties_until;   /* or equal to it and the index is below this */
} Source;

/* Where a result goes, and how it is rounded. `start` is the index in its tensor of the first element. */
typedef struct {
    void *data;
    int32_t kind;
    int32_t stochastic;
    uint32_t key[2];
    int64_t start;
    int64_t moved; /* counted: elements whose delta is not zero */
    int64_t lost;  /* counted: finite ones that are not finite any more */
} Target;

#define ABS 0x7fffffffu
#define INF 0x7f800000u
#define ANY_NAN 0x7f800001u
#define NAN_BITS 0x7fc00000u

INLINE uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

INLINE float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* IEEE half to single: exact, payloads kept. Subnormals by one exact multiplication. */
INLINE uint32_t half_bits(uint32_t h) {
    uint32_t sign = (h & 0x8000u) << 16, rest = (h & 0x7fffu) << 13;
    uint32_t finite = bits_of(float_of(rest) * float_of(0x77800000u)); /* 2^112 */
    return sign | (rest >= 0x0f800000u ? rest + 0x70000000u : finite);
}

INLINE void widen(const void *data, int kind, int64_t at, int64_t n, float *restrict out) {
    if (kind == F32) {
        memcpy(out, (const float *)data + at, 4 * (size_t)n);
    } else if (kind == BF16) {
        const uint16_t *restrict raw = (const uint16_t *)data + at;
        for (int64_t i = 0; i < n; i++) out[i] = float_of((uint32_t)raw[i] << 16);
    } else {
        const uint16_t *restrict raw = (const uint16_t *)data + at;
        for (int64_t i = 0; i < n; i++) out[i] = float_of(half_bits(raw[i]));
    }
}

INLINE void fetch(const Source *source, int64_t at, int64_t n, const float *restrict base, float *restrict out) {
    widen(source->data, source->kind, at, n, out);
    if (source->whole)
        for (int64_t i = 0; i < n; i++) out[i] = out[i] - base[i];
}

/* Philox4x32-10: `count` counters from `first` on, four words each. */
#define LANES 16
INLINE void philox(const uint32_t key[2], uint64_t first, int64_t count, uint32_t *restrict out) {
    for (int64_t low = 0; low < count; low += LANES) {
        uint32_t a[LANES], b[LANES], c[LANES], d[LANES];
        for (int i = 0; i < LANES; i++) {
            uint64_t counter = first + (uint64_t)low + (uint64_t)i;
            a[i] = (uint32_t)counter;
            b[i] = (uint32_t)(counter >> 32);
            c[i] = 0;
            d[i] = 0;
        }
        uint32_t k0 = key[0], k1 = key[1];
        for (int round = 0; round < 10; round++) {
            for (int i = 0; i < LANES; i++) {
                uint64_t x = (uint64_t)a[i] * 0xD2511F53u, y = (uint64_t)c[i] * 0xCD9E8D57u;
                a[i] = (uint32_t)(y >> 32) ^ b[i] ^ k0;
                c[i] = (uint32_t)(x >> 32) ^ d[i] ^ k1;
                b[i] = (uint32_t)y;
                d[i] = (uint32_t)x;
            }
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        int64_t lanes = count - low < LANES ? count - low : LANES;
        for (int64_t i = 0; i < lanes; i++) {
            uint32_t *word = out + 4 * (low + i);
            word[0] = a[i];
            word[1] = b[i];
            word[2] = c[i];
            word[3] = d[i];
        }
    }
}

INLINE uint32_t special(uint32_t magnitude, int drop, uint32_t largest, uint32_t overflow_from, uint32_t rebase,
                        uint32_t top) {
    uint32_t payload = magnitude & 0x7fffffu;
    uint32_t quiet = payload & ((1u << drop) - 1) ? 1u << (22 - drop) : 0;
    if (magnitude > INF) return top | payload >> drop | quiet;
    return magnitude < overflow_from ? (largest >> drop) - rebase : top;
}

INLINE uint32_t highest_of(const float *restrict x, int64_t n) {
    uint32_t highest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t magnitude = bits_of(x[i]) & ABS;
        highest = magnitude > highest ? magnitude : highest;
    }
    return highest;
}

INLINE void to_bf16(const float *restrict x, int64_t n, const uint16_t *restrict random, uint16_t *restrict out) {
    if (random)
        for (int64_t i = 0; i < n; i++) out[i] = (uint16_t)((bits_of(x[i]) + random[i]) >> 16);
    else
        for (int64_t i = 0; i < n; i++) {
            uint32_t bits = bits_of(x[i]);
            out[i] = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
        }
}

INLINE void beyond_bf16(const float *restrict x, int64_t n, uint16_t *restrict out) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(x[i]), magnitude = bits & ABS;
        if (magnitude > 0x7f7f0000u)
            out[i] = (uint16_t)(special(magnitude, 16, 0x7f7f0000u, 0x7f7f8000u, 0, 0x7f80u) | (bits >> 16 & 0x8000u));
    }
}

INLINE uint16_t half_of(uint32_t bits, const uint32_t *random) {
    const uint32_t rebase = 112u << 10, least = 113u << 23, largest = 0x477fe000u;
    uint32_t magnitude = bits & ABS, sign = bits >> 16 & 0x8000u;
    if (magnitude > largest) return (uint16_t)(special(magnitude, 13, largest, 0x477ff000u, rebase, 0x7c00u) | sign);
    if (magnitude >= least) {
        uint32_t increment = random ? *random >> 19 : 0xfffu + ((magnitude >> 13) & 1);
        return (uint16_t)((((magnitude + increment) >> 13) - rebase) | sign);
    }
    uint64_t significand = (magnitude & 0x7fffffu) | 0x800000u;
    uint32_t shift = 126u - (magnitude >> 23);
    if (random) {
        shift = shift < 63 ? shift : 63;
        return (uint16_t)(((((significand << 32) >> shift) + *random) >> 32) | sign);
    }
    shift = shift < 40 ? shift : 40;
    uint64_t half = ((uint64_t)1 << (shift - 1)) - 1, odd = (significand >> shift) & 1;
    return (uint16_t)(((significand + half + odd) >> shift) | sign);
}

/* Round `n` values to the target, from element `at` of it on. `base` are what they were before. */
INLINE void put(Target *target, int64_t at, int64_t n, const float *restrict base, const float *restrict x) {
    uint32_t random[2 * BLOCK + 8];
    int64_t from = target->start + at;
    uint32_t highest = highest_of(x, n), largest = 0x7f7fffffu; /* beyond it an element may be lost */
    if (target->kind == F32) {
        memcpy((float *)target->data + at, x, 4 * (size_t)n);
    } else if (target->kind == BF16) {
        uint16_t *restrict out = (uint16_t *)target->data + at;
        const uint16_t *draws = NULL;
        if (target->stochastic) {
            philox(target->key, (uint64_t)from / 8, (from % 8 + n + 7) / 8, random);
            draws = (const uint16_t *)random + from % 8;
        }
        to_bf16(x, n, draws, out);
        largest = 0x7f7f0000u;
        if (highest > largest) beyond_bf16(x, n, out);
    } else {
        uint16_t *restrict out = (uint16_t *)target->data + at;
        largest = 0x477fe000u;
        if (target->stochastic)
            for (int64_t low = 0; low < n; low += BLOCK / 2) { /* 32 bits each: in two halves */
                int64_t count = n - low < BLOCK / 2 ? n - low : BLOCK / 2, first = from + low;
                philox(target->key, (uint64_t)first / 4, (first % 4 + count + 3) / 4, random);
                for (int64_t i = 0; i < count; i++) out[low + i] = half_of(bits_of(x[low + i]), random + first % 4 + i);
            }
        else
            for (int64_t i = 0; i < n; i++) out[i] = half_of(bits_of(x[i]), NULL);
    }
    if (highest <= largest) return;
    for (int64_t i = 0; i < n; i++) {
        int infinite = target->kind == F32    ? (bits_of(x[i]) & INF) == INF
                       : target->kind == BF16 ? (((uint16_t *)target->data)[at + i] & 0x7f80u) == 0x7f80u
                                              : (((uint16_t *)target->data)[at + i] & 0x7c00u) == 0x7c00u;
        target->lost += infinite && (bits_of(base[i]) & INF) != INF;
    }
}

/* base + delta in place of delta: the base's bits where the delta is zero, one quiet NaN for every NaN. */
INLINE int64_t onto(const float *restrict base, float *restrict delta, int64_t n) {
    int64_t moved = 0;
    for (int64_t i = 0; i < n; i++) {
        float d = delta[i], sum = base[i] + d;
        uint32_t bits = sum != sum ? NAN_BITS : bits_of(sum);
        moved += d != 0;
        delta[i] = float_of(d == 0 ? bits_of(base[i]) : bits);
    }
    return moved;
}

/* Σ wᵢ·δᵢ, in order. */
INLINE void summed(const Source *sources, int count, int64_t at, int64_t n, const float *restrict base,
                   float *restrict total, float *restrict tau) {
    memset(total, 0, 4 * (size_t)n);
    for (int s = 0; s < count; s++) {
        float w = sources[s].weight;
        fetch(&sources[s], at, n, base, tau);
        if (w == 1)
            for (int64_t i = 0; i < n; i++) total[i] = total[i] + tau[i];
        else
            for (int64_t i = 0; i < n; i++) {
                float product = w * tau[i];
                total[i] = total[i] + product;
            }
    }
}

/* The base, with what is added to it, rounded. No sources: the base itself. */
FAST void pv_add(const void *base, int32_t kind, const Source *sources, int32_t count, int64_t n, Target *target) {
    float own[BLOCK], total[BLOCK], tau[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t size = n - at < BLOCK ? n - at : BLOCK;
        widen(base, kind, at, size, own);
        if (count == 0) {
            put(target, at, size, own, own);
            continue;
        }
        summed(sources, count, at, size, own, total, tau);
        target->moved += onto(own, total, size);
        put(target, at, size, own, total);
    }
}

/* Magnitudes counted by their upper 15 bits; or, of those with the upper bits `prefix`, by their lower 16. */
FAST void pv_magnitudes(const void *base, int32_t kind, const Source *source, int64_t n, int64_t prefix,
                        uint32_t *restrict counts) {
    float own[BLOCK], tau[BLOCK];
    uint32_t magnitudes[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t size = n - at < BLOCK ? n - at : BLOCK;
        if (source->whole) widen(base, kind, at, size, own);
        fetch(source, at, size, own, tau);
        for (int64_t i = 0; i < size; i++) {
            uint32_t magnitude = bits_of(tau[i]) & ABS;
            magnitudes[i] = magnitude < ANY_NAN ? magnitude : ANY_NAN;
        }
        if (prefix < 0)
            for (int64_t i = 0; i < size; i++) counts[magnitudes[i] >> 16]++;
        else
            for (int64_t i = 0; i < size; i++)
                if (magnitudes[i] >> 16 == (uint32_t)prefix) counts[magnitudes[i] & 0xffffu]++;
    }
}

/* The index after the `wanted`-th element whose magnitude is the source's threshold; if there are fewer, minus how
many there are. */
FAST int64_t pv_nth_tie(const void *base, int32_t kind, const Source *source, int64_t n, int64_t wanted) {
    float own[BLOCK], tau[BLOCK];
    int64_t found = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t size = n - at < BLOCK ? n - at : BLOCK, here = 0;
        if (source->whole) widen(base, kind, at, size, own);
        fetch(source, at, size, own, tau);
        for (int64_t i = 0; i < size; i++) {
            uint32_t magnitude = bits_of(tau[i]) & ABS;
            here += (magnitude < ANY_NAN ? magnitude : ANY_NAN) == source->threshold;
        }
        if (found + here >= wanted)
            for (int64_t i = 0; i < size; i++) {
                uint32_t magnitude = bits_of(tau[i]) & ABS;
                found += (magnitude < ANY_NAN ? magnitude : ANY_NAN) == source->threshold;
                if (found == wanted) return at + i + 1;
            }
        found += here;
    }
    return -found;
}

enum { MEAN = 0, WEIGHTED_MEAN = 1, SUM = 2 };

/* Trim, elect, merge. `how`: 1, the election is weighted; 2, a ballot of 0 elects nothing. Scratch: 2 · count · step
floats. */
FAST void pv_ties(const void *base, int32_t kind, const Source *sources, int32_t count, int64_t n, int32_t how,
                  int32_t merge, float lambda, float *scratch, int64_t step, Target *target) {
    float own[BLOCK], ballot[BLOCK], out[BLOCK], divisor[BLOCK];
    int weighted = how & 1, decided = how >> 1;
    for (int64_t at = 0; at < n; at += step) {
        int64_t size = n - at < step ? n - at : step;
        widen(base, kind, at, size, own);
        memset(ballot, 0, 4 * (size_t)size);
        memset(out, 0, 4 * (size_t)size);
        memset(divisor, 0, 4 * (size_t)size);
        for (int s = 0; s < count; s++) {
            const Source *source = &sources[s];
            float *restrict kept = scratch + 2 * s * step, *restrict share = kept + step, w = source->weight;
            uint32_t flip = source->negated ? 0x80000000u : 0, threshold = source->threshold;
            int64_t ties = source->ties_until - (target->start + at);
            fetch(source, at, size, own, kept);
            for (int64_t i = 0; i < size; i++) {
                uint32_t bits = bits_of(kept[i]), magnitude = bits & ABS;
                magnitude = magnitude < ANY_NAN ? magnitude : ANY_NAN;
                int keep = (magnitude > threshold) | ((magnitude == threshold) & (i < ties)) | (int)source->all;
                kept[i] = float_of((keep ? bits : 0) ^ flip);
            }
            for (int64_t i = 0; i < size; i++) {
                float product = w == 1 ? kept[i] : kept[i] * w;
                share[i] = product;
                ballot[i] = ballot[i] + (weighted ? product : kept[i]);
            }
        }
        for (int s = 0; s < count; s++) {
            const float *restrict kept = scratch + 2 * s * step, *restrict share = kept + step;
            const float *restrict votes = weighted ? share : kept;
            float part = merge == WEIGHTED_MEAN ? sources[s].weight : 1.0f;
            for (int64_t i = 0; i < size; i++) {
                int agrees = (ballot[i] >= 0 ? votes[i] > 0 : votes[i] < 0) & !(decided & (ballot[i] == 0));
                out[i] = out[i] + (agrees ? share[i] : 0.0f);
                divisor[i] = divisor[i] + (agrees ? part : 0.0f);
            }
        }
        if (merge != SUM)
            for (int64_t i = 0; i < size; i++) out[i] = out[i] / (divisor[i] == 0 ? 1.0f : divisor[i]);
        if (lambda != 1)
            for (int64_t i = 0; i < size; i++) out[i] = out[i] * lambda;
        target->moved += onto(own, out, size);
        put(target, at, size, own, out);
    }
}

/* The sum of a block's products in single precision over LANES lanes: an observation, not part of a build. */
INLINE double dot(const float *restrict a, const float *restrict b, int64_t n) {
    float sums[LANES] = {0};
    double total = 0;
    int64_t whole = n / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) sums[j] += a[i + j] * b[i + j];
    for (int j = 0; j < LANES; j++) total += sums[j];
    for (int64_t i = whole; i < n; i++) total += (double)a[i] * b[i];
    return total;
}

INLINE double product(const float *restrict a, const float *restrict b, int64_t n) {
    double sums[LANES] = {0}, total = 0;
    int64_t whole = n / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) sums[j] += (double)a[i + j] * b[i + j];
    for (int j = 0; j < LANES; j++) total += sums[j];
    for (int64_t i = whole; i < n; i++) total += (double)a[i] * b[i];
    return total;
}

/* Two blocks of weights: how many elements differ, the sums of the squares of b - a, a, b and of a · b; the largest
|b - a|, NaN if one is. */
typedef struct {
    int64_t changed;
    double step2, a2, b2, ab, largest;
} Apart;

FAST void pv_measure(const void *a, int32_t a_kind, const void *b, int32_t b_kind, int64_t n, Apart *apart) {
    float left[BLOCK], right[BLOCK], step[BLOCK];
    uint32_t highest = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t size = n - at < BLOCK ? n - at : BLOCK;
        widen(a, a_kind, at, size, left);
        widen(b, b_kind, at, size, right);
        int32_t changed = 0;
        for (int64_t i = 0; i < size; i++) {
            step[i] = right[i] - left[i];
            changed += step[i] != 0;
        }
        uint32_t here = highest_of(step, size);
        highest = here > highest ? here : highest;
        apart->changed += changed;
        apart->step2 += product(step, step, size);
        apart->a2 += product(left, left, size);
        apart->b2 += product(right, right, size);
        apart->ab += product(left, right, size);
    }
    apart->largest = float_of(highest);
}

/* What a step moves: how many elements, Σ step², Σ base², the largest |step|. */
typedef struct {
    int64_t changed;
    double step2, base2;
    float largest;
    int32_t undefined; /* NaN among the steps */
} Moved;

/* after minus before: each a sum of sources, either may be empty. */
FAST void pv_step(const void *base, int32_t kind, const Source *before, int32_t befores, const Source *after,
                  int32_t afters, int64_t n, Moved *moved) {
    float own[BLOCK], old[BLOCK], step[BLOCK], tau[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t size = n - at < BLOCK ? n - at : BLOCK;
        widen(base, kind, at, size, own);
        summed(after, afters, at, size, own, step, tau);
        if (befores) {
            summed(before, befores, at, size, own, old, tau);
            if (afters)
                for (int64_t i = 0; i < size; i++) step[i] = step[i] - old[i];
            else
                for (int64_t i = 0; i < size; i++) step[i] = -old[i];
        }
        uint32_t highest = highest_of(step, size);
        int32_t changed = 0;
        for (int64_t i = 0; i < size; i++) changed += step[i] != 0;
        moved->changed += changed;
        moved->step2 += product(step, step, size);
        moved->base2 += product(own, own, size);
        moved->undefined |= highest > INF;
        if (highest <= INF && float_of(highest) > moved->largest) moved->largest = float_of(highest);
    }
}

/* 64 bytes that are 0 or 1, as bits. */
INLINE uint64_t bits_of_bytes(const uint8_t *bytes) {
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t eight;
        memcpy(&eight, bytes + 8 * i, 8);
        bits |= (eight * 0x0102040810204080u >> 56) << (8 * i);
    }
    return bits;
}

/* Of every two of `count` sources, as (count, count) arrays, on and above the diagonal: dot products, how many elements
both move, and how many of those to the same side. Scratch: count · BLOCK floats. */
FAST void pv_pairs(const void *base, int32_t kind, const Source *sources, int32_t count, int64_t n, double *dots,
                   int64_t *overlap, int64_t *agree, float *scratch, uint64_t *signs) {
    float own[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t size = n - at < BLOCK ? n - at : BLOCK, words = (size + 63) / 64;
        widen(base, kind, at, size, own);
        for (int s = 0; s < count; s++) {
            float *restrict tau = scratch + (int64_t)s * BLOCK;
            uint64_t *up = signs + (int64_t)s * 2 * (BLOCK / 64), *down = up + BLOCK / 64;
            fetch(&sources[s], at, size, own, tau);
            uint8_t raised[BLOCK] = {0}, lowered[BLOCK] = {0};
            for (int64_t i = 0; i < size; i++) raised[i] = tau[i] > 0;
            for (int64_t i = 0; i < size; i++) lowered[i] = tau[i] < 0;
            for (int64_t w = 0; w < words; w++) {
                up[w] = bits_of_bytes(raised + 64 * w);
                down[w] = bits_of_bytes(lowered + 64 * w);
            }
        }
        for (int a = 0; a < count; a++)
            for (int b = a; b < count; b++) {
                const float *left = scratch + (int64_t)a * BLOCK, *right = scratch + (int64_t)b * BLOCK;
                dots[a * count + b] += a == b ? product(left, left, size) : dot(left, right, size);
                const uint64_t *ua = signs + (int64_t)a * 2 * (BLOCK / 64), *da = ua + BLOCK / 64;
                const uint64_t *ub = signs + (int64_t)b * 2 * (BLOCK / 64), *db = ub + BLOCK / 64;
                for (int64_t w = 0; w < words; w++) {
                    overlap[a * count + b] += __builtin_popcountll((ua[w] | da[w]) & (ub[w] | db[w]));
                    agree[a * count + b] += __builtin_popcountll((ua[w] & ub[w]) | (da[w] & db[w]));
                }
            }
    }
}

const char *pv_source(void) { return PV_SOURCE; }
