// The way of units through the layers, one after the other in one set of buffers.
#pragma once

#include "engine.h"

// Numbers from one row of a buffer to the next.
int64_t stride_of(int64_t width, int64_t element);

struct Rows {
  char *at = nullptr;
  int64_t stride = 0;  // in numbers
  int64_t element = 4;
  char *row(int64_t i) const { return at + i * stride * element; }
  float *floats(int64_t i = 0) const { return reinterpret_cast<float *>(row(i)); }
  Rows from(int64_t i) const { return {row(i), stride, element}; }
};

// A unit in steps and parts. A part is a range of the unit's tokens; in one step all parts may run at once, each on one
// thread, but every part of a step must have ended before one of the next begins: attention reads what all parts wrote.
// A part at work needs a slot: buffers that no other part uses meanwhile. There are `slots` of them.
//
// All steps but the last are of one unit at a time. The last is of all of them: where first tokens alone are asked for,
// most of the last layer is computed for the sequences of all units at once, because for those of one unit all weights
// would be read for a few rows.
struct Pass {
  // Units [first, last), which follow each other; the first unit's turn begins.
  Pass(Engine &engine, Workspace &workspace, const Sequences &sequences, const Unit *first, const Unit *last,
       int64_t parts, int64_t slots, int32_t output, float *result);
  int64_t steps() const;
  void run(int64_t step, int64_t part, int64_t slot);
  // All steps of all units, by one thread.
  void run();

 private:
  // Rows [begin, end) of the unit, and the sequences [first, last) that this part finishes; counted from the unit's
  // first row and from the pass's first sequence.
  struct Part {
    int64_t slot, begin, end, first, last;
  };
  Part part(int64_t number, int64_t slot) const;

  void embed(const Part &p);
  // Queries, keys and values of a layer.
  void project(size_t layer, const Part &p);
  // What follows: attention and the inner layer.
  void finish(size_t layer, const Part &p);
  // The last layer of a model whose first tokens alone are asked for computes no other queries; exact, a seventh less
  // work.
  void project_first(size_t layer, const Part &p);
  void attend_first(size_t layer, const Part &p);
  void finish_first(const Part &p);
  void attend(size_t layer, int64_t sequence, const Rows &queries, int64_t query_row, int64_t first, int64_t queries_n,
              const Rows &out, const Part &p);
  void rest(const Layer &layer, const Rows &x, const Rows &operands, const Rows &seen, int64_t rows, const Part &p,
            const Packed *next = nullptr);
  void rotate(const Layer &layer, const Rows &rows, const Part &p);
  void rotate_row(const Layer &layer, const Rows &rows, int64_t row, int64_t place) const;
  void head(const Part &p);
  void mean(const Part &p) const;
  void give(const Part &p);
  void norm(const Norm &norm, const Rows &from, const Rows *floats, const Rows *operands, int64_t rows,
            int64_t width) const;
  // What a product does with rows that become integers: it makes them; it finds those that the product before made; or it
  // makes them beside, and what was made before stays.
  enum Integers { MADE, FOUND, BESIDE };
  // `next`: weights to fetch meanwhile, the next that will be read.
  void product(const Kernels &kernels, const Packed &weights, const Rows &a, int64_t rows, int epilogue,
               int activation, const Rows &out, const Part &p, const Packed *next = nullptr,
               Integers integers = MADE) const;
  void out_rows(const Rows &from, float *result, int64_t rows, int64_t width) const;
  // A sequence's first row.
  int64_t start(int64_t sequence) const { return offsets_[whole_.first + sequence] - begin_; }
  int64_t sequence_of(int64_t row) const;
  void turn(Unit unit);

  Engine &e_;
  const Kernels &k_;
  const int32_t *ids_, *types_;
  const int64_t *offsets_, *seen_;
  const Unit *const first_unit_, *const last_unit_;
  const Unit whole_;  // the sequences of all units, `n_` of them
  const int64_t n_, parts_;
  const int32_t output_;
  float *const result_;
  const bool all_;  // whether the last layer's every token is asked for
  Unit unit_{};     // whose turn it is
  int64_t begin_ = 0, tokens_ = 0;
  // Of a unit's tokens; `operands_` holds what attention saw as well. Keys and values are two: while one part reads a
  // layer's, another writes the next's.
  Rows x_, operands_, queries_, key_value_[2];
  Rows first_, first_operands_, first_seen_;  // of all first tokens
  Rows head_in_, head_out_, small_;           // float32, of the head and of the embeddings
  Rows inner_;                                // `chunk_` rows a slot
  int64_t chunk_ = 0, product_bytes_ = 0, scratch_bytes_ = 0;
  char *scratch_ = nullptr;  // `scratch_bytes_` a slot: attention's, or twice `product_bytes_`
};
