// The C interface of the native engine. Everything Python knows about it is in this file.
//
// All functions are safe to call from many threads. None keeps a pointer after it returns, except `words`, `places`
// and `types` of `crossrank_model` (the embedding tables), which the caller keeps alive as long as the engine.
// Numbers are float32 and int32 in the machine's byte order; matrices are row-major.
#pragma once

#include <stdint.h>

#ifdef _WIN32
#define CROSSRANK_API __declspec(dllexport)
#else
#define CROSSRANK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Grows with every change of this file. The Python side refuses a library of another number.
#define CROSSRANK_ABI 7

// Instruction sets, weakest first. `portable` is whatever the compiler's baseline is.
enum crossrank_tier { CROSSRANK_PORTABLE = 0, CROSSRANK_AVX2 = 1, CROSSRANK_AVX512 = 2, CROSSRANK_AMX = 3 };
// What matrix products read; softmax, norms and the residual stream are float32 in any, and so is attention with int16,
// where each row and each output's weights are multiples of a step of their own.
enum crossrank_dtype { CROSSRANK_FLOAT32 = 0, CROSSRANK_BFLOAT16 = 1, CROSSRANK_INT16 = 2 };
enum crossrank_activation {
  CROSSRANK_GELU = 0, CROSSRANK_GELU_TANH = 1, CROSSRANK_QUICK_GELU = 2, CROSSRANK_SILU = 3, CROSSRANK_RELU = 4,
  CROSSRANK_TANH = 5
};
enum crossrank_output {
  CROSSRANK_LOGITS = 0,  // (n, labels)
  CROSSRANK_MEAN = 1,    // (n, hidden): the mean over a sequence's tokens
  CROSSRANK_FIRST = 2,   // (n, hidden): its first token
  CROSSRANK_STATES = 3   // (total, hidden): every token
};

// y = x W^T + b, W of (outputs, inputs); no bias where `bias` is NULL.
typedef struct { const float *weight; const float *bias; } crossrank_linear;
// Weight is NULL where there is no norm, bias is NULL where it has none.
typedef struct { const float *weight; const float *bias; } crossrank_norm;

typedef struct {
  crossrank_norm before_attention;  // pre-norm (ModernBERT); NULL in the first layer and in BERT
  crossrank_linear qkv;             // (3 hidden, hidden); the query part carries 1 / sqrt(head size)
  crossrank_linear out;             // (hidden, hidden)
  crossrank_norm after_attention;   // post-norm (BERT), after the residual
  crossrank_norm before_inner;      // pre-norm
  crossrank_linear up;              // (inner, hidden); gated: (2 inner, hidden), the half that is activated first
  crossrank_linear down;            // (hidden, inner)
  crossrank_norm after_inner;       // post-norm
  int32_t window;                   // tokens further apart do not see each other; -1 for no limit
  int32_t rotary;                   // which of the rotary tables; -1 for none
} crossrank_layer;

typedef struct {
  int32_t hidden, heads, inner, layers, labels;
  int32_t vocabulary, width;        // rows and columns of `words`; `width` differs from `hidden` in small ELECTRA
  int32_t positions, kinds;         // rows of `places` and `types`; 0 where there are none
  int32_t padding;                  // RoBERTa: positions count from padding + 1 and skip padding; -1 otherwise
  float eps;
  int32_t activation, gated;
  const float *words, *places, *types;
  crossrank_norm embedding_norm;
  crossrank_linear project;         // (hidden, width), or NULL
  const crossrank_layer *layer;
  crossrank_norm final_norm;
  const float *frequencies[2];      // (head size / 2) each: angle of a position step, or NULL
  crossrank_linear head_dense;      // (hidden, hidden)
  int32_t head_activation, head_by_mean;
  crossrank_norm head_norm;
  crossrank_linear classifier;      // (labels, hidden)
} crossrank_model;

typedef struct crossrank_engine crossrank_engine;

CROSSRANK_API int32_t crossrank_abi(void);
// The compiler and its version, for bug reports.
CROSSRANK_API const char *crossrank_compiler(void);
// Bit `tier` is set where this machine and this library can run the tier.
CROSSRANK_API uint32_t crossrank_tiers(void);
// Whether a tier computes matrix products in a dtype on this machine: 0 no, 1 yes, 2 yes and faster than in float32.
CROSSRANK_API int32_t crossrank_computes(int32_t tier, int32_t dtype);

// Packs the weights. On failure NULL, with the reason in `error`.
CROSSRANK_API crossrank_engine *crossrank_create(const crossrank_model *model, int32_t tier, int32_t dtype,
                                                 char *error, int64_t error_size);
CROSSRANK_API void crossrank_destroy(crossrank_engine *engine);
// Bytes of packed weights.
CROSSRANK_API int64_t crossrank_bytes(const crossrank_engine *engine);

// Sequences `i` of `n` are ids[offsets[i] .. offsets[i + 1]), none empty.
// Attention sees the first `seen[i]` tokens of a sequence, at least one; all where `seen` is NULL. A token that has none of
// them in a layer's window attends to nothing there. At most `threads` threads work on this call, the calling one included.
// 0, or -1 when memory ran out, or -2 when a table has no row for an id, a type or the length of a sequence.
CROSSRANK_API int32_t crossrank_forward(crossrank_engine *engine, const int32_t *ids, const int32_t *types,
                                        const int64_t *offsets, const int64_t *seen, int64_t n, int32_t output,
                                        int32_t threads, float *result);

// Late interaction: scores[i] is the sum, over the `tokens` vectors of `query`, of the largest product with one of
// document i's vectors[offsets[i] .. offsets[i + 1]); -infinity for a document without any, NaN where a product is not
// finite. Vectors are `width` floats; with `half`, those of the documents are float16, compared as float32.
// 0, or -1 when memory ran out or there is no such tier.
CROSSRANK_API int32_t crossrank_maxsim(int32_t tier, const float *query, int64_t tokens, int64_t width,
                                       const void *vectors, int32_t half, const int64_t *offsets, int64_t n,
                                       int32_t threads, float *scores);

// Billions of multiply-adds times two per second that one thread reaches in this tier's matrix product, measured over
// about `seconds` on random numbers that fit in its cache: what `crossrank bench` calls attainable.
CROSSRANK_API double crossrank_peak(int32_t tier, int32_t dtype, double seconds);

// Strings in UTF-8, end to end: string i of n is bytes[offsets[i] .. offsets[i + 1]).
typedef struct { const uint8_t *bytes; const int64_t *offsets; int64_t n; } crossrank_strings;

// What becomes of each character of a text before it is cut into pieces. Texts may be read while more is told.
typedef struct crossrank_characters crossrank_characters;
enum crossrank_character {
  CROSSRANK_UNKNOWN = 0,  // not told yet
  CROSSRANK_NOTHING = 1,  // left out
  CROSSRANK_SPACE = 2,    // ends a word
  CROSSRANK_LETTERS = 3,  // its letters are a part of a word
  CROSSRANK_ALONE = 4     // its letters are a word of their own
};
// NULL when memory ran out.
CROSSRANK_API crossrank_characters *crossrank_characters_create(void);
CROSSRANK_API void crossrank_characters_destroy(crossrank_characters *characters);
// Character codes[i] becomes letters(i) in the way of kinds[i]. Unknown stay those from 0x30000 on, and what becomes more
// than 14 bytes or more characters than it has bytes; known ones stay as they are. 0, or -1 when memory ran out.
CROSSRANK_API int32_t crossrank_characters_tell(crossrank_characters *characters, const crossrank_strings *letters,
                                                const int32_t *codes, const uint8_t *kinds);

// A WordPiece vocabulary.
typedef struct crossrank_wordpiece crossrank_wordpiece;
// Pieces with their ids, none negative; those that go on within a word begin with the one string of `prefix`. A word of
// more than `most` characters, 1 to 256, is `unknown`, as is one that is not made of pieces.
// NULL when memory ran out, or the pieces' hashes are too much alike.
CROSSRANK_API crossrank_wordpiece *crossrank_wordpiece_create(const crossrank_strings *pieces, const int32_t *ids,
                                                              const crossrank_strings *prefix, int32_t unknown,
                                                              int32_t most);
CROSSRANK_API void crossrank_wordpiece_destroy(crossrank_wordpiece *wordpiece);
// The ids of texts, end to end in `ids`, which has room for as many as all texts have bytes; counts[i] is how many text i
// has, or -1 where it has a character that is not known: then it has none in `ids`. Where `spans` is not NULL it has room
// for twice as many, and id k stands for the characters spans[2 * k] ... spans[2 * k + 1] - 1 of its text.
// How many there are in all, or -1 when memory ran out.
CROSSRANK_API int64_t crossrank_wordpiece_encode(const crossrank_wordpiece *wordpiece,
                                                 const crossrank_characters *characters,
                                                 const crossrank_strings *texts, int32_t threads, int32_t *ids,
                                                 int32_t *spans, int64_t *counts);

#ifdef __cplusplus
}
#endif
