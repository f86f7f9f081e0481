// AVX-512 with its bfloat16 dot product: two multiplications a lane and instruction.
#define LANES 16
#define VECTORS 2
#define ROWS 12

#include <immintrin.h>

#include "tier.h"

const Kernels *kernels_avx512bf16(int dtype) {
  static const Kernels table = tier_table<Bfloat16>();
  return dtype == 1 ? &table : nullptr;
}
