// Late interaction (Khattab and Zaharia 2020, "ColBERT"): the query's vectors are packed as if they were weights, so that
// the products of all its tokens with a document's run on the kernels of product.h, and only their maxima are kept.
// Included after product.h.
#pragma once

#include "kernels.h"

namespace {

template <class T> float maxsim(const MaxSim *p) {
  alignas(64) float sums[ROWS * COLUMNS];
  const uint32_t *vectors = (const uint32_t *)p->vectors;
  float total = 0;
  // 0 as long as all products are finite, then NaN: a comparison passes over NaN, and infinity would outdo all others.
  Vector spoilt = splat(0);
  for (int64_t first = 0; first < p->tokens; first += COLUMNS) {
    const uint32_t *panel = p->panels + first * p->width;
    Vector most[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) most[v] = splat(-3e38f);
    for (int64_t row = 0; row < p->n; row += ROWS) {
      int64_t rows = p->n - row < ROWS ? p->n - row : ROWS;
      rows_block<T>(rows, p->width, vectors + row * p->width, p->width, panel, sums, COLUMNS);
      for (int64_t r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < VECTORS; v++) {
          Vector products = load(sums + r * COLUMNS + v * LANES);
          most[v] = larger(most[v], products);
          spoilt += products * 0.0f;
        }
    }
    UNROLL for (int v = 0; v < VECTORS; v++) store(sums + v * LANES, most[v]);
    int64_t count = p->tokens - first < COLUMNS ? p->tokens - first : COLUMNS;
    for (int64_t i = 0; i < count; i++) total += sums[i];
  }
  return total + sum(spoilt);
}

typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

// Exact: the bits of a float16 stand at the place of float32's, with an exponent that is too small by 112.
INLINE Vector widened(Halves halves) {
  Integers bits = __builtin_convertvector(halves, Integers);
  Integers found = (bits & 0x7FFF) << 13;
  Vector value;
  memcpy(&value, &found, sizeof value);
  value = value * 5.192296858534828e33f;  // 2^112
  memcpy(&found, &value, sizeof value);
  found |= ((bits & 0x7C00) == 0x7C00) & 0x7F800000;  // infinity and NaN
  found |= (bits & 0x8000) << 16;
  memcpy(&value, &found, sizeof value);
  return value;
}

// NumPy takes several times as long as all of MaxSim for it (LOG.md).
void widen(const uint16_t *in, float *out, int64_t n) {
  int64_t whole = n / LANES * LANES;
  Halves halves{};
  for (int64_t i = 0; i < whole; i += LANES) {
    memcpy(&halves, in + i, sizeof halves);
    store(out + i, widened(halves));
  }
  if (whole < n) {
    memcpy(&halves, in + whole, (n - whole) * 2);
    Vector rest = widened(halves);
    memcpy(out + whole, &rest, (n - whole) * 4);
  }
}

// Vectors are float32, so only tiers of float32 have the function.
template <class T> float (*maxsim_or_none())(const MaxSim *) {
  if constexpr (T::PER_WORD == 1) return maxsim<T>;
  else return nullptr;
}

}  // namespace
