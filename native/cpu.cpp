#include "cpu.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <cstdint>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Which registers the operating system saves on a context switch.
uint64_t saved_state() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux gives tile registers only to processes that ask.
bool may_use_tiles() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return false;
#endif
}

// Whether tiles have the shape that tiles.h configures, 8 of 16 rows of 64 bytes: to configure another than the
// processor's is an error that ends the process.
bool tiles_fit() {
  uint32_t a, b, c, d;
  if (!__get_cpuid_count(0x1d, 0, &a, &b, &c, &d) || a < 1) return false;  // a: the last palette there is
  return __get_cpuid_count(0x1d, 1, &a, &b, &c, &d) && (b & 0xffff) == 64 && b >> 16 >= 8 && (c & 0xffff) >= 16;
}

bool made_by(uint32_t ebx, uint32_t ecx, uint32_t edx) {
  uint32_t a, b, c, d;
  return __get_cpuid(0, &a, &b, &c, &d) && b == ebx && c == ecx && d == edx;
}

// Intel's vdpbf16ps does twice the products of an FMA in 4.2 times its time (Emerald Rapids, 0.81 and 0.19 ns; in the
// engine bfloat16 is 0.65 to 0.85 times as fast as float32); AMD's takes as long as an FMA.
bool made_by_intel() { return made_by(signature_INTEL_ebx, signature_INTEL_ecx, signature_INTEL_edx); }

// Zen 3 and later multiply integers in two of four pipes and add in all; before, in one of them, which is no faster than
// FMA (by Agner Fog's and uops.info's tables: not measured here).
bool zen3() {
  uint32_t a, b, c, d;
  if (!made_by(signature_AMD_ebx, signature_AMD_ecx, signature_AMD_edx)) return false;
  return __get_cpuid(1, &a, &b, &c, &d) && ((a >> 8) & 0xf) == 0xf && ((a >> 20) & 0xff) >= 0xa;
}

Cpu ask() {
  Cpu found;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool fma = (c >> 12) & 1, osxsave = (c >> 27) & 1, avx = (c >> 28) & 1;
  if (!osxsave || !avx) return found;
  const uint64_t state = saved_state();
  if ((state & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  found.avx2 = fma && ((b >> 5) & 1);
  const bool f = (b >> 16) & 1, dq = (b >> 17) & 1, bw = (b >> 30) & 1, vl = (b >> 31) & 1;
  found.avx512 = found.avx2 && f && dq && bw && vl && (state & 0xe0) == 0xe0;
  const bool tile = (d >> 24) & 1, tile_bf16 = (d >> 22) & 1, tile_int8 = (d >> 25) & 1, vbmi = (c >> 1) & 1;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) a = 0;
  found.avx_vnni = found.avx2 && ((a >> 4) & 1);
  found.fast_integers = found.avx_vnni || (found.avx2 && (made_by_intel() || zen3()));
  found.avx512_bf16 = found.avx512 && ((a >> 5) & 1);
  found.fast_pairs = found.avx512_bf16 && !made_by_intel();
#ifdef CROSSRANK_EMULATE_TILES
  found.amx_bf16 = found.amx_int8 = found.avx512_bf16 && vbmi;
#else
  found.amx_bf16 = found.avx512_bf16 && vbmi && tile && tile_bf16 && (state & 0x60000) == 0x60000 && tiles_fit() &&
                   may_use_tiles();
  found.amx_int8 = found.amx_bf16 && tile_int8;
#endif
  return found;
}

}  // namespace

const Cpu &cpu() {
  static const Cpu found = ask();
  return found;
}

#else

const Cpu &cpu() {
  static const Cpu none;
  return none;
}

#endif
