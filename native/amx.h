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
/// Everything written so far is in memory before the tile loads that follow.
#define FATHOM_TILE_BARRIER() asm volatile("" ::: "memory")

namespace fathom {
namespace FATHOM_ISA_NS {

/// Palette 1 with all eight tiles at 16 rows of 64 bytes [Intel SDM vol. 1, 18.3]; once per thread.
inline void ensure_tiles() {
  static thread_local bool configured = false;
  if (configured) return;
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  configured = true;
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
#endif
