// Does native/tiles.h keep in memory what tile instructions read there? Prints "ok" or what is missing.
//
// GCC's headers tell the compiler less than the instructions read: 8 of the 64 bytes of a configuration, and nothing at
// all of what a tile is loaded from. So each instruction is one here that declares as little, and copies what it finds.
// It shows on every x86-64, with or without tiles, and with compilers whose headers declare more.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline))
#define COPY "movl $64, %%ecx\n\trep movsb"

constexpr int64_t COLUMNS = 32;

extern "C" {
volatile uint8_t configuration[64];
volatile uint32_t row[16];  // the first of the last tile that was loaded
}

#define _tile_loadconfig(config)                                    \
  __asm__ volatile("leaq %0, %%rsi\n\tmovq %1, %%rdi\n\t" COPY ::"m"(*(const void *const *)(config)), \
                   "r"(configuration) : "rsi", "rdi", "rcx")
#define _tile_loadd(tile, base, stride)                                                                  \
  __asm__ volatile("movq %0, %%rsi\n\tmovq %1, %%rdi\n\t" COPY ::"r"(base), "r"(row), "r"(stride) \
                   : "rsi", "rdi", "rcx")
#define _tile_stream_loadd(tile, base, stride) _tile_loadd(tile, base, stride)
#define _tile_stored(tile, base, stride) (void)(base), (void)(stride)
#define _tile_dpbf16ps(c, a, b) (void)0
#define _tile_zero(tile) (void)0
#define _tile_release() (void)0

#include "tiles.h"

namespace {

// The numbers lie on the stack of a function that nobody else sees: its stores are dead but for what the tiles read.
__attribute__((noinline)) void load(uint32_t begin) {
  uint32_t a[16], panel[16 * COLUMNS], sums[1];
  for (uint32_t i = 0; i < 16; i++) a[i] = panel[i] = panel[16 + i] = begin + i;
  tile_block<false>(DEPTH, a, DEPTH, panel, (float *)sums, COLUMNS);
}

__attribute__((noinline)) void dirty() {
  uint8_t stack[8192];
  memset(stack, 0xa5, sizeof stack);
  __asm__ volatile("" : : "r"(stack) : "memory");
}

}  // namespace

int main() {
  dirty();
  enter_tiles();
  uint8_t want[64] = {1};
  for (int tile = 0; tile < 8; tile++) {
    want[16 + 2 * tile] = 64;  // bytes of a row
    want[48 + tile] = 16;      // rows
  }
  for (int i = 0; i < 64; i++)
    if (configuration[i] != want[i]) return printf("byte %d of the configuration is %d\n", i, configuration[i]), 1;
  dirty();
  load(7);
  for (uint32_t i = 0; i < 16; i++)
    if (row[i] != 7 + i) return printf("word %u of a tile is %x\n", i, row[i]), 1;
  return puts("ok"), 0;
}
