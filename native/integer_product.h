// Operands that become integers when a product begins: everything else of the tier is float32. Included after operand.h.
#pragma once

#include <immintrin.h>

#include "integer_rows.h"

namespace {

struct Int16 : Float32 {
  typedef Integers Total;
  enum { PER_WORD = 2 };

  // Rows are rounded once and read by every panel: 2 % of a product's instructions.
  static Operands operands(const Product *p) {
    const int64_t stride = stride_of(p->k);
    float *steps = (float *)p->scratch;
    char *rows = (char *)p->scratch + steps_bytes(p->m);
    if (!p->again)
      for (int64_t r = 0; r < p->m; r++)
        steps[r] = round_row((const float *)p->a + r * p->a_stride, p->k, (int16_t *)(rows + r * stride * 4));
    return {(const uint32_t *)rows, stride, steps};
  }
  static int64_t bytes(int64_t m, int64_t k) { return steps_bytes(m) + m * stride_of(k) * 4; }

  static INLINE Vector floats(Integers total) { return __builtin_convertvector(total, Vector); }
  static INLINE Integers multiply_add(Integers sum, uint32_t a, const uint32_t *b) {
    const __m256i x = _mm256_set1_epi32((int)a), panel = _mm256_loadu_si256((const __m256i *)b);
#ifdef __AVXVNNI__
    return (Integers)_mm256_dpwssd_avx_epi32((__m256i)sum, x, panel);
#else
    // Not +, which may do anything where a row that is not finite overflows.
    return (Integers)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16(x, panel));
#endif
  }

 private:
  // Words of a row: whole vectors, and rows that begin 1 KB apart are moved by a cache line (see engine.cpp).
  static int64_t stride_of(int64_t k) {
    const int64_t words = (k + 15) / 16 * 8;
    return words % 256 ? words : words + 16;
  }

  // Integers of a row, zeros to the end of the last vector; the step they are multiples of.
  static float round_row(const float *from, int64_t k, int16_t *to) {
    Extent extent;
    const int64_t whole = k / 16 * 16;
    alignas(32) float rest[16] = {};
    memcpy(rest, from + whole, (k - whole) * 4);
    for (int64_t i = 0; i < whole; i += LANES) extent.look(load(from + i));
    extent.look(load(rest)), extent.look(load(rest + LANES));
    const float step = step_of(largest(extent.most), sum(extent.squares), k), inverse = inverse_of(step);
    const auto put = [&](int64_t i, const float *x) __attribute__((always_inline)) {
      const __m256i low = _mm256_cvtps_epi32((__m256)(load(x) * inverse));
      const __m256i high = _mm256_cvtps_epi32((__m256)(load(x + LANES) * inverse));
      const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
      memcpy(to + i, &both, sizeof both);
    };
    for (int64_t i = 0; i < whole; i += 16) put(i, from + i);
    if (whole < k) put(whole, rest);
    return step;
  }
};

}  // namespace
