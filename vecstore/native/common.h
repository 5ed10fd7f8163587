/* What every file of kernels begins with. */
#pragma once

#include <stdint.h>

/* The same loops for newer processors, chosen when the library is loaded. No result depends on it. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif
#define INLINE static inline __attribute__((always_inline))
