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
  for (int64_t first = 0; first < p->tokens; first += COLUMNS) {
    const uint32_t *panel = p->panels + first * p->width;
    Vector most[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) most[v] = splat(-3e38f);
    for (int64_t row = 0; row < p->n; row += ROWS) {
      int64_t rows = p->n - row < ROWS ? p->n - row : ROWS;
      rows_block<T>(rows, p->width, vectors + row * p->width, p->width, panel, sums, COLUMNS);
      for (int64_t r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < VECTORS; v++)
          most[v] = larger(most[v], load(sums + r * COLUMNS + v * LANES));
    }
    UNROLL for (int v = 0; v < VECTORS; v++) store(sums + v * LANES, most[v]);
    int64_t count = p->tokens - first < COLUMNS ? p->tokens - first : COLUMNS;
    for (int64_t i = 0; i < count; i++) total += sums[i];
  }
  return total;
}

// Vectors are float32, so only tiers of float32 have the function.
template <class T> float (*maxsim_or_none())(const MaxSim *) {
  if constexpr (T::PER_WORD == 1) return maxsim<T>;
  else return nullptr;
}

}  // namespace
