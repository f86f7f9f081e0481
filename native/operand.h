// Operands of a tier: float, or bfloat16 with AVX512-BF16. Included after simd.h.
#pragma once

#include "kernels.h"

namespace {

// Rows as the loop over blocks reads them. Strides are in words.
struct Operands {
  const uint32_t *at;
  int64_t stride;
  const float *steps;  // what a row's integers are multiples of; NULL for other numbers
};

// Operands are stored by memcpy, because the products read them as words of 32 bits: to the compiler a float and a word
// are never the same memory.
struct Float32 {
  typedef float Number;
  typedef Vector Total;
  enum { PER_WORD = 1 };
  static Operands operands(const Product *p) { return {(const uint32_t *)p->a, p->a_stride, nullptr}; }
  static INLINE Vector floats(Vector total) { return total; }
  static INLINE void put(float *to, Vector v) { store(to, v); }
  static INLINE void put2(float *to, Vector a, Vector b) { put(to, a), put(to + LANES, b); }
  static INLINE void put1(float *to, float x) { memcpy(to, &x, 4); }
  static INLINE float get1(const float *from) { return *from; }
  static INLINE Vector multiply_add(Vector sum, uint32_t a, const uint32_t *b) {
    float x;
    memcpy(&x, &a, 4);
    return sum + x * load((const float *)b);
  }
  static INLINE Vector e(Vector x) { return exponential(x); }
  static INLINE Vector inverse(Vector v) { return 1.0f / v; }
  template <int N> static INLINE void gelu(Vector (&x)[N]) {
    UNROLL for (int i = 0; i < N; i++) x[i] = ::gelu(x[i]);
  }
};

#ifdef __AVX512BF16__
// Rounds to nearest even in hardware; the product of two bfloat16 is exact in float32.
struct Bfloat16 {
  typedef uint16_t Number;
  typedef Vector Total;
  enum { PER_WORD = 2 };
  static Operands operands(const Product *p) { return {(const uint32_t *)p->a, p->a_stride / PER_WORD, nullptr}; }
  static INLINE Vector floats(Vector total) { return total; }
  static INLINE void put(uint16_t *to, Vector v) {
    __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);
    memcpy(to, &narrow, sizeof narrow);
  }
  static INLINE void put2(uint16_t *to, Vector a, Vector b) {
    __m512bh narrow = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
    memcpy(to, &narrow, sizeof narrow);
  }
  static INLINE void put1(uint16_t *to, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    // NaN keeps its sign and becomes quiet: rounding could carry it into infinity.
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    uint16_t half = (uint16_t)(nan ? (bits >> 16) | 64 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    memcpy(to, &half, 2);
  }
  static INLINE float get1(const uint16_t *from) {
    uint32_t bits = (uint32_t)*from << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
  }
  static INLINE Vector multiply_add(Vector sum, uint32_t a, const uint32_t *b) {
    __m512i panel = _mm512_loadu_si512(b);
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)panel);
  }

  // What follows is rounded to 8 bits, an error of 2e-3. These take half the instructions of Float32's and no division,
  // which alone would take a third of the time of the products before them.

  // e^x, relative error under 8e-5 in [-126, 127] / log2(e); below it is nothing or a denormal, above infinite. 2^f times
  // 2^n, f being what is left of x log2(e) above a whole number n: a polynomial fitted for the least largest relative
  // error, 7.5e-5. Several vectors side by side: each step waits for the one before it (eight are 1.7 times as fast).
  template <int N> static INLINE void exponentials(Vector (&x)[N]) {
    Vector f[N], p[N];
    UNROLL for (int i = 0; i < N; i++) x[i] = x[i] * 1.44269504088896341f;
    UNROLL for (int i = 0; i < N; i++) f[i] = (Vector)_mm512_reduce_ps((__m512)x[i], 1);
    UNROLL for (int i = 0; i < N; i++) p[i] = 7.80243650e-02f * f[i] + 2.26067305e-01f;
    UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * f[i] + 6.95833504e-01f;
    UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * f[i] + 9.99925196e-01f;
    // Its second operand is rounded down to n.
    UNROLL for (int i = 0; i < N; i++) x[i] = (Vector)_mm512_scalef_ps((__m512)p[i], (__m512)x[i]);
  }
  // The same for one vector, and e^-87 for anything below: a denormal would be slow.
  static INLINE Vector e(Vector x) {
    // Of two operands of which one is NaN the processor gives the second.
    Vector one[1] = {(Vector)_mm512_max_ps(_mm512_set1_ps(-87.0f), (__m512)x)};
    exponentials(one);
    return one[0];
  }
  // Relative error under 7e-5.
  static INLINE Vector inverse(Vector v) { return (Vector)_mm512_rcp14_ps((__m512)v); }
  // max(x, 0) less |x| times the normal distribution function of -|x|, a bump that is nowhere above 0.17: of each stretch of
  // 1/4 a parabola, fitted for the least largest error, 1.1e-4 in all (half of what is left of the bump at 3.875). Nine
  // instructions, two of which multiply; as one polynomial of degree 17 there were 13, all for the unit that multiplies,
  // of which a core has one left while tiles do, and took as long as the product on tiles behind which they should hide.
  template <int N> static INLINE void gelu(Vector (&x)[N]) {
    alignas(64) static const float bump[3][16] = {
        {-0.000000000e+00f, -6.365703302e-04f, -1.052260119e-02f, -4.655877873e-02f, -1.191795468e-01f, -2.205643058e-01f,
         -3.252649605e-01f, -4.023799002e-01f, -4.307509363e-01f, -4.062956870e-01f, -3.427641392e-01f, -2.609727681e-01f,
         -1.805910319e-01f, -1.141869798e-01f, -6.624566764e-02f, -1.405030489e-03f},
        {-4.999112189e-01f, -4.920999408e-01f, -4.411860704e-01f, -3.268102705e-01f, -1.608541757e-01f, 2.002422139e-02f,
         1.732642651e-01f, 2.690935433e-01f, 3.000188470e-01f, 2.773656845e-01f, 2.239890099e-01f, 1.616377383e-01f,
         1.056189165e-01f, 6.301298738e-02f, 3.451839462e-02f, -1.074105268e-03f},
        {3.972735703e-01f, 3.734659255e-01f, 3.073956966e-01f, 2.163489014e-01f, 1.213772446e-01f, 4.062063247e-02f,
         -1.548642106e-02f, -4.526990652e-02f, -5.369691551e-02f, -4.845089093e-02f, -3.723720834e-02f, -2.535208687e-02f,
         -1.559057366e-02f, -8.755534887e-03f, -4.521042109e-03f, 3.637033515e-04f}};
    Vector a[N], stretch[N];
    // The lesser magnitude, without a sign.
    UNROLL for (int i = 0; i < N; i++) a[i] = (Vector)_mm512_range_ps((__m512)x[i], _mm512_set1_ps(3.8749f), 10);
    // Numbers from 2^21 on are multiples of 1/4: the sum's last four bits are the stretch.
    UNROLL for (int i = 0; i < N; i++) stretch[i] = a[i] + 2097152.0f;
    // NaN stays: of two operands of which one is NaN the processor gives the second.
    UNROLL for (int i = 0; i < N; i++)
      x[i] = at_stretch(bump[0], stretch[i]) + (Vector)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x[i]);
    UNROLL for (int i = 0; i < N; i++)
      x[i] = x[i] + a[i] * (at_stretch(bump[1], stretch[i]) + a[i] * at_stretch(bump[2], stretch[i]));
  }

 private:
  static INLINE Vector at_stretch(const float (&table)[16], Vector stretch) {
    return (Vector)_mm512_permutexvar_ps((__m512i)stretch, _mm512_load_ps(table));
  }
};
#endif

template <class T> INLINE Vector sigmoid_times(Vector x, Vector argument) {
  return x * T::inverse(1.0f + T::e(-argument));
}

// -1 for no activation.
template <class T, int N> INLINE void activate(Vector (&x)[N], int kind) {
  if (kind < 0) return;
  if (kind == 0) return T::gelu(x);
  UNROLL for (int i = 0; i < N; i++) switch (kind) {
    case 1: x[i] = sigmoid_times<T>(x[i], x[i] * (1.5957691216057308f + 0.07135481282725878f * x[i] * x[i])); break;
    case 2: x[i] = sigmoid_times<T>(x[i], x[i] * 1.702f); break;
    case 3: x[i] = sigmoid_times<T>(x[i], x[i]); break;
    case 4: x[i] = at_least(x[i], 0.0f); break;
    case 5: x[i] = 1.0f - 2.0f * T::inverse(T::e(x[i] + x[i]) + 1.0f); break;
  }
}

}  // namespace
