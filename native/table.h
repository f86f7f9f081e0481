// The table of one tier. Included last.
#pragma once

#include "kernels.h"

namespace {

inline void nothing() {}
inline int64_t no_bytes(int64_t, int64_t) { return 0; }

// For vectors 256 tokens and slices of 384 are 3 to 7 % faster than 128 and the whole inner layer; 512 are no better.
template <class T> Kernels tier_table(int unit = 256, int chunk = 256, int slice = 384) {
  Kernels k;
  k.element = (int)sizeof(typename T::Number);
  k.packing = T::PER_WORD == 1 ? FLOATS : BFLOATS;
  k.columns = COLUMNS;
  k.side = (int)SIDE;
  k.depth = (int)DEPTH;
  k.unit = unit;
  k.chunk = chunk;
  k.slice = slice;
  k.grain = (int)GRAIN;
  k.product = product<T>;
  k.product_bytes = no_bytes;
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

// The same tier in float32 with products of integers.
template <class T> Kernels integer_table() {
  Kernels k = tier_table<Float32>();
  k.packing = INTEGERS;
  k.product = product<T>;
  k.product_bytes = T::bytes;
  return k;
}

}  // namespace
