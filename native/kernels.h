// What a tier offers: a table of functions over packed rows. The engine (engine.cpp) knows models and no instruction;
// a tier knows instructions and no model.
//
// An operand is a number that a matrix product reads: float, or bfloat16 where the tier's dtype is that. Rows of
// operands begin every `stride` numbers; strides are whole cache lines and the numbers past the width are zeros.
// Weights are packed in panels of `columns` outputs, and those in parts of `side`: part[word][column], where a 32-bit
// word holds one float or two neighbouring bfloat16 or integers (integers.h) of the input dimension. BYTES are integers,
// too: of 64 inputs first the high bytes, four to a word, then the low ones.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum Packing { FLOATS = 0, BFLOATS = 1, INTEGERS = 2, BYTES = 3 };
enum Epilogue { STORE = 0, ADD = 1, GATE = 2 };

// out = epilogue(a x panels + bias), `m` rows.
struct Product {
  const void *a;         // operands, (m, k)
  int64_t a_stride;
  const uint32_t *panels;
  const float *bias;     // padded with zeros to whole panels
  const float *steps;    // what the integers of each output are multiples of, padded like `bias`; NULL for other weights
  int64_t m, n, k;       // n: outputs, a multiple of `columns` after padding
  int epilogue;          // STORE: operands to `out`. ADD: floats added to `x`. GATE: activated half times the other
  int activation;        // of crossrank_activation; -1 for none
  void *out;
  int64_t out_stride;
  float *x;
  int64_t x_stride;
  const void *next;      // what to fetch meanwhile: the next product's panels; NULL for nothing
  void *scratch;         // `product_bytes(m, k)`
  bool again;            // `scratch` has these rows in integers already
};

// Rows to mean 0 and variance 1, times weight plus bias.
struct NormRows {
  const float *from;
  int64_t from_stride;
  float *floats;         // NULL, or where floats go (may be `from`)
  int64_t floats_stride;
  void *operands;        // NULL, or where operands go; zeros from `width` to `operands_width`
  int64_t operands_stride, operands_width;
  const float *weight;   // NULL: copy without a norm
  const float *bias;     // NULL: none
  int64_t rows, width;
  float eps;
};

// softmax(queries x keys) x values of one head of one sequence.
struct Attention {
  const void *queries, *keys, *values;  // operands, the head's first column
  int64_t query_stride, key_stride, value_stride;
  int64_t queries_n, n, size;           // queries computed, tokens of the sequence, head size
  int64_t first;                        // position of the first query
  int64_t window;                       // -1 for no limit
  void *out;                            // operands, (queries_n, size)
  int64_t out_stride;
  void *scratch;                        // `attention_bytes(n, size)`
};

// Late interaction of a query with one document.
struct MaxSim {
  const uint32_t *panels;  // the query's vectors, packed as weights
  int64_t tokens, width;   // of the query; numbers in a vector
  const float *vectors;    // of the document, (n, width)
  int64_t n;
};

struct Kernels {
  int element;    // bytes of an operand
  Packing packing;
  int columns;    // outputs in a panel
  int side;       // outputs of a panel that lie side by side: all, or a tile's
  int depth;      // words of the inputs that packing rounds up to
  int unit;       // tokens computed together: activations stay in the second-level cache
  int chunk;      // rows of the inner layer computed together
  int slice;      // units of the inner layer computed together, a multiple of 32
  int grain;      // rows that are loaded at once: two threads divide a unit at its multiples
  void (*product)(const Product *);
  int64_t (*product_bytes)(int64_t m, int64_t k);
  void (*norm)(const NormRows *);
  void (*attend)(const Attention *);
  int64_t (*attention_bytes)(int64_t n, int64_t size);
  // Rotary positions on `heads` heads of one row of operands.
  void (*rotate)(void *row, int64_t heads, int64_t size, const float *cosine, const float *sine);
  // The sum over the query's tokens of the largest product with a token of the document. NULL in bfloat16.
  float (*maxsim)(const MaxSim *);
  // out[i] = in[i], from float16. NULL in bfloat16.
  void (*widen)(const uint16_t *in, float *out, int64_t n);
  // out[i] = a[i] + b[i] + c[i]; b and c may be NULL.
  void (*add)(float *out, const float *a, const float *b, const float *c, int64_t n);
  // Called before and after a thread works for one request: tile registers are state that others overwrite.
  void (*enter)();
  void (*leave)();
};

// NULL where the library was built without the tier, or the tier has no such dtype.
const Kernels *kernels_portable(int dtype);
const Kernels *kernels_avx2(int dtype);
const Kernels *kernels_avx2int16(int dtype);
const Kernels *kernels_avxvnni(int dtype);
const Kernels *kernels_avx512(int dtype);
const Kernels *kernels_avx512bf16(int dtype);
const Kernels *kernels_amx(int dtype);
const Kernels *kernels_amxint16(int dtype);
