// AMX: a block of 32 rows and 32 columns in four tile registers. Included by product.h instead of its own block.
//
// A tile holds 16 rows of 64 bytes. Rows of A are 32 bfloat16 of the inputs; rows of B are 16 columns of one word. Tiles
// 0-3 are sums, 4-5 rows, 6-7 columns: each load serves two multiplications. Weights are packed tile by tile, so that a
// step's are 1 KB without a gap (2 % faster than panels of 32 columns, as attention has them).
//
// Six tiles of sums, for 48 columns, read rows from the second-level cache a third less often, and their multiplications
// alone are 3 % faster. But 36 KB of columns leave no room in the first-level cache for sums and results: with these, 5 %
// slower.
#pragma once

#include "tile_registers.h"

namespace {

constexpr int64_t DEPTH = 16, GRAIN = 16, SIDE = 16;

// Tiles 4-7 with one step of rows and columns. `once`: the rows will not be needed again soon, so they are read past
// the first-level cache, which the panel then keeps (a sixth faster).
template <bool both, bool once>
INLINE void load_step(const uint32_t *a, int64_t a_stride, const uint32_t *left, const uint32_t *right, int64_t bytes) {
  if (once) _tile_stream_loadd(4, a, a_stride * 4);
  else _tile_loadd(4, a, a_stride * 4);
  _tile_loadd(6, left, bytes);
  _tile_loadd(7, right, bytes);
  if (!both) return;
  if (once) _tile_stream_loadd(5, a + 16 * a_stride, a_stride * 4);
  else _tile_loadd(5, a + 16 * a_stride, a_stride * 4);
}

template <bool both>
void tile_block(int64_t words, const uint32_t *a, int64_t a_stride, const uint32_t *panel, float *sums,
                int64_t stride) {
  settle(a);
  settle(panel);
  _tile_zero(0);
  _tile_zero(1);
  if (both) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t w = 0; w < words; w += DEPTH) {
    load_step<both, false>(a + w, a_stride, panel + w * COLUMNS, panel + w * COLUMNS + 16, COLUMNS * 4);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (both) {
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, stride * 4);
  _tile_stored(1, sums + 16, stride * 4);
  if (both) {
    _tile_stored(2, sums + 16 * stride, stride * 4);
    _tile_stored(3, sums + 16 * stride + 16, stride * 4);
  }
}

// Rows past `rows` are computed from whatever follows them; every buffer has that much to spare (SPARE in pass.cpp),
// and no row of a product depends on another.
template <class T>
INLINE void rows_block(int64_t rows, int64_t words, const uint32_t *a, int64_t a_stride, const uint32_t *panel,
                       float *sums, int64_t stride) {
  if (rows > 16) tile_block<true>(words, a, a_stride, panel, sums, stride);
  else tile_block<false>(words, a, a_stride, panel, sums, stride);
}

}  // namespace
