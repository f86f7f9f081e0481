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
// Columns of a panel that lie side by side.
constexpr int64_t SIDE = COLUMNS;
// Words of a cache line.
constexpr int64_t LINE = 16;

// sums[R][COLUMNS] = a[R][words] x panel[words][COLUMNS]
template <class T, int R>
void block(int64_t words, const uint32_t *a, int64_t a_stride, const uint32_t *panel, float *sums, int64_t stride) {
  typename T::Total total[R][VECTORS];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < VECTORS; v++) total[r][v] = typename T::Total{};
  for (int64_t w = 0; w < words; w++) {
    UNROLL for (int r = 0; r < R; r++) {
      uint32_t x = a[r * a_stride + w];
      UNROLL for (int v = 0; v < VECTORS; v++) total[r][v] = T::multiply_add(total[r][v], x, panel + v * LANES);
    }
    panel += COLUMNS;
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < VECTORS; v++)
    store(sums + r * stride + v * LANES, T::floats(total[r][v]));
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

// An activation that is not known when the product is compiled.
constexpr int ANY = -2;

// Where the result of a row goes, from output `column` on, and bytes from there to the next row's.
template <class T, int epilogue> INLINE char *target(const Product *p, int64_t row, int64_t column) {
  if (epilogue == ADD) return (char *)(p->x + row * p->x_stride + column);
  return (char *)((typename T::Number *)p->out + row * p->out_stride + (epilogue == GATE ? column / 2 : column));
}
template <class T, int epilogue> INLINE int64_t target_bytes(const Product *p) {
  return epilogue == ADD ? p->x_stride * 4 : p->out_stride * (int64_t)sizeof(typename T::Number);
}

// Bias, activation and conversion of R rows of a block of sums, V vectors each.
template <class T, int epilogue, int activation, int V, int R>
INLINE void finish_rows(int kind, const float *sums, const float *bias, char *target, int64_t bytes) {
  // Panels of GATE alternate LANES activated columns with LANES of their gates.
  constexpr int step = epilogue == GATE ? 2 : 1;
  Vector x[R * V / step];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v += step)
    x[(r * V + v) / step] = load(sums + (r * V + v) * LANES) + load(bias + v * LANES);
  if (epilogue != ADD) activate<T>(x, activation == ANY ? kind : activation);
  UNROLL for (int r = 0; r < R; r++, target += bytes) {
    if (epilogue == ADD) {
      float *to = (float *)target;
      UNROLL for (int v = 0; v < V; v++) store(to + v * LANES, load(to + v * LANES) + x[r * V + v]);
    } else if (epilogue == GATE) {
      typename T::Number *out = (typename T::Number *)target;
      UNROLL for (int v = 0; v < V; v += 2) {
        Vector gate = load(sums + (r * V + v + 1) * LANES) + load(bias + (v + 1) * LANES);
        T::put(out + v / 2 * LANES, x[(r * V + v) / 2] * gate);
      }
    } else {
      typename T::Number *out = (typename T::Number *)target;
      UNROLL for (int v = 0; v < V / 2 * 2; v += 2) T::put2(out + v * LANES, x[r * V + v], x[r * V + v + 1]);
      if (V % 2) T::put(out + (V - 1) * LANES, x[(r + 1) * V - 1]);
    }
  }
}

#ifdef TILES
}  // namespace
#include "tile_product.h"
namespace {
#else

// Sums of products of integers become what they stand for.
INLINE void in_steps(int64_t rows, float *sums, const float *of_rows, const float *of_columns) {
  for (int64_t r = 0; r < rows; r++, sums += COLUMNS)
    UNROLL for (int v = 0; v < VECTORS; v++)
      store(sums + v * LANES, load(sums + v * LANES) * (of_rows[r] * load(of_columns + v * LANES)));
}

template <class T, int epilogue, int activation> void product_as(const Product *p) {
  alignas(64) float sums[ROWS * COLUMNS];
  int64_t words = words_of<T>(p->k);
  const Operands a = T::operands(p);
  int64_t panels = (p->n + COLUMNS - 1) / COLUMNS, bytes = target_bytes<T, epilogue>(p);
  const int64_t size = words * COLUMNS, share = up(size / (p->m / ROWS + 1) + 1, LINE);
  for (int64_t panel = 0; panel < panels; panel++) {
    const uint32_t *weights = p->panels + panel * size;
    const uint32_t *next = panel + 1 < panels ? weights + size : (const uint32_t *)p->next;
    const uint32_t *end = next ? next + size : next;
    for (int64_t row = 0; row < p->m; row += ROWS) {
      int64_t rows = p->m - row < ROWS ? p->m - row : ROWS;
      // The next panel comes from the third-level cache while the blocks of this one are computed, a share with each: a
      // whole model takes 4 to 9 % less time in float32.
      for (int64_t i = 0; i < share && next < end; i += LINE, next += LINE) __builtin_prefetch(next, 0, 2);
      rows_block<T>(rows, words, a.at + row * a.stride, a.stride, weights, sums, COLUMNS);
      if (a.steps) in_steps(rows, sums, a.steps + row, p->steps + panel * COLUMNS);
      const float *bias = p->bias + panel * COLUMNS;
      char *to = target<T, epilogue>(p, row, panel * COLUMNS);
      int64_t r = 0;
      for (; r + 2 <= rows; r += 2, to += 2 * bytes)
        finish_rows<T, epilogue, activation, VECTORS, 2>(p->activation, sums + r * COLUMNS, bias, to, bytes);
      if (r < rows) finish_rows<T, epilogue, activation, VECTORS, 1>(p->activation, sums + r * COLUMNS, bias, to, bytes);
    }
  }
}

#endif  // TILES

template <class T> void product(const Product *p) {
  if (p->epilogue == ADD) product_as<T, ADD, -1>(p);
  else if (p->epilogue == GATE && p->activation == 0) product_as<T, GATE, 0>(p);
  else if (p->epilogue == GATE) product_as<T, GATE, ANY>(p);
  else if (p->activation == -1) product_as<T, STORE, -1>(p);
  else if (p->activation == 0) product_as<T, STORE, 0>(p);
  else product_as<T, STORE, ANY>(p);
}

}  // namespace
