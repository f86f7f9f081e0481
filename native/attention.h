// Attention of one head over one sequence: keys and values are packed as if they were weights, so that the two
// products run on the kernels of product.h. Included after product.h.
#pragma once

#include "kernels.h"

namespace {

// Scratch: packed keys, packed values, scores of ROWS queries, their probabilities.
struct AttentionScratch {
  uint32_t *keys, *values;
  float *scores;
  void *shares;
};

template <class T> int64_t attention_layout(int64_t n, int64_t size, char *at, AttentionScratch *out) {
  int64_t tokens = up(n, COLUMNS), key_words = words_of<T>(size);
  int64_t bytes[4] = {
      tokens * key_words * 4,
      up(size, COLUMNS) * words_of<T>(n) * 4,
      ROWS * tokens * 4,
      ROWS * tokens * (int64_t)sizeof(typename T::Number),
  };
  int64_t places[4], total = 0;
  for (int i = 0; i < 4; i++) {
    places[i] = total;
    total += up(bytes[i], 64) + 64;
  }
  if (out) {
    out->keys = (uint32_t *)(at + places[0]);
    out->values = (uint32_t *)(at + places[1]);
    out->scores = (float *)(at + places[2]);
    out->shares = at + places[3];
  }
  return total;
}

template <class T> int64_t attention_bytes(int64_t n, int64_t size) {
  return attention_layout<T>(n, size, nullptr, nullptr);
}

#if LANES == 16 && defined(__AVX512F__)
// 16 words of 16 rows become 16 columns, in four rounds of shuffles that double what lies together; `row(i)` is where
// the i-th begins.
template <class Row> INLINE void transpose(Row row, uint32_t *to, int64_t to_stride) {
  __m512i a[16], b[16];
  UNROLL for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(row(i));
  UNROLL for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  UNROLL for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4 g + j] holds column 4 l + j of rows 4 g .. 4 g + 3 in its lane l.
  UNROLL for (int j = 0; j < 4; j++) {
    __m512i even = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88), odd = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd);
    __m512i even2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
    __m512i odd2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
    _mm512_storeu_si512(to + j * to_stride, _mm512_shuffle_i32x4(even, even2, 0x88));
    _mm512_storeu_si512(to + (8 + j) * to_stride, _mm512_shuffle_i32x4(even, even2, 0xdd));
    _mm512_storeu_si512(to + (4 + j) * to_stride, _mm512_shuffle_i32x4(odd, odd2, 0x88));
    _mm512_storeu_si512(to + (12 + j) * to_stride, _mm512_shuffle_i32x4(odd, odd2, 0xdd));
  }
}
#endif

// panel[word][token] = row[token][word]: tokens are the outputs of queries x keys. Head sizes fill whole words, and on
// tiles whole steps (kernels_amx.cpp sends others elsewhere).
template <class T> void pack_keys(const Attention *p, uint32_t *to) {
  int64_t words = (p->size + T::PER_WORD - 1) / T::PER_WORD, stride = p->key_stride / T::PER_WORD;
  const uint32_t *rows = (const uint32_t *)p->keys;
  for (int64_t begin = 0; begin < p->n; begin += COLUMNS, to += words * COLUMNS) {
    // The last panel is filled with a token that exists: its scores are finite and are overwritten.
    int64_t last = (p->n - begin < COLUMNS ? p->n - begin : COLUMNS) - 1;
#if LANES == 16 && defined(__AVX512F__)
    if (words % 16 == 0) {
      for (int64_t t = 0; t < COLUMNS; t += 16)
        for (int64_t w = 0; w < words; w += 16) {
          const auto row = [&](int64_t i) __attribute__((always_inline)) {
            return rows + (begin + (t + i < last ? t + i : last)) * stride + w;
          };
          transpose(row, to + w * COLUMNS + t, COLUMNS);
        }
      continue;
    }
#endif
    for (int64_t t = 0; t < COLUMNS; t++) {
      const uint32_t *row = rows + (begin + (t < last ? t : last)) * stride;
      for (int64_t w = 0; w < words; w++) to[w * COLUMNS + t] = row[w];
    }
  }
}

// Words hold one value (float) or the values of two neighbouring tokens (bfloat16): tokens are the inputs.
template <class T> void pack_values(const Attention *p, uint32_t *to) {
  int64_t words = words_of<T>(p->n), stride = p->value_stride;
  const typename T::Number *rows = (const typename T::Number *)p->values;
  for (int64_t begin = 0; begin < p->size; begin += COLUMNS) {
    int64_t count = p->size - begin < COLUMNS ? p->size - begin : COLUMNS;
    for (int64_t w = 0; w < words; w++, to += COLUMNS) {
      if (w * T::PER_WORD >= p->n) {
        memset(to, 0, COLUMNS * 4);
        continue;
      }
      const typename T::Number *row = rows + w * T::PER_WORD * stride + begin;
      if (T::PER_WORD == 1) {
        memcpy(to, row, count * 4);
      } else {
        bool pair = 2 * w + 1 < p->n;
        for (int64_t i = 0; i < count; i++)
          to[i] = (uint32_t)row[i] | (pair ? (uint32_t)row[stride + i] << 16 : 0u);
      }
      for (int64_t i = count; i < COLUMNS; i++) to[i] = 0;
    }
  }
}

// Scores of one query to unnormalized shares in `shares`; returns their sum. Scores before `from` and from `to` on are
// padding or out of sight; some are in sight, from < to.
template <class T>
float softmax_row(float *scores, int64_t from, int64_t to, int64_t width, typename T::Number *shares) {
  const float hidden = -3e38f;
  for (int64_t i = 0; i < from; i++) scores[i] = hidden;
  for (int64_t i = to; i < width; i++) scores[i] = hidden;
  Vector most = splat(hidden);
  for (int64_t i = 0; i < width; i += LANES) most = larger(most, load(scores + i));
  float top = largest(most);
  Vector total{};
  for (int64_t i = 0; i < width; i += LANES) {
    Vector share = T::e(load(scores + i) - top);
    total = total + share;
    T::put(shares + i, share);
  }
  // e^-87 is not nothing: it makes products with values into denormals, which are slow, and brings in large values that
  // are out of sight. In the sum it is lost beside the 1 of the largest score.
  for (int64_t i = 0; i < from; i++) T::put1(shares + i, 0.0f);
  for (int64_t i = to; i < width; i++) T::put1(shares + i, 0.0f);
  return sum(total);
}

// A query with no key in its window, which there is where keys end early (`seen`), attends to nothing: zeros, as torch's.
template <class T> void attend_to_none(const Attention *p, int64_t begin, int64_t rows) {
  for (int64_t r = begin; r < begin + rows; r++)
    memset((typename T::Number *)p->out + r * p->out_stride, 0, p->size * sizeof(typename T::Number));
}

// The scratch of `p`, with its keys and values packed.
template <class T> AttentionScratch packed(const Attention *p) {
  AttentionScratch at;
  attention_layout<T>(p->n, p->size, (char *)p->scratch, &at);
  pack_keys<T>(p, at.keys);
  pack_values<T>(p, at.values);
  return at;
}

template <class T> void attend_packed(const Attention *p, const AttentionScratch &at) {
  int64_t key_words = words_of<T>(p->size), value_words = words_of<T>(p->n);
  int64_t query_stride = p->query_stride / T::PER_WORD;
  alignas(64) float sums[ROWS * COLUMNS];
  for (int64_t begin = 0; begin < p->queries_n; begin += ROWS) {
    int64_t rows = p->queries_n - begin < ROWS ? p->queries_n - begin : ROWS;
    // Panels of keys that some query of the block can see.
    int64_t position = p->first + begin, low = 0, high = p->n;
    if (p->window >= 0) {
      low = position - p->window > 0 ? (position - p->window) / COLUMNS * COLUMNS : 0;
      high = position + rows + p->window < p->n ? position + rows + p->window : p->n;
    }
    if (low >= high) {
      attend_to_none<T>(p, begin, rows);
      continue;
    }
    int64_t width = up(high - low, COLUMNS);
    const uint32_t *queries = (const uint32_t *)p->queries + begin * query_stride;
    for (int64_t t = 0; t < width; t += COLUMNS)
      rows_block<T>(rows, key_words, queries, query_stride, at.keys + (low + t) * key_words, at.scores + t, width);
    float scale[ROWS];
    for (int64_t r = 0; r < rows; r++) {
      int64_t from = 0, to = high - low;
      if (p->window >= 0) {
        int64_t left = position + r - p->window - low, right = position + r + p->window + 1 - low;
        from = left > 0 ? left : 0;
        to = right < to ? right : to;
      }
      typename T::Number *shares = (typename T::Number *)at.shares + r * width;
      if (from >= to) {
        memset(shares, 0, width * sizeof(typename T::Number));
        scale[r] = 0;
        continue;
      }
      scale[r] = 1.0f / softmax_row<T>(at.scores + r * width, from, to, width, shares);
    }
    int64_t seen = words_of<T>(high - low);
    for (int64_t c = 0; c < p->size; c += COLUMNS) {
      const uint32_t *values = at.values + c * value_words + low / T::PER_WORD * COLUMNS;
      rows_block<T>(rows, seen, (const uint32_t *)at.shares, width / T::PER_WORD, values, sums, COLUMNS);
      int64_t count = p->size - c < COLUMNS ? p->size - c : COLUMNS;
      for (int64_t r = 0; r < rows; r++) {
        typename T::Number *out = (typename T::Number *)p->out + (begin + r) * p->out_stride + c;
        int64_t whole = count / LANES * LANES;
        for (int64_t i = 0; i < whole; i += LANES) T::put(out + i, load(sums + r * COLUMNS + i) * scale[r]);
        for (int64_t i = whole; i < count; i++) T::put1(out + i, sums[r * COLUMNS + i] * scale[r]);
      }
    }
  }
}

template <class T> void attend(const Attention *p) { attend_packed<T>(p, packed<T>(p)); }

}  // namespace
