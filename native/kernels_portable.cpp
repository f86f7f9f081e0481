// The tier that any machine runs: four lanes, which the compiler maps to SSE2, NEON or plain code.
#define LANES 4
#define VECTORS 2
#ifdef __aarch64__
#define ROWS 8  // 16 sums of 32 registers
#else
#define ROWS 4  // 8 sums of 16 registers; without FMA each product needs one more
#endif

#include "tier.h"

const Kernels *kernels_portable(int dtype) {
  static const Kernels table = tier_table<Float32>();
  return dtype == 0 ? &table : nullptr;
}
