// Rows of a product on their way to integers. Included after operand.h by the products that read them.
#pragma once

#include "integers.h"

namespace {

// In the scratch of a product come first the rows' steps, then the rows.
inline int64_t steps_bytes(int64_t m) { return (m * 4 + 63) / 64 * 64; }

// What the step of a row depends on, a vector of it at a time.
struct Extent {
  Vector squares{}, most{};
  INLINE void look(Vector v) {
    squares += v * v;
    most = larger(most, larger(v, -v));
  }
};

}  // namespace
