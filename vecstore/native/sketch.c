/* The sketch of a gradient matrix and the squared length of each of its channels, in one pass over it.

What it computes is defined by sketch.py of vecstore/train, bit for bit: a channel's k entries, each with its sign, are
added into `lanes` sums (entry i into sum i mod lanes), in the order of i; then the sums into `rank` of them (sum l into
l mod rank), in the order of l. Squares take the same lanes, and are then halved until one is left. */

#include <stdint.h>
#include <string.h>

#include "common.h"

#define COLUMNS 256 /* of a wide matrix at a time: their sums stay in the second-level cache */

#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(64), aligned(4)));
#define AT_ONCE 16
#endif

/* One channel into all its lanes. Those that fill whole vectors stay in registers. */
FAST static void add_row(
    const float *restrict g, const float *restrict signs, int64_t k, int64_t lanes, float *restrict sums,
    float *restrict squares
) {
    int64_t l = 0;
#ifdef AT_ONCE
    for (; l + AT_ONCE <= lanes; l += AT_ONCE) {
        Lanes sum = {0}, square = {0};
        int64_t i = l;
        for (; i + AT_ONCE <= k; i += lanes) {
            Lanes x = *(const Lanes *)(g + i), s = *(const Lanes *)(signs + i);
            sum += x * s;
            square += x * x;
        }
        *(Lanes *)(sums + l) = sum;
        *(Lanes *)(squares + l) = square;
        for (int64_t j = i; j < k && j < i + AT_ONCE; j++) {
            sums[l + j - i] += g[j] * signs[j];
            squares[l + j - i] += g[j] * g[j];
        }
    }
#endif
    for (; l < lanes; l++) {
        float sum = 0, square = 0;
        for (int64_t i = l; i < k; i += lanes) {
            sum += g[i] * signs[i];
            square += g[i] * g[i];
        }
        sums[l] = sum;
        squares[l] = square;
    }
}

/* Lane l of a few columns: rows l, l + lanes, ... of them. */
FAST static void add_lane(
    const float *restrict g, int64_t stride, const float *restrict signs, int64_t l, int64_t k, int64_t lanes,
    int64_t count, float *restrict sums, float *restrict squares
) {
    int64_t j = 0;
#ifdef AT_ONCE
    for (; j + 2 * AT_ONCE <= count; j += 2 * AT_ONCE) {
        Lanes sum = {0}, square = {0}, sum2 = {0}, square2 = {0};
        for (int64_t i = l; i < k; i += lanes) {
            Lanes x = *(const Lanes *)(g + i * stride + j), y = *(const Lanes *)(g + i * stride + j + AT_ONCE);
            sum += x * signs[i];
            square += x * x;
            sum2 += y * signs[i];
            square2 += y * y;
        }
        *(Lanes *)(sums + j) = sum;
        *(Lanes *)(squares + j) = square;
        *(Lanes *)(sums + j + AT_ONCE) = sum2;
        *(Lanes *)(squares + j + AT_ONCE) = square2;
    }
#endif
    for (; j < count; j++) {
        float sum = 0, square = 0;
        for (int64_t i = l; i < k; i += lanes) {
            float x = g[i * stride + j];
            sum += x * signs[i];
            square += x * x;
        }
        sums[j] = sum;
        squares[j] = square;
    }
}

FAST static void add_to(float *restrict to, const float *restrict from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

/* (channels, k): `out` is (channels, rank), `scratch` 2 * lanes. */
void pv_sketch_rows(
    const float *g, int64_t channels, int64_t k, int64_t stride, const float *signs, int64_t rank, int64_t lanes,
    float *out, float *lengths, float *scratch
) {
    float *sums = scratch, *squares = scratch + lanes;
    for (int64_t c = 0; c < channels; c++, g += stride, out += rank) {
        add_row(g, signs, k, lanes, sums, squares);
        for (int64_t l = rank; l < lanes; l += rank) add_to(sums, sums + l, rank);
        memcpy(out, sums, (size_t)rank * sizeof(float));
        for (int64_t left = lanes; left > 1; left -= left / 2)
            add_to(squares, squares + (left - left / 2), left / 2);
        lengths[c] = squares[0];
    }
}

/* (k, channels): `out` is (rank, channels), `scratch` 2 * lanes * COLUMNS + 48: 4096 bytes apart would slow it down. */
void pv_sketch_columns(
    const float *g, int64_t k, int64_t channels, int64_t stride, const float *signs, int64_t rank, int64_t lanes,
    float *out, float *lengths, float *scratch
) {
    float *sums = scratch, *squares = scratch + lanes * COLUMNS + 48;
    for (int64_t at = 0; at < channels; at += COLUMNS) {
        int64_t count = channels - at < COLUMNS ? channels - at : COLUMNS;
        for (int64_t l = 0; l < lanes; l++)
            add_lane(g + at, stride, signs, l, k, lanes, count, sums + l * COLUMNS, squares + l * COLUMNS);
        for (int64_t l = rank; l < lanes; l++)
            add_to(sums + (l % rank) * COLUMNS, sums + l * COLUMNS, count);
        for (int64_t l = 0; l < rank; l++)
            memcpy(out + l * channels + at, sums + l * COLUMNS, (size_t)count * sizeof(float));
        for (int64_t left = lanes; left > 1; left -= left / 2)
            for (int64_t l = 0; l < left / 2; l++)
                add_to(squares + l * COLUMNS, squares + (left - left / 2 + l) * COLUMNS, count);
        memcpy(lengths + at, squares, (size_t)count * sizeof(float));
    }
}
