// What this processor and its operating system let us use.
#pragma once

struct Cpu {
  bool avx2 = false, avx512 = false, avx512_bf16 = false, amx_bf16 = false;
};

// Asked once.
const Cpu &cpu();
