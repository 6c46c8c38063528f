// AMX tile instructions. Own macros, because GCC 12's intrinsics do not tell the compiler that tile loads read memory.
#pragma once

#include "types.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)
#define FATHOM_AMX 1

#define FATHOM_TILE_ZERO(t) asm volatile("tilezero %%tmm" #t ::)
#define FATHOM_TILE_LOAD(t, base, bytes) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(base), "r"(static_cast<int64_t>(bytes)))
// Streaming hint: the lines do not push what is reused out of L1.
#define FATHOM_TILE_STREAM(t, base, bytes) \
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm" #t ::"r"(base), "r"(static_cast<int64_t>(bytes)))
#define FATHOM_TILE_STORE(t, base, bytes) \
  asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(base), "r"(static_cast<int64_t>(bytes)) : "memory")
// C += A B for 16 x 32 BF16 times 32 x 16 BF16.
#define FATHOM_TILE_DP(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
// C += A B for 16 x 64 times 64 x 16 signed bytes, in 32-bit integers.
#define FATHOM_TILE_DP_INT8(c, a, b) asm volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
/// Everything written so far is in memory before the tile loads that follow.
#define FATHOM_TILE_BARRIER() asm volatile("" ::: "memory")

namespace fathom {
namespace FATHOM_ISA_NS {

/// Sizes of tile registers 0-3, 4-5 and 6-7.
struct TileSizes {
  struct {
    uint8_t rows;
    uint16_t bytes;
  } sums, left, right;
};

/// Gives the tiles their sizes [Intel SDM vol. 1, 18.3], once per thread and change; what they hold is lost then. `key` names the
/// sizes.
inline void configure_tiles(int key, const TileSizes& sizes) {
  static thread_local int configured = 0;
  if (configured == key) return;
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int tile = 0; tile < 8; ++tile) {
    const auto& size = tile < 4 ? sizes.sums : tile < 6 ? sizes.left : sizes.right;
    config.bytes_per_row[tile] = size.bytes;
    config.rows[tile] = size.rows;
  }
  asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  configured = key;
}

/// Left tiles of 16 rows of 64 bytes; sums and right tiles of `columns` dwords, 1 to 16.
inline void configure_tiles(int columns) {
  const auto narrow = static_cast<uint16_t>(4 * columns);
  configure_tiles(columns, {{16, narrow}, {16, 64}, {16, narrow}});
}

/// Left tiles of `rows` rows of 32 bytes, right tiles of 32 by 16 bytes, in rows of four.
inline void configure_half_tiles(int rows) {
  const auto count = static_cast<uint8_t>(rows);
  configure_tiles(16 + rows, {{count, 64}, {count, 32}, {8, 64}});
}

/// All eight tiles at 16 rows of 64 bytes.
inline void ensure_tiles() { configure_tiles(16); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
#endif
