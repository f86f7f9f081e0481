// AMX: attention over a whole sequence on tiles. Included after attention.h, whose packing it uses.
//
// Softmax is most of it, so its scores are read once. What softmax subtracts from a row's scores is the largest of
// them, so that nothing overflows; any number near it would do as well, and scores are near 0. So nothing is subtracted.
// The sums of the rows, which the tiles add, say whether that went well, and where it did not a row is computed again as
// attention.h does it. Each row decides for itself: its result must not depend on its neighbours.
#pragma once

#include "kernels.h"

namespace {

// Between these a row's shares are neither infinite nor have their larger ones become denormals.
constexpr float LEAST_SUM = 1e-20f, MOST_SUM = 1e30f;

// A row's shares begin on other cache sets than the next one's. They lie where attention.h has its scores, which take as
// much or more: 4 bytes for each of at least 32 keys.
INLINE int64_t shares_stride(int64_t width) { return width + 32; }

// e^score of four rows and one panel of keys, of which those of `low` and `high` exist.
template <bool whole>
INLINE void shares_of_four(const float *scores, __mmask16 low, __mmask16 high, uint16_t *to, int64_t stride) {
  Vector x[8];
  UNROLL for (int i = 0; i < 8; i++) x[i] = load(scores + i * LANES);
  Bfloat16::exponentials(x);
  if (!whole)
    UNROLL for (int i = 0; i < 8; i++) x[i] = (Vector)_mm512_maskz_mov_ps(i % 2 ? high : low, (__m512)x[i]);
  UNROLL for (int r = 0; r < 4; r++) Bfloat16::put2(to + r * stride, x[2 * r], x[2 * r + 1]);
}

// The same of `rows` rows, and up to three that follow: there is room for whole tiles. The first `count` keys exist.
INLINE void shares_of(const float *scores, int64_t rows, int64_t count, uint16_t *to, int64_t stride) {
  const __mmask16 low = (__mmask16)((1u << (count < 16 ? count : 16)) - 1);
  const __mmask16 high = (__mmask16)((1u << (count > 16 ? count - 16 : 0)) - 1);
  for (int64_t r = 0; r < rows; r += 4, scores += 4 * COLUMNS, to += 4 * stride)
    if (count == COLUMNS) shares_of_four<true>(scores, low, high, to, stride);
    else shares_of_four<false>(scores, low, high, to, stride);
}

// The sum of each row of shares, in all of its 16 columns.
template <bool both>
void sums_of(int64_t words, const uint32_t *shares, int64_t stride, const uint32_t *ones, float *sums) {
  settle(shares);
  settle(ones);
  _tile_zero(0);
  if (both) _tile_zero(1);
  _tile_loadd(6, ones, 64);
  for (int64_t w = 0; w < words; w += DEPTH) {
    _tile_loadd(4, shares + w, stride * 4);
    _tile_dpbf16ps(0, 4, 6);
    if (both) {
      _tile_loadd(5, shares + 16 * stride + w, stride * 4);
      _tile_dpbf16ps(1, 5, 6);
    }
  }
  _tile_stored(0, sums, 64);
  if (both) _tile_stored(1, sums + 256, 64);
}

template <bool both>
void attend_block(const Attention *p, const AttentionScratch &at, int64_t begin, int64_t rows, const uint32_t *ones) {
  alignas(64) float sums[2][ROWS * COLUMNS], totals[ROWS * 16];
  const int64_t key_words = p->size / 2, width = up(p->n, COLUMNS), stride = shares_stride(width);
  const int64_t query_stride = p->query_stride / 2;
  const uint32_t *queries = (const uint32_t *)p->queries + begin * query_stride;
  uint16_t *shares = (uint16_t *)at.scores;
  const uint32_t *share_words = (const uint32_t *)at.scores;
  // The tiles are a panel ahead: its scores are there when the exponentials of the one before it are done.
  const auto score = [&](int64_t t) {
    tile_block<both>(key_words, queries, query_stride, at.keys + t * key_words, sums[t / COLUMNS % 2], COLUMNS);
  };
  score(0);
  for (int64_t t = 0; t < width; t += COLUMNS) {
    if (t + COLUMNS < width) score(t + COLUMNS);
    shares_of(sums[t / COLUMNS % 2], rows, p->n - t < COLUMNS ? p->n - t : COLUMNS, shares + t, stride);
  }
  sums_of<both>(width / 2, share_words, stride / 2, ones, totals);
  for (int64_t c = 0; c < p->size; c += COLUMNS) {
    tile_block<both>(width / 2, share_words, stride / 2, at.values + c * (width / 2), sums[0], COLUMNS);
    for (int64_t r = 0; r < rows; r++) {
      Vector scale = Bfloat16::inverse(load(totals + r * 16));
      const float *from = sums[0] + r * COLUMNS;
      uint16_t *out = (uint16_t *)p->out + (begin + r) * p->out_stride + c;
      Bfloat16::put2(out, load(from) * scale, load(from + LANES) * scale);
    }
  }
  for (int64_t r = 0; r < rows; r++) {
    if (totals[r * 16] >= LEAST_SUM && totals[r * 16] <= MOST_SUM) continue;
    Attention row = *p;
    row.queries = (const uint16_t *)p->queries + (begin + r) * p->query_stride;
    row.out = (uint16_t *)p->out + (begin + r) * p->out_stride;
    row.queries_n = 1;
    attend_packed<Bfloat16>(&row, at);
  }
}

// Every query sees every key; heads fill whole steps of the tiles.
void attend_tiles(const Attention *p) {
  alignas(64) static const struct Ones {
    uint32_t word[256];
    Ones() {
      for (uint32_t &w : word) w = 0x3f803f80u;  // two of them in bfloat16
    }
  } ones;
  const AttentionScratch at = packed<Bfloat16>(p);
  for (int64_t begin = 0; begin < p->queries_n; begin += ROWS) {
    int64_t rows = p->queries_n - begin < ROWS ? p->queries_n - begin : ROWS;
    if (rows > 16) attend_block<true>(p, at, begin, rows, ones.word);
    else attend_block<false>(p, at, begin, rows, ones.word);
  }
}

}  // namespace
