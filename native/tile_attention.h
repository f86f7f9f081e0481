// AMX: attention over a whole sequence on tiles. Included after attention.h.
//
// A pair of 16 queries and 32 keys at a time, in three stages that go on at once, each a pair behind the one before it:
// tiles multiply queries and keys; vectors make shares of what they stored; tiles add what the shares bring of the
// values. So neither waits for the other, and scores and shares are never further than the first-level cache. Keys lie
// in the order in which the shares are narrowed.
//
// What softmax subtracts from a row's scores is the largest of them, so that nothing overflows; any number near it would
// do as well, and scores are near 0. So nothing is subtracted. The sums of the rows, which the tiles add, say whether
// that went well, and where it did not a row is computed again as attention.h does it. Each row decides for itself: its
// result must not depend on its neighbours.
#pragma once

#include "kernels.h"

namespace {

// Queries of a block.
constexpr int64_t QUERIES = 16;

// Between these a row's shares are neither infinite nor have their larger ones become denormals.
constexpr float LEAST_SUM = 1e-20f, MOST_SUM = 1e30f;

// e^x in bfloat16 of one row's scores of 32 keys, 16 from `left` and 16 from `right`, which `key_of` names; nothing for
// keys that do not `exist`. Root mean square of the relative error 2.3e-3, where rounding alone leaves 1.7e-3: the bits of
// a bfloat16 are 128 times its logarithm, but for up to 11 of 128 within an octave, which a table of 64 tells. 10
// instructions; an exponential in float32 and its rounding are twice as many. NaN and infinity become 2^125.5, and so a sum
// that is too large.
INLINE __m512i shares_of(const float *left, const float *right, __mmask32 exist) {
  alignas(64) static const uint8_t excess[64] = {
      0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 5, 6, 6, 7, 7, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 10, 11, 11, 11, 11, 11,
      11, 11, 11, 11, 11, 11, 11, 11, 11, 10, 10, 10, 10, 10, 9, 9, 9, 8, 8, 8, 7, 7, 6, 6, 5, 5, 4, 3, 3, 2, 1, 1};
  const auto logarithm = [](const float *scores) __attribute__((always_inline)) {
    // The lesser magnitude, with the score's sign.
    const __m512 x = _mm512_range_ps(_mm512_loadu_ps(scores), _mm512_set1_ps(87.0f), 2);
    return _mm512_cvtps_epi32(_mm512_fmadd_ps(x, _mm512_set1_ps(128 * 1.44269504f), _mm512_set1_ps(128 * 127.0f)));
  };
  const __m512i bits = _mm512_packs_epi32(logarithm(left), logarithm(right));
  const __m512i over = _mm512_maskz_permutexvar_epi8(0x5555555555555555, _mm512_srli_epi16(bits, 1),
                                                     _mm512_load_si512(excess));
  return _mm512_maskz_sub_epi16(exist, bits, over);
}

// Which key of a panel is column `i` of half `h`: narrowing takes four of one half and four of the other in turn.
INLINE int64_t key_of(int64_t i, int64_t h) { return i / 4 * 8 + i % 4 + 4 * h; }

// Keys as `shares_of` wants them: of each panel the left half's words, then the right half's.
void pack_halves(const Attention *p, uint32_t *to) {
  const int64_t words = p->size / 2, stride = p->key_stride / 2;
  const uint32_t *rows = (const uint32_t *)p->keys;
  for (int64_t begin = 0; begin < p->n; begin += COLUMNS)
    for (int64_t half = 0; half < 2; half++)
      for (int64_t w = 0; w < words; w += DEPTH, to += DEPTH * SIDE) {
        const auto row = [&](int64_t i) __attribute__((always_inline)) {
          const int64_t key = begin + key_of(i, half);
          return rows + (key < p->n ? key : p->n - 1) * stride + w;
        };
        transpose(row, to, SIDE);
      }
}

// One head.
class TileAttention {
 public:
  explicit TileAttention(const Attention *p)
      : p_(p), panels_((p->n + COLUMNS - 1) / COLUMNS), key_words_(p->size / 2) {
    attention_layout<Bfloat16>(p->n, p->size, (char *)p->scratch, &at_);
  }

  void run() {
    pack_halves(p_, at_.keys);
    pack_values<Bfloat16>(p_, at_.values);
    const int64_t pairs = (p_->queries_n + QUERIES - 1) / QUERIES * panels_;
    Pair scored, shared, added;
    for (int64_t i = 0; i < pairs + 2; i++) {
      const bool score = i < pairs, share = i > 0 && i <= pairs, add = i > 1;
      float *const scores = scores_[i % 2], *const before = scores_[(i + 1) % 2];
      if (score) multiply(scored);
      if (ended_ >= 0) finish();
      if (share) narrow(shared, before, 0, QUERIES / 2);
      if (add) add_values(added);
      if (score) {
        _tile_stored(3, scores, 64);
        _tile_stored(4, scores + QUERIES * SIDE, 64);
        scored.next(panels_);
      }
      if (share) {
        narrow(shared, before, QUERIES / 2, QUERIES);
        shared.next(panels_);
      }
      if (add) {
        if (added.panel == panels_ - 1) end(added.block);
        added.next(panels_);
      }
    }
    if (ended_ >= 0) finish();
    if (again_) compute_again();
  }

 private:
  enum { NOT_A_NUMBER = 0x7fff };

  struct Pair {
    int64_t block = 0, panel = 0;
    void next(int64_t panels) {
      if (++panel == panels) panel = 0, block++;
    }
  };

  // A pair's shares, a tile. One block's may be read while the next one's are written. They lie where attention.h has the
  // scores of twice as many queries, in float.
  uint16_t *shares(int64_t block, int64_t panel) const {
    return (uint16_t *)at_.scores + (block % 2 * panels_ + panel) * QUERIES * COLUMNS;
  }
  int64_t rows(int64_t block) const {
    return p_->queries_n - block * QUERIES < QUERIES ? p_->queries_n - block * QUERIES : QUERIES;
  }

  INLINE void multiply(const Pair &pair) {
    const int64_t query_stride = p_->query_stride / 2;
    const uint32_t *queries = (const uint32_t *)p_->queries + pair.block * QUERIES * query_stride;
    const uint32_t *left = at_.keys + pair.panel * COLUMNS * key_words_, *right = left + SIDE * key_words_;
    settle(queries);
    settle(left);
    _tile_zero(3);
    _tile_zero(4);
    for (int64_t w = 0; w < key_words_; w += DEPTH) {
      if (pair.panel == 0 || key_words_ > DEPTH) _tile_loadd(5, queries + w, query_stride * 4);
      _tile_loadd(6, left + w * SIDE, 64);
      _tile_dpbf16ps(3, 5, 6);
      _tile_loadd(7, right + w * SIDE, 64);
      _tile_dpbf16ps(4, 5, 7);
    }
  }

  INLINE void narrow(const Pair &pair, const float *scores, int64_t from, int64_t to) {
    const int64_t keys = p_->n - pair.panel * COLUMNS, count = rows(pair.block);
    const __mmask32 exist = keys < COLUMNS ? (1u << keys) - 1 : ~0u;
    uint16_t *out = shares(pair.block, pair.panel);
    for (int64_t r = from; r < to && r < count; r += 4)
      UNROLL for (int64_t i = r; i < r + 4; i++)
        _mm512_store_si512(out + i * COLUMNS, shares_of(scores + i * SIDE, scores + (QUERIES + i) * SIDE, exist));
  }

  INLINE void add_values(const Pair &pair) {
    alignas(64) static const struct Ones {
      uint32_t word[256];
      Ones() {
        for (uint32_t &w : word) w = 0x3f803f80u;  // two of them in bfloat16
      }
    } ones;
    const uint16_t *from = shares(pair.block, pair.panel);
    const uint32_t *values = at_.values + pair.panel * COLUMNS / 2 * COLUMNS;
    settle(from);
    settle(values);
    if (!pair.panel) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
    }
    _tile_loadd(6, from, 64);
    _tile_loadd(7, values, COLUMNS * 4);
    _tile_dpbf16ps(0, 6, 7);
    _tile_loadd(7, values + SIDE, COLUMNS * 4);
    _tile_dpbf16ps(1, 6, 7);
    _tile_loadd(7, ones.word, 64);
    _tile_dpbf16ps(2, 6, 7);
  }

  // The last keys of a block have been added. Of wider heads what is left of the values follows at once.
  void end(int64_t block) {
    _tile_stored(0, sums_, COLUMNS * 4);
    _tile_stored(1, sums_ + SIDE, COLUMNS * 4);
    _tile_stored(2, totals_, 64);
    ended_ = block;
    for (int64_t c = COLUMNS; c < p_->size; c += COLUMNS) {
      alignas(64) float sums[QUERIES * COLUMNS];
      const uint32_t *values = at_.values + c * (panels_ * COLUMNS / 2);
      _tile_zero(3);
      _tile_zero(4);
      for (int64_t panel = 0; panel < panels_; panel++, values += COLUMNS / 2 * COLUMNS) {
        _tile_loadd(5, shares(block, panel), 64);
        _tile_loadd(6, values, COLUMNS * 4);
        _tile_dpbf16ps(3, 5, 6);
        _tile_loadd(7, values + SIDE, COLUMNS * 4);
        _tile_dpbf16ps(4, 5, 7);
      }
      _tile_stored(3, sums, COLUMNS * 4);
      _tile_stored(4, sums + SIDE, COLUMNS * 4);
      put(sums, block, c);
    }
  }

  void put(const float *sums, int64_t block, int64_t column) const {
    for (int64_t r = 0; r < rows(block); r++, sums += COLUMNS) {
      const Vector scale = Bfloat16::inverse(load(totals_ + r * SIDE));
      Bfloat16::put2(out(block * QUERIES + r) + column, load(sums) * scale, load(sums + LANES) * scale);
    }
  }

  // The sums of a block to where they go. A row that did not go well is marked by what is not a number.
  void finish() {
    put(sums_, ended_, 0);
    for (int64_t r = 0; r < rows(ended_); r++) {
      const float total = totals_[r * SIDE];
      if (total >= LEAST_SUM && total <= MOST_SUM) continue;
      out(ended_ * QUERIES + r)[0] = NOT_A_NUMBER;
      again_ = true;
    }
    ended_ = -1;
  }

  uint16_t *out(int64_t row) const { return (uint16_t *)p_->out + row * p_->out_stride; }

  void compute_again() {
    pack_keys<Bfloat16>(p_, at_.keys);
    for (int64_t r = 0; r < p_->queries_n; r++) {
      if (out(r)[0] != NOT_A_NUMBER) continue;
      Attention row = *p_;
      row.queries = (const uint16_t *)p_->queries + r * p_->query_stride;
      row.out = out(r);
      row.queries_n = 1;
      attend_packed<Bfloat16>(&row, at_);
    }
  }

  const Attention *const p_;
  AttentionScratch at_;
  const int64_t panels_, key_words_;
  int64_t ended_ = -1;  // the block whose sums wait to be finished
  bool again_ = false;  // some row is marked
  alignas(64) float scores_[2][QUERIES * COLUMNS], sums_[QUERIES * COLUMNS], totals_[QUERIES * SIDE];
};

// Every query sees every key; heads fill whole steps of the tiles.
void attend_tiles(const Attention *p) { TileAttention(p).run(); }

}  // namespace
