#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>

#include "integers.h"

Aligned::Aligned(int64_t size, Begin begin) : bytes(size) {
  at = static_cast<char *>(::operator new(static_cast<size_t>(size), std::align_val_t(64)));
  if (begin == ZEROS) std::memset(at, 0, static_cast<size_t>(size));
}
Aligned::Aligned(Aligned &&other) noexcept { *this = std::move(other); }
Aligned &Aligned::operator=(Aligned &&other) noexcept {
  std::swap(at, other.at);
  std::swap(bytes, other.bytes);
  return *this;
}
Aligned::~Aligned() { ::operator delete(at, std::align_val_t(64)); }

namespace {

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// Nearest even; NaN stays NaN.
uint32_t bfloat16(float x) {
  uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 64;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// One row of weights into its column, of `columns` that lie side by side; its step where they are integers, else 0.
float pack_row(const float *row, int64_t inputs, uint32_t *panel, int64_t columns, Packing packing) {
  if (packing == FLOATS) {
    for (int64_t i = 0; i < inputs; i++) panel[i * columns] = bits_of(row[i]);
    return 0;
  }
  float largest = 0, squares = 0;
  for (int64_t i = 0; packing != BFLOATS && i < inputs; i++) {
    largest = std::max(largest, std::fabs(row[i]));
    squares += row[i] * row[i];
  }
  const float step = packing == BYTES ? step_in_bytes(largest, squares) : step_of(largest, squares, inputs);
  const float inverse = inverse_of(step);
  if (packing == BYTES) {
    for (int64_t i = 0; i < inputs; i++) {
      const int integer = static_cast<int>(std::lrintf(row[i] * inverse)), shift = i % 4 * 8;
      uint32_t *high = panel + (i / STEP * STEP / 2 + i % STEP / 4) * columns, *low = high + STEP / 4 * columns;
      *high |= (static_cast<uint32_t>(high_byte(integer)) & 0xff) << shift;
      *low |= (static_cast<uint32_t>(low_byte(integer)) & 0xff) << shift;
    }
    return step;
  }
  const auto half = [&](int64_t i) {
    if (i >= inputs) return 0u;
    return packing == BFLOATS ? bfloat16(row[i]) : static_cast<uint32_t>(std::lrintf(row[i] * inverse)) & 0xffffu;
  };
  for (int64_t i = 0; i < inputs; i += 2) panel[i / 2 * columns] = half(i) | half(i + 1) << 16;
  return step;
}

}  // namespace

Packed pack(const crossrank_linear &linear, const Piece &piece, const Kernels &kernels) {
  // AMX reads 32 bfloat16 or 64 integers of the inputs at once; the other tiers 1 or 2.
  const int64_t bytes = kernels.packing == FLOATS ? 4 : 2;
  const int64_t words = (piece.inputs * bytes + 4 * kernels.depth - 1) / (4 * kernels.depth) * kernels.depth;
  const bool gated = piece.gates != 0;
  // A gated panel holds half as many columns of either kind, in groups of `lanes`.
  const int64_t group = gated ? kernels.columns / 2 : kernels.columns;
  const int64_t panels = (piece.outputs + group - 1) / group;
  const int64_t numbers = piece.row ? piece.row : piece.inputs;
  Packed made;
  made.outputs = piece.outputs;
  made.inputs = piece.inputs;
  made.gated = gated;
  made.panels = Aligned(panels * words * kernels.columns * 4);
  made.bias = Aligned(panels * kernels.columns * 4);
  if (kernels.packing == INTEGERS || kernels.packing == BYTES) made.steps = Aligned(panels * kernels.columns * 4);
  auto *to = reinterpret_cast<uint32_t *>(made.panels.at);
  auto *bias = reinterpret_cast<float *>(made.bias.at), *steps = reinterpret_cast<float *>(made.steps.at);
  const auto place = [&](int64_t source, int64_t panel, int64_t column) {
    const int64_t output = panel * kernels.columns + column, side = kernels.side;
    const float step = pack_row(linear.weight + source * numbers + piece.first_input, piece.inputs,
                                to + output / side * side * words + output % side, side, kernels.packing);
    if (steps) steps[output] = step;
    if (linear.bias) bias[output] = linear.bias[source];
  };
  for (int64_t i = 0; i < piece.outputs; i++) {
    place(piece.first + i, i / group, i % group);
    if (gated) place(piece.gates + i, i / group, group + i % group);
  }
  return made;
}

Norm::Norm(const crossrank_norm &norm, int64_t width) {
  if (norm.weight) weight.assign(norm.weight, norm.weight + width);
  if (norm.bias) bias.assign(norm.bias, norm.bias + width);
}
