// Operands of a tier: float, or bfloat16 with AVX512-BF16. Included after simd.h.
#pragma once

namespace {

struct Float32 {
  typedef float Number;
  enum { PER_WORD = 1 };
  static INLINE void put(float *to, Vector v) { store(to, v); }
  static INLINE void put1(float *to, float x) { *to = x; }
  static INLINE float get1(const float *from) { return *from; }
  static INLINE Vector multiply_add(Vector sum, uint32_t a, const uint32_t *b) {
    float x;
    memcpy(&x, &a, 4);
    return sum + x * load((const float *)b);
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
  static INLINE void put1(uint16_t *to, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    // NaN keeps its sign and becomes quiet: rounding could carry it into infinity.
    if ((bits & 0x7fffffffu) > 0x7f800000u) *to = (uint16_t)((bits >> 16) | 64);
    else *to = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
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
};
#endif

}  // namespace
