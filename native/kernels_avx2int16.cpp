// AVX2 with products of 16-bit integers: an instruction that multiplies 16 of them and one that adds up.
#define LANES 8
#define VECTORS 2
#define ROWS 6

#include "tier.h"
#include "integer_product.h"

const Kernels *kernels_avx2int16(int dtype) {
  static const Kernels table = integer_table<Int16>();
  return dtype == 2 ? &table : nullptr;
}
