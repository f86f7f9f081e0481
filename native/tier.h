// All that a tier is made of, compiled for its instructions. Each kernels_<tier>.cpp includes it after it has defined LANES,
// VECTORS and ROWS, and TILES where it has these.
#pragma once

#include "simd.h"
#include "operand.h"
#include "product.h"
#include "rows.h"
#include "attention.h"
#include "maxsim.h"
#include "table.h"
