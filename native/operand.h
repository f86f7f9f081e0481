// Operands of a tier: float, or bfloat16 with AVX512-BF16. Included after simd.h.
#pragma once

namespace {

// Operands are stored by memcpy, because the products read them as words of 32 bits: to the compiler a float and a word
// are never the same memory.
struct Float32 {
  typedef float Number;
  enum { PER_WORD = 1 };
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
  enum { PER_WORD = 2 };
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

  // Relative error under 8e-5. Nothing below -87 (a denormal would be slow), infinite above 88.
  static INLINE Vector e(Vector x) { return power(most(x, -87.0f) * 1.44269504088896341f); }
  // The same without the clamp: in [-126, 127] / log2(e) it is as good, below it is nothing or a denormal.
  static INLINE Vector e_near(Vector x) { return power(x * 1.44269504088896341f); }
  // Relative error under 7e-5.
  static INLINE Vector inverse(Vector v) { return (Vector)_mm512_rcp14_ps((__m512)v); }
  // x (1/2 + u p(u^2)), u being x within 4.3 of 0: a polynomial fitted for the least largest error for x in [-8, 8],
  // 2.4e-5. With e^x it took 24 instructions instead of 13, as long as the product on tiles behind which it should hide.
  // Several vectors side by side, because each step waits four cycles for the one before it.
  template <int N> static INLINE void gelu(Vector (&x)[N]) {
    Vector u[N], t[N], p[N];
    // The lesser magnitude, with the sign of x.
    UNROLL for (int i = 0; i < N; i++) u[i] = (Vector)_mm512_range_ps((__m512)x[i], _mm512_set1_ps(4.3f), 2);
    UNROLL for (int i = 0; i < N; i++) t[i] = u[i] * u[i];
    UNROLL for (int i = 0; i < N; i++) p[i] = 4.588031825e-11f * t[i] + -4.582540300e-09f;
    const float further[7] = {2.021444795e-07f,  -5.237189959e-06f, 8.974547253e-05f, -1.089099558e-03f,
                              9.762895412e-03f, -6.628616124e-02f, 3.988947946e-01f};
    UNROLL for (int c = 0; c < 7; c++)
      UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * t[i] + further[c];
    UNROLL for (int i = 0; i < N; i++) x[i] = x[i] * (u[i] * p[i] + 0.5f);
  }

 private:
  // Of two operands of which one is NaN the processor gives the second.
  static INLINE Vector most(Vector v, float low) { return (Vector)_mm512_max_ps(_mm512_set1_ps(low), (__m512)v); }
  // 2^x: 2^n times a polynomial on [-1/2, 1/2], fitted for the least largest relative error, 7.5e-5.
  static INLINE Vector power(Vector x) {
    const float magic = 12582912.0f;  // as in `exponential`
    Vector n = (x + magic) - magic, f = x - n;
    Vector p = splat(5.51720674e-02f);
    p = p * f + 2.42611247e-01f;
    p = p * f + 6.93260909e-01f;
    p = p * f + 9.99928077e-01f;
    return (Vector)_mm512_scalef_ps((__m512)p, (__m512)n);
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
