// Products of 16-bit integers. Of a row, and of an output's weights, each number is a multiple of a step of their own;
// products of two are added up in 32 bits, exactly, in half as many multiplications as floats take. No sum overflows,
// whatever the numbers: by Cauchy and Schwarz it is at most the product of both lengths, and steps are so large that
// either length is at most sqrt(2^31). So a row of 384 numbers is wrong by 1.2e-4 of its root mean square, where bfloat16
// is wrong by 1.7e-3; the scores of `small` are 18 times nearer to float32's (LOG.md).
#pragma once

#include <math.h>
#include <stdint.h>

namespace {

// The largest integer, and the largest length of a row of integers: under sqrt(2^31) = 46,341 by more than rounding adds,
// half of sqrt(k).
constexpr float MOST_INTEGER = 32767.0f, MOST_LENGTH = 46000.0f;
// A row that is shorter is nothing: the inverse of its step might be infinite.
constexpr float LEAST_STEP = 1e-35f;

// On tiles an integer is two signed bytes, 256 times the high one and the low one, and of a product of two integers the
// low bytes' is left out: three multiplications of bytes, in half the time of bfloat16 each. Sums of high and of low ones
// are apart, so that no step need be large for them: up to 65,536 products stay within 32 bits. A row of 384 numbers is
// wrong by as much as above, most of it for what is left out.
constexpr float MOST_IN_BYTES = 32639.0f;  // 127 and 127
constexpr int64_t MOST_BYTES = 65536;
// Inputs that tiles read at once, four to a word: of each so many first all high bytes, then all low ones.
constexpr int64_t STEP = 64;
inline int low_byte(int integer) { return (int8_t)integer; }
inline int high_byte(int integer) { return (integer - low_byte(integer)) / 256; }

// A step as it is kept: 0 where all numbers are nothing, NaN where one is not finite, so that a damaged model does not look
// healthy.
inline float kept(float step, float largest, float squares) {
  if (squares != squares || largest > 3.4e38f) return NAN;
  return step < LEAST_STEP ? 0.0f : step;
}

// The step of `n` numbers by the largest magnitude and the sum of squares.
inline float step_of(float largest, float squares, int64_t n) {
  // Squares that leave the range of floats say nothing; the length is under this then.
  const bool told = squares > 1e-30f && squares < 3e38f;
  const float length = told ? sqrtf(squares) : largest * sqrtf((float)n);
  return kept(fmaxf(largest / MOST_INTEGER, length / MOST_LENGTH), largest, squares);
}

// The same for integers that are two bytes each.
inline float step_in_bytes(float largest, float squares) { return kept(largest / MOST_IN_BYTES, largest, squares); }

// What numbers are multiplied by to be integers.
inline float inverse_of(float step) { return step > 0 ? 1.0f / step : 0.0f; }

}  // namespace
