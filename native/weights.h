// A model's weights as the kernels read them: packed once, in panels of outputs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "crossrank.h"
#include "kernels.h"

// Memory that begins on a cache line.
struct Aligned {
  enum Begin { ZEROS, ANYTHING };
  Aligned() = default;
  explicit Aligned(int64_t bytes, Begin begin = ZEROS);
  Aligned(Aligned &&other) noexcept;
  Aligned &operator=(Aligned &&other) noexcept;
  Aligned(const Aligned &) = delete;
  Aligned &operator=(const Aligned &) = delete;
  ~Aligned();
  char *at = nullptr;
  int64_t bytes = 0;
};

// y = x W^T + b, ready for `Kernels::product`.
struct Packed {
  Aligned panels, bias;
  Aligned steps;  // of integers, one an output; empty for other weights
  int64_t outputs = 0, inputs = 0;  // outputs as the caller counts them: a gated product has half of its rows
  bool gated = false;
  int64_t bytes() const { return panels.bytes + bias.bytes + steps.bytes; }
};

// What of a layer is packed: `outputs` rows from row `first` on, of which `inputs` numbers from `first_input` on.
struct Piece {
  int64_t first, outputs, inputs;
  int64_t gates = 0;  // the row of the first gate, `outputs` of them; 0 where nothing is gated
  int64_t first_input = 0;
  int64_t row = 0;    // numbers in a row; 0 for `inputs`
};
Packed pack(const crossrank_linear &linear, const Piece &piece, const Kernels &kernels);

// A norm's own copy; `weight` is empty where there is no norm.
struct Norm {
  std::vector<float> weight, bias;
  Norm() = default;
  Norm(const crossrank_norm &norm, int64_t width);
};
