// One unit's way through the layers, in one thread's buffers.
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
};

struct Pass {
  Pass(Engine &engine, Workspace &workspace, const int32_t *ids, const int32_t *types, const int64_t *offsets,
       Unit unit);
  void run(int32_t output, float *result);

 private:
  void embed();
  void layer(const Layer &layer);
  // The last layer of a model whose first tokens alone are asked for; exact, a seventh less work.
  void last_layer(const Layer &layer);
  void attend(const Layer &layer, int64_t sequence, const Rows &queries, int64_t query_row, int64_t queries_n,
              const Rows &out);
  void rest(const Layer &layer, const Rows &x, const Rows &operands, const Rows &seen, int64_t rows);
  void rotate(const Layer &layer, const Rows &rows, int64_t column, bool first_only);
  void head(float *result);
  void mean(const Rows &to) const;
  void norm(const Norm &norm, const Rows &from, const Rows *floats, const Rows *operands, int64_t rows,
            int64_t width) const;
  void product(const Kernels &kernels, const Packed &weights, const Rows &a, int64_t rows, int epilogue,
               int activation, const Rows &out) const;
  void out_rows(const Rows &from, float *result, int64_t rows, int64_t width) const;

  Engine &e_;
  const Kernels &k_;
  const int32_t *ids_, *types_;
  const int64_t *offsets_;
  const Unit unit_;
  const int64_t begin_, tokens_, n_;
  Rows x_, operands_, queries_, key_value_, inner_;  // of all tokens; `operands_` holds what attention saw as well
  Rows first_, first_operands_, first_seen_;         // of first tokens
  Rows head_in_, head_out_, small_;                  // float32, of the head and of the embeddings
  char *scratch_ = nullptr;
};
