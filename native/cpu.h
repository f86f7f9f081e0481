// What this processor and its operating system let us use.
#pragma once

struct Cpu {
  bool avx2 = false, avx512 = false, avx512_bf16 = false, amx_bf16 = false, amx_int8 = false;
  bool avx_vnni = false;
  bool fast_integers = false;  // AVX2 multiplies more 16-bit integers in a second than floats
  bool fast_pairs = false;  // AVX512-BF16 does more products in a second than float32
};

// Asked once.
const Cpu &cpu();
