// Does a token outside a query's window stay out of its answer? Prints "ok" or which query saw it. The tier is the
// portable one; all are compiled from the same source.
#include "kernels_portable.cpp"

#include <stdio.h>

namespace {

constexpr int64_t TOKENS = 100, SIZE = 8, WINDOW = 5;

void attend_all(const float *queries, const float *keys, const float *values, float *out, char *scratch) {
  Attention p{};
  p.queries = queries;
  p.keys = keys;
  p.values = values;
  p.query_stride = p.key_stride = p.value_stride = p.out_stride = p.size = SIZE;
  p.queries_n = p.n = TOKENS;
  p.window = WINDOW;
  p.out = out;
  p.scratch = scratch;
  kernels_portable(0)->attend(&p);
}

}  // namespace

int main() {
  static float queries[TOKENS * SIZE], keys[TOKENS * SIZE], values[TOKENS * SIZE], want[TOKENS * SIZE],
      got[TOKENS * SIZE];
  for (int i = 0; i < TOKENS * SIZE; i++) {
    queries[i] = (float)(i * 7 % 13 - 6) / 8;
    keys[i] = (float)(i * 5 % 11 - 5) / 8;
    values[i] = (float)(i * 3 % 17 - 8) / 8;
  }
  alignas(64) static char scratch[1 << 20];
  if (kernels_portable(0)->attention_bytes(TOKENS, SIZE) > (int64_t)sizeof scratch) return puts("too large"), 1;
  attend_all(queries, keys, values, want, scratch);
  for (int token = 0; token < TOKENS; token++) {
    const float before = values[token * SIZE];
    values[token * SIZE] = 1e37f;
    attend_all(queries, keys, values, got, scratch);
    values[token * SIZE] = before;
    for (int query = 0; query < TOKENS; query++)
      if ((query < token - WINDOW || query > token + WINDOW) &&
          memcmp(want + query * SIZE, got + query * SIZE, SIZE * sizeof(float)))
        return printf("query %d sees token %d\n", query, token), 1;
  }
  return puts("ok"), 0;
}
