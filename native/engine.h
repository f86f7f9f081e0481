// The forward pass over packed sequences: knows models and no instruction.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "crossrank.h"
#include "kernels.h"
#include "weights.h"

// Some units of the inner layer: what computes them, and what they add.
struct Slice {
  Packed up, down;
};

struct Layer {
  Norm before_attention, after_attention, before_inner, after_inner;
  Packed query, key_value, out;
  std::vector<Slice> inner;
  int64_t window;
  int rotary;
};

// Buffers of one pass at work. They grow to what the largest unit needs, and up to `KEPT` bytes are kept for the next
// call.
struct Workspace {
  Aligned memory;
};

// What is computed: `n` sequences, as `crossrank_forward` takes them.
struct Sequences {
  const int32_t *ids, *types;
  const int64_t *offsets, *seen;
  int64_t n;
};

// Sequences [first, last) that are computed together.
struct Unit {
  int64_t first, last;
};

class Engine {
 public:
  Engine(const crossrank_model &model, const Kernels &kernels, const Kernels &exact);
  ~Engine();
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  // Whether the tables have a row for every token: reading outside them could end the process.
  bool holds(const Sequences &sequences) const;
  // False when memory ran out. The tables hold the sequences.
  bool forward(const Sequences &sequences, int32_t output, int32_t threads, float *result);
  int64_t bytes() const;

 private:
  friend struct Pass;

  bool uneven(const std::vector<Unit> &work, const int64_t *offsets, int64_t n, int threads) const;
  bool together(const Sequences &sequences, int32_t output, int32_t threads, float *result);
  std::vector<Unit> units(const int64_t *offsets, int64_t n, int threads) const;
  // Whether an output needs the last layer's every token, and not the first alone.
  bool every_token(int32_t output) const;
  Workspace *take();
  void give(Workspace *workspace);

  const Kernels &kernels_;  // of the layers
  const Kernels &exact_;    // float32, of the head
  int64_t hidden_, heads_, size_, inner_, slice_, labels_, width_, vocabulary_, rows_of_types_, places_;
  int64_t padding_;
  float eps_;
  int activation_;
  bool gated_;
  const float *words_, *positions_, *kinds_;
  Norm embedding_norm_, final_norm_, head_norm_;
  Packed project_, head_dense_, classifier_;
  int head_activation_;
  bool head_by_mean_;
  std::vector<Layer> layers_;
  std::array<std::vector<float>, 2> cosine_, sine_;  // (positions, size / 2) of each rotary table
  // Slots, not a locked list: a fork may happen at any moment, and a lock held then would stay locked in the child.
  std::array<std::atomic<Workspace *>, 64> spare_;
};
