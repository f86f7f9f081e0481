// Matrix products: the kernel over one block of rows and one panel of weights, and the loop over blocks and panels.
// Included after operand.h. ROWS and VECTORS choose the register block: ROWS * VECTORS sums stay in registers.
#pragma once

#include "kernels.h"

namespace {

constexpr int64_t COLUMNS = VECTORS * LANES;

INLINE int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

#ifdef TILES
}  // namespace
#include "tiles.h"
namespace {
#else

// Words of the inputs that one step reads: packing rounds up to them.
constexpr int64_t DEPTH = 1;
// Rows that are loaded at once.
constexpr int64_t GRAIN = 1;

// sums[R][COLUMNS] = a[R][words] x panel[words][COLUMNS]
template <class T, int R>
void block(int64_t words, const uint32_t *a, int64_t a_stride, const uint32_t *panel, float *sums, int64_t stride) {
  Vector total[R][VECTORS];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < VECTORS; v++) total[r][v] = Vector{};
  for (int64_t w = 0; w < words; w++) {
    UNROLL for (int r = 0; r < R; r++) {
      uint32_t x = a[r * a_stride + w];
      UNROLL for (int v = 0; v < VECTORS; v++) total[r][v] = T::multiply_add(total[r][v], x, panel + v * LANES);
    }
    panel += COLUMNS;
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < VECTORS; v++)
    store(sums + r * stride + v * LANES, total[r][v]);
}

// The same for any number of rows up to ROWS. Strides are in words.
template <class T>
INLINE void rows_block(int64_t rows, int64_t words, const uint32_t *a, int64_t a_stride, const uint32_t *panel,
                       float *sums, int64_t stride) {
#define CASE(R) \
  case R: if constexpr (R <= ROWS) block<T, (R <= ROWS ? R : 1)>(words, a, a_stride, panel, sums, stride); break;
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13)
    CASE(14)
  }
#undef CASE
}

#endif  // TILES

template <class T> INLINE int64_t words_of(int64_t numbers) {
  return up((numbers + T::PER_WORD - 1) / T::PER_WORD, DEPTH);
}

// Bias, activation and conversion of a block of sums: work that hides behind the next block's multiplications.
template <class T>
INLINE void finish(const Product *p, const float *sums, int64_t row, int64_t rows, int64_t panel) {
  const float *bias = p->bias + panel * COLUMNS;
  for (int64_t r = 0; r < rows; r++) {
    const float *from = sums + r * COLUMNS;
    if (p->epilogue == ADD) {
      float *x = p->x + (row + r) * p->x_stride + panel * COLUMNS;
      UNROLL for (int v = 0; v < VECTORS; v++)
        store(x + v * LANES, load(x + v * LANES) + (load(from + v * LANES) + load(bias + v * LANES)));
    } else if (p->epilogue == GATE) {
      // Panels alternate LANES activated columns with LANES of their gates.
      typename T::Number *out = (typename T::Number *)p->out + (row + r) * p->out_stride + panel * (COLUMNS / 2);
      UNROLL for (int v = 0; v < VECTORS; v += 2) {
        Vector inner = activate(load(from + v * LANES) + load(bias + v * LANES), p->activation);
        T::put(out + v / 2 * LANES, inner * (load(from + (v + 1) * LANES) + load(bias + (v + 1) * LANES)));
      }
    } else {
      typename T::Number *out = (typename T::Number *)p->out + (row + r) * p->out_stride + panel * COLUMNS;
      UNROLL for (int v = 0; v < VECTORS; v++) {
        Vector x = load(from + v * LANES) + load(bias + v * LANES);
        T::put(out + v * LANES, p->activation < 0 ? x : activate(x, p->activation));
      }
    }
  }
}

template <class T> void product(const Product *p) {
  alignas(64) float sums[ROWS * COLUMNS];
  int64_t words = words_of<T>(p->k);
  int64_t stride = p->a_stride / T::PER_WORD;
  int64_t panels = (p->n + COLUMNS - 1) / COLUMNS;
  for (int64_t panel = 0; panel < panels; panel++) {
    const uint32_t *weights = p->panels + panel * words * COLUMNS;
    for (int64_t row = 0; row < p->m; row += ROWS) {
      int64_t rows = p->m - row < ROWS ? p->m - row : ROWS;
      rows_block<T>(rows, words, (const uint32_t *)p->a + row * stride, stride, weights, sums, COLUMNS);
      finish<T>(p, sums, row, rows, panel);
    }
  }
}

}  // namespace
