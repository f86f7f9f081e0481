// Work on single rows: layer norm, rotary positions, sums of embeddings. Included after operand.h.
#pragma once

#include <math.h>

#include "kernels.h"

namespace {

// Sums of a row in four chains: in one, each addition would wait for the one before it.
template <class F> INLINE float sum_over(int64_t whole, F of) {
  Vector total[4] = {};
  int64_t i = 0;
  for (; i + 4 * LANES <= whole; i += 4 * LANES)
    UNROLL for (int v = 0; v < 4; v++) total[v] = total[v] + of(i + v * LANES);
  for (; i < whole; i += LANES) total[0] = total[0] + of(i);
  return sum((total[0] + total[1]) + (total[2] + total[3]));
}

template <class T> void norm_row(const NormRows *p, const float *from, float *floats, typename T::Number *operands) {
  int64_t whole = p->width / LANES * LANES;
  float mean = 0, scale = 1;
  if (p->weight) {
    mean = sum_over(whole, [&](int64_t i) { return load(from + i); });
    for (int64_t i = whole; i < p->width; i++) mean += from[i];
    mean /= (float)p->width;
    // Two passes: E[x^2] - E[x]^2 would cancel where the mean is large.
    float variance = sum_over(whole, [&](int64_t i) {
      Vector d = load(from + i) - mean;
      return d * d;
    });
    for (int64_t i = whole; i < p->width; i++) variance += (from[i] - mean) * (from[i] - mean);
    scale = 1.0f / sqrtf(variance / (float)p->width + p->eps);
  }
  for (int64_t i = 0; i < whole; i += LANES) {
    Vector v = load(from + i);
    if (p->weight) v = (v - mean) * scale * load(p->weight + i);
    if (p->bias) v = v + load(p->bias + i);
    if (floats) store(floats + i, v);
    if (operands) T::put(operands + i, v);
  }
  for (int64_t i = whole; i < p->width; i++) {
    float v = from[i];
    if (p->weight) v = (v - mean) * scale * p->weight[i];
    if (p->bias) v = v + p->bias[i];
    if (floats) floats[i] = v;
    if (operands) T::put1(operands + i, v);
  }
  if (operands)
    for (int64_t i = p->width; i < p->operands_width; i++) T::put1(operands + i, 0.0f);
}

// The usual row: with weight and bias, in whole pairs of vectors.
template <class T>
INLINE void norm_whole(const NormRows *p, const float *from, float *floats, typename T::Number *operands) {
  const int64_t width = p->width;
  const float *weight = p->weight, *bias = p->bias;
  const float mean = sum_over(width, [&](int64_t i) { return load(from + i); }) / (float)width;
  const float variance = sum_over(width, [&](int64_t i) {
    Vector d = load(from + i) - mean;
    return d * d;
  }) / (float)width;
  const float scale = 1.0f / sqrtf(variance + p->eps);
  for (int64_t i = 0; i < width; i += 2 * LANES) {
    Vector a = (load(from + i) - mean) * scale * load(weight + i) + load(bias + i);
    Vector b = (load(from + i + LANES) - mean) * scale * load(weight + i + LANES) + load(bias + i + LANES);
    if (floats) store(floats + i, a), store(floats + i + LANES, b);
    if (operands) T::put2(operands + i, a, b);
  }
}

template <class T> void norm(const NormRows *p) {
  const bool whole = p->width % (2 * LANES) == 0 && (!p->operands || p->operands_width == p->width);
  const bool usual = whole && p->weight && p->bias;
  for (int64_t r = 0; r < p->rows; r++) {
    const float *from = p->from + r * p->from_stride;
    float *floats = p->floats ? p->floats + r * p->floats_stride : nullptr;
    typename T::Number *operands = p->operands ? (typename T::Number *)p->operands + r * p->operands_stride : nullptr;
    if (!usual) {
      norm_row<T>(p, from, floats, operands);
      continue;
    }
    // Rows come from the second-level cache while two others are computed. Of a fifth less time half is this, half that the
    // loops know what they have.
    for (int64_t i = 0; i < p->width; i += 16) __builtin_prefetch(from + 2 * p->from_stride + i, 1);
    norm_whole<T>(p, from, floats, operands);
  }
}

// Number i of a head's first half turns with number i of its second (Su et al. 2021).
template <class T>
void rotate(void *row, int64_t heads, int64_t size, const float *cosine, const float *sine) {
  typename T::Number *head = (typename T::Number *)row;
  int64_t half = size / 2;
  for (int64_t h = 0; h < heads; h++, head += size)
    for (int64_t i = 0; i < half; i++) {
      float a = T::get1(head + i), b = T::get1(head + half + i);
      T::put1(head + i, a * cosine[i] - b * sine[i]);
      T::put1(head + half + i, b * cosine[i] + a * sine[i]);
    }
}

inline void add(float *out, const float *a, const float *b, const float *c, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = a[i] + (b ? b[i] : 0.0f) + (c ? c[i] : 0.0f);
}

}  // namespace
