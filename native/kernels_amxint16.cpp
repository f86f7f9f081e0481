// AMX with products of 16-bit integers, in bytes; all else is AVX-512 in floats.
#define LANES 16
#define VECTORS 2
#define ROWS 12

#include <immintrin.h>

#include "tier.h"
#include "bytes_product.h"

const Kernels *kernels_amxint16(int dtype) {
  static const Kernels table = [] {
    Kernels k = tier_table<Float32>();  // units of 384 and 512 tokens are no faster
    k.attend = attend<Results>;
    k.packing = BYTES;
    k.side = SIDE_BYTES;
    k.depth = STEP_WORDS;
    k.grain = BLOCK;
    k.product = bytes_product;
    k.product_bytes = ByteRows::bytes;
    k.enter = enter_tiles;
    k.leave = leave_tiles;
    return k;
  }();
  return dtype == 2 ? &table : nullptr;
}
