// Vectors of LANES floats in the compiler's own vector extension, and the elementary functions on them.
//
// Included by tier.h, once for each tier, after LANES is defined. Everything is in an unnamed namespace and nothing of
// the standard library is used: a template that two tiers share would be linked once, with the instructions of either.
#pragma once

#include <stdint.h>
#include <string.h>

namespace {

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

INLINE Vector load(const float *from) {
  Vector v;
  memcpy(&v, from, sizeof v);
  return v;
}
INLINE void store(float *to, Vector v) { memcpy(to, &v, sizeof v); }
INLINE Vector splat(float x) { return x - Vector{}; }
// A comparison with NaN is false, so NaN stays NaN: a damaged model must not look healthy.
INLINE Vector at_least(Vector v, float low) { return v < splat(low) ? splat(low) : v; }
INLINE Vector at_most(Vector v, float high) { return v > splat(high) ? splat(high) : v; }
INLINE Vector larger(Vector a, Vector b) { return a < b ? b : a; }

// By halves: a chain of 16 additions would take four times as long.
#if LANES == 16 && defined(__AVX512F__)
INLINE float sum(Vector v) { return _mm512_reduce_add_ps((__m512)v); }
INLINE float largest(Vector v) { return _mm512_reduce_max_ps((__m512)v); }
#else
INLINE float sum(Vector v) {
  float lanes[LANES];
  memcpy(lanes, &v, sizeof v);
  UNROLL for (int half = LANES / 2; half; half /= 2)
    UNROLL for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}
INLINE float largest(Vector v) {
  float lanes[LANES];
  memcpy(lanes, &v, sizeof v);
  UNROLL for (int half = LANES / 2; half; half /= 2)
    UNROLL for (int i = 0; i < half; i++) lanes[i] = lanes[i] < lanes[i + half] ? lanes[i + half] : lanes[i];
  return lanes[0];
}
#endif

// e^x, relative error under 2e-7 for x in [-87, 88], clamped outside: no result is a denormal or infinite.
// 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf coefficients, Moshier 1989).
INLINE Vector exponential(Vector x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
  x = at_most(at_least(x, -87.0f), 88.0f);
  Vector shifted = x * 1.44269504088896341f + magic;
  Vector n = shifted - magic;
  Vector r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vector p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  Integers bits, whole;
  memcpy(&bits, &shifted, sizeof bits);
  whole = (bits - 0x4B400000 + 127) << 23;
  Vector scale;
  memcpy(&scale, &whole, sizeof scale);
  return p * scale;
}

// x times the normal distribution function of x, as x / (1 + exp(-x q(x^2))). The coefficients are those of the
// reference backend (crossrank/backends/reference/ops.py), which says how they were fitted: error under 6e-7.
INLINE Vector gelu(Vector x) {
  Vector t = at_most(x * x, 30.25f);
  Vector q = splat(3.6112328536797364e-09f);
  q = q * t + -2.6689281972001515e-07f;
  q = q * t + 7.938218928237824e-06f;
  q = q * t + -1.1048031695365469e-04f;
  q = q * t + -6.625998790294667e-05f;
  q = q * t + 0.0726685670302173f;
  q = q * t + 1.5957684322295425f;
  return x / (1.0f + exponential(-x * q));
}

}  // namespace
