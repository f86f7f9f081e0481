// The tile instructions in plain C, so that the AMX tier's arithmetic is tested on machines that have none. Never part
// of an installed library: only tests define CROSSRANK_EMULATE_TILES.
#pragma once

namespace {

struct Tile {
  uint32_t word[16][16];
};
thread_local Tile tile_registers[8];

inline void emulated_zero(int t) { memset(&tile_registers[t], 0, sizeof(Tile)); }
inline void emulated_load(int t, const void *from, int64_t stride) {
  for (int r = 0; r < 16; r++) memcpy(tile_registers[t].word[r], (const char *)from + r * stride, 64);
}
inline void emulated_store(int t, void *to, int64_t stride) {
  for (int r = 0; r < 16; r++) memcpy((char *)to + r * stride, tile_registers[t].word[r], 64);
}
inline float emulated_half(uint32_t word, int high) {
  uint32_t bits = high ? word & 0xffff0000u : word << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline void emulated_multiply(int c, int a, int b) {
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 16; n++) {
      float sum;
      memcpy(&sum, &tile_registers[c].word[m][n], 4);
      for (int k = 0; k < 16; k++)
        for (int high = 0; high < 2; high++)
          sum += emulated_half(tile_registers[a].word[m][k], high) * emulated_half(tile_registers[b].word[k][n], high);
      memcpy(&tile_registers[c].word[m][n], &sum, 4);
    }
}
// Signed bytes, four to a word.
inline void emulated_multiply_bytes(int c, int a, int b) {
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 16; n++)
      for (int k = 0; k < 16; k++)
        for (int byte = 0; byte < 32; byte += 8)
          tile_registers[c].word[m][n] += (uint32_t)((int8_t)(tile_registers[a].word[m][k] >> byte) *
                                                     (int8_t)(tile_registers[b].word[k][n] >> byte));
}

}  // namespace

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_loadconfig
#undef _tile_release
#define _tile_zero(t) emulated_zero(t)
#define _tile_loadd(t, from, stride) emulated_load(t, from, stride)
#define _tile_stream_loadd(t, from, stride) emulated_load(t, from, stride)
#define _tile_stored(t, to, stride) emulated_store(t, to, stride)
#define _tile_dpbf16ps(c, a, b) emulated_multiply(c, a, b)
#define _tile_dpbssd(c, a, b) emulated_multiply_bytes(c, a, b)
#define _tile_loadconfig(config) (void)(config)
#define _tile_release() (void)0
