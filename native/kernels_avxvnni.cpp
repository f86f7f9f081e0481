// The same with AVX-VNNI: one instruction for both.
#define LANES 8
#define VECTORS 2
#define ROWS 6

#include "tier.h"
#include "integer_product.h"

const Kernels *kernels_avxvnni(int dtype) {
  static const Kernels table = integer_table<Int16>();
  return dtype == 2 ? &table : nullptr;
}
