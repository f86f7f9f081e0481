// AMX: the loop over blocks and panels. Included by product.h instead of its own loop.
//
// Three things go on at once. The tiles multiply one block. The vector units finish the block before it, some rows
// after any two multiplications, and begin late: its sums are still being stored. And the next panel comes nearer.
// Where a block ends and the next begins, each tile is stored, emptied and used again in turn, and the next block's
// rows are there already. 32 rows and columns of 384 inputs take 320 ns in the first-level cache without all that (an
// Intel Xeon with AMX, random numbers); with GELU after it 740 ns, and 520 to 590 this way.
#pragma once

#include "kernels.h"

namespace {

struct Block {
  int64_t row = 0, rows = 0, panel = 0;
};

template <class T, int epilogue, int activation> class TileProduct {
 public:
  explicit TileProduct(const Product *p)
      : p_(p), words_(words_of<T>(p->k)), stride_(p->a_stride / T::PER_WORD), blocks_((p->m + ROWS - 1) / ROWS) {
    const int64_t turns = 2 * words_ / DEPTH;
    share_ = (ROWS + turns - 1) / turns;
    lines_ = (words_ * COLUMNS / 16 + blocks_ * turns - 1) / (blocks_ * turns);
  }

  void run() {
    const int64_t panels = (p_->n + COLUMNS - 1) / COLUMNS;
    for (int64_t panel = 0; panel < panels; panel++) {
      next_ = (const char *)(panel_of(panel + 1));
      for (int64_t row = 0; row < p_->m; row += ROWS) {
        const Block block{row, p_->m - row < ROWS ? p_->m - row : ROWS, panel};
        if (block.rows <= 16) multiply<false, false>(block);
        else if (blocks_ == 1) multiply<true, false>(block);
        else multiply<true, true>(block);
        finish_to(waits_.rows);
        waits_ = block;
        done_ = 0;
      }
    }
    store0();
    store1();
    store2();
    store3();
    finish_to(waits_.rows);
  }

 private:
  const uint32_t *panel_of(int64_t panel) const { return p_->panels + panel * words_ * COLUMNS; }

  // What a tile holds of the block before. Tiles are named by literals: their numbers are part of the instructions.
  INLINE void store0() { _tile_stored(0, sums_, COLUMNS * 4); }
  INLINE void store1() { _tile_stored(1, sums_ + 16, COLUMNS * 4); }
  INLINE void store2() { _tile_stored(2, sums_ + 16 * COLUMNS, COLUMNS * 4); }
  INLINE void store3() { _tile_stored(3, sums_ + 16 * COLUMNS + 16, COLUMNS * 4); }

  INLINE void finish_to(int64_t end) {
    finish<T, epilogue, activation>(p_, sums_ + done_ * COLUMNS, waits_.row + done_, end - done_, waits_.panel);
    done_ = end;
  }

  INLINE void meanwhile(int64_t turn) {
    for (int64_t line = 0; line < lines_; line++, next_ += 64) _mm_prefetch(next_, _MM_HINT_T1);
    if (turn >= 4) finish_to(done_ + share_ < waits_.rows ? done_ + share_ : waits_.rows);
  }

  template <bool both, bool once> void multiply(const Block &block) {
    const uint32_t *a = (const uint32_t *)p_->a + block.row * stride_, *panel = panel_of(block.panel);
    settle(a);
    settle(panel);
    load_step<both, once>(a, stride_, panel);
    store0();
    _tile_zero(0);
    _tile_dpbf16ps(0, 4, 6);
    store1();
    _tile_zero(1);
    _tile_dpbf16ps(1, 4, 7);
    store2();
    if (both) {
      _tile_zero(2);
      _tile_dpbf16ps(2, 5, 6);
    }
    store3();
    if (both) {
      _tile_zero(3);
      _tile_dpbf16ps(3, 5, 7);
    }
    int64_t turn = 2;
    for (int64_t w = DEPTH; w < words_; w += DEPTH) {
      load_step<both, once>(a + w, stride_, panel + w * COLUMNS);
      meanwhile(turn++);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      meanwhile(turn++);
      if (both) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }

  const Product *const p_;
  const int64_t words_, stride_, blocks_;
  int64_t share_;  // rows to finish in a turn
  int64_t lines_;  // cache lines of the next panel to bring nearer in a turn
  const char *next_ = nullptr;
  alignas(64) float sums_[ROWS * COLUMNS];  // of the block that waits to be finished
  Block waits_;
  int64_t done_ = 0;  // rows of it
};

template <class T, int epilogue, int activation> void product_as(const Product *p) {
  TileProduct<T, epilogue, activation>(p).run();
}

}  // namespace
