// AMX: tiles for the matrix products, AVX-512 for everything else.
#define LANES 16
#define VECTORS 2
#define ROWS 32
#define TILES

#include <immintrin.h>

#include "tier.h"
#include "tile_attention.h"

namespace {

// Heads that do not fill whole steps are computed without tiles: what follows a head's columns is another head. Local
// attention has its own first and last key in each row.
void attend_any(const Attention *p) {
  if (p->size % 32) kernels_avx512bf16(1)->attend(p);
  else if (p->window < 0) attend_tiles(p);
  else attend<Bfloat16>(p);
}

int64_t attention_bytes_any(int64_t n, int64_t size) {
  return size % 32 ? kernels_avx512bf16(1)->attention_bytes(n, size) : attention_bytes<Bfloat16>(n, size);
}

}  // namespace

const Kernels *kernels_amx(int dtype) {
  static const Kernels table = [] {
    // Ten times the arithmetic of AVX-512 on the same caches: more rows for each weight that is read (2 to 5 % less time
    // than 384), and a quarter of a MiniLM's inner layer at a time, because rows of all of it would fill the second-level
    // cache (256 rows and the whole inner layer: a tenth slower).
    Kernels k = tier_table<Bfloat16>(512, 512, 384);
    k.attend = attend_any;
    k.attention_bytes = attention_bytes_any;
    k.enter = enter_tiles;
    k.leave = leave_tiles;
    return k;
  }();
  return dtype == 1 ? &table : nullptr;
}
