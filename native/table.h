// The table of one tier. Included last.
#pragma once

#include "kernels.h"

namespace {

inline void nothing() {}

template <class T> Kernels tier_table(int unit, int chunk, int slice = 0) {
  Kernels k;
  k.element = (int)sizeof(typename T::Number);
  k.columns = COLUMNS;
  k.side = (int)SIDE;
  k.depth = (int)DEPTH;
  k.unit = unit;
  k.chunk = chunk;
  k.slice = slice;
  k.grain = (int)GRAIN;
  k.product = product<T>;
  k.norm = norm<T>;
  k.attend = attend<T>;
  k.attention_bytes = attention_bytes<T>;
  k.rotate = rotate<T>;
  k.maxsim = maxsim_or_none<T>();
  k.widen = T::PER_WORD == 1 ? widen : nullptr;
  k.add = add;
  k.enter = nothing;
  k.leave = nothing;
  return k;
}

}  // namespace
