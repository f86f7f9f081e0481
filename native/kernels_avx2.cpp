// AVX2 with FMA: 12 sums, 2 panel vectors and one broadcast fill the 16 registers.
#define LANES 8
#define VECTORS 2
#define ROWS 6

#include "tier.h"

const Kernels *kernels_avx2(int dtype) {
  static const Kernels table = tier_table<Float32>();
  return dtype == 0 ? &table : nullptr;
}
