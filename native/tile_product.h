// AMX: the loop over blocks and panels. Included by product.h instead of its own loop.
//
// Three things go on at once. The tiles multiply one block. The vector units finish the block before it, two rows after
// any two multiplications, and begin late: its sums are still being stored. And the weights of the next panel come
// nearer. Where a block ends and the next begins, each tile is stored, emptied and used again in turn, and the next
// block's rows are there already.
#pragma once

#include "kernels.h"

namespace {

// Turns until the sums of a block can be read: its last multiplications must end, and its tiles be stored.
constexpr int64_t WAIT = 8;

template <class T, int epilogue, int activation> class TileProduct {
 public:
  explicit TileProduct(const Product *p)
      : p_(p), words_(words_of<T>(p->k)), stride_(p->a_stride / T::PER_WORD), blocks_((p->m + ROWS - 1) / ROWS),
        bytes_(target_bytes<T, epilogue>(p)), turns_(2 * words_ / DEPTH), begin_(turns_ >= 3 * WAIT ? WAIT : turns_ / 3),
        share_((ROWS / 2 + turns_ - begin_ - 1) / (turns_ - begin_)) {}

  void run() {
    for (int64_t column = 0; column < p_->n; column += COLUMNS) {
      const uint32_t *panel = p_->panels + column * words_;
      next_ = (const char *)(column + COLUMNS < p_->n ? panel + COLUMNS * words_ : p_->next);
      lines_ = next_ ? (words_ * VECTORS + blocks_ * turns_ - 1) / (blocks_ * turns_) : 0;
      for (int64_t row = 0; row < p_->m; row += ROWS) {
        const int64_t rows = p_->m - row < ROWS ? p_->m - row : ROWS;
        const uint32_t *a = (const uint32_t *)p_->a + row * stride_;
        target_ = target<T, epilogue>(p_, row, column);
        target_end_ = target_ + rows * bytes_;
        if (rows <= 16) multiply<false, false>(a, panel);
        else if (blocks_ == 1) multiply<true, false>(a, panel);
        else multiply<true, true>(a, panel);
        finish_rest();
        waits_ = {sums_, p_->bias + column, target_, rows};
      }
    }
    store0();
    store1();
    store2();
    store3();
    finish_rest();
  }

 private:
  // The rows of a block that wait to be finished.
  struct Waiting {
    const float *sums = nullptr, *bias = nullptr;
    char *target = nullptr;
    int64_t rows = 0;
  };

  // What a tile holds of the block before. Tiles are named by literals: their numbers are part of the instructions.
  INLINE void store0() { _tile_stored(0, sums_, COLUMNS * 4); }
  INLINE void store1() { _tile_stored(1, sums_ + SIDE, COLUMNS * 4); }
  INLINE void store2() { _tile_stored(2, sums_ + 16 * COLUMNS, COLUMNS * 4); }
  INLINE void store3() { _tile_stored(3, sums_ + 16 * COLUMNS + SIDE, COLUMNS * 4); }

  template <int R> INLINE void finish(Waiting &w) const {
    finish_rows<T, epilogue, activation, VECTORS, R>(p_->activation, w.sums, w.bias, w.target, bytes_);
    w.sums += R * COLUMNS;
    w.target += R * bytes_;
    w.rows -= R;
  }

  INLINE void finish_rest() {
    while (waits_.rows > 1) finish<2>(waits_);
    if (waits_.rows) finish<1>(waits_);
  }

  template <bool both, bool once> void multiply(const uint32_t *a, const uint32_t *left) {
    settle(a);
    settle(left);
    const uint32_t *right = left + SIDE * words_;
    load_step<both, once>(a, stride_, left, right, 64);
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
    // In registers while the loop runs: members would be read and written at each turn.
    Waiting waits = waits_;
    const char *next = next_;
    char *target = target_;
    const char *const target_end = target_end_;
    const int64_t lines = lines_, share = share_, bytes = bytes_;
    int64_t wait = begin_ - 2;
    const auto meanwhile = [&]() __attribute__((always_inline)) {
      for (int64_t line = 0; line < lines; line++, next += 64) _mm_prefetch(next, _MM_HINT_T1);
      // What this block will be added to, a row in a turn: 3 % of a whole pass. Where results only go, it gains nothing.
      if (epilogue == ADD && target < target_end) {
        for (int64_t i = 0; i < COLUMNS * 4; i += 64) __builtin_prefetch(target + i, 1);
        target += bytes;
      }
      if (--wait >= 0) return;
      for (int64_t pair = 0; pair < share && waits.rows > 1; pair++) finish<2>(waits);
    };
    for (const uint32_t *end = a + words_; (a += DEPTH) < end;) {
      left += DEPTH * SIDE;
      right += DEPTH * SIDE;
      load_step<both, once>(a, stride_, left, right, 64);
      meanwhile();
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      meanwhile();
      if (both) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    waits_ = waits;
    next_ = next;
  }

  const Product *const p_;
  const int64_t words_, stride_, blocks_, bytes_;
  const int64_t turns_, begin_;  // of a block's multiplications: all, and those before rows are finished
  const int64_t share_;          // pairs of rows to finish in a turn
  int64_t lines_ = 0;            // cache lines of the next panel to bring nearer in a turn
  const char *next_ = nullptr;
  char *target_ = nullptr;  // of the block that is multiplied
  const char *target_end_ = nullptr;
  alignas(64) float sums_[ROWS * COLUMNS];
  Waiting waits_;
};

template <class T, int epilogue, int activation> void product_as(const Product *p) {
  TileProduct<T, epilogue, activation>(p).run();
}

}  // namespace
