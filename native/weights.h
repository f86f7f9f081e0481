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
  int64_t outputs = 0, inputs = 0;  // outputs as the caller counts them: a gated product has half of its rows
  bool gated = false;
  int64_t bytes() const { return panels.bytes + bias.bytes; }
};

// `outputs` rows of `linear`, from row `first`. Gated: rows 0 .. outputs are activated, the next `outputs` are gates.
Packed pack(const crossrank_linear &linear, int64_t first, int64_t outputs, int64_t inputs, bool gated,
            const Kernels &kernels);

// A norm's own copy; `weight` is empty where there is no norm.
struct Norm {
  std::vector<float> weight, bias;
  Norm() = default;
  Norm(const crossrank_norm &norm, int64_t width);
};
