// AMX: what every use of tile registers needs.
#pragma once

#ifdef CROSSRANK_EMULATE_TILES
#include "tiles_emulated.h"
#endif

namespace {

// GCC's headers do not say what tile instructions read: 8 bytes of a configuration's 64 (GCC 12), and nothing of what
// tiles are loaded from. So stores before them would be dead or late: the other 56 bytes were missing in the library,
// and every machine with AMX died of it. To what has been handed out, this is a reader of all memory.
INLINE void settle(const void *handed_out) { __asm__ volatile("" : : "r"(handed_out) : "memory"); }

// Tile registers are state of the thread that other libraries overwrite: configured on the way in, released on the way
// out, or the next use raises SIGILL.
inline void enter_tiles() {
  alignas(64) struct {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  settle(&config);
  _tile_loadconfig(&config);
}
inline void leave_tiles() { _tile_release(); }

}  // namespace
