// Products of stored weights with AMX: 16 rows of weights are the left tile, loaded from where they lie, and up to 16
// tokens the right one, which has as many columns as there are tokens.
//
// Tokens: blocks of 16, the last of what is left; a block of c tokens is [K / 32][16 pairs of columns][c][2] BF16, for one
// token the vector itself.
#pragma once

#include "amx.h"
#include "gemm.h"
#include "project_dot.h"

#if defined(FATHOM_AMX)
namespace fathom {
namespace FATHOM_ISA_NS {

/// Columns of a BF16 tile.
constexpr int64_t kTileColumns = 32;

/// BF16 elements of one token.
constexpr int64_t tile_pitch(int64_t k) { return round_up(k, kTileColumns); }

/// `count` <= 16 tokens (null: zeros) as one block.
template <class T>
void prepare_tile_block(const T* const* x, int64_t count, int64_t k, bf16* to) {
  for (int64_t at = 0; at < k; at += kTileColumns, to += kTileColumns * count) {
    if (count == 1) {
      store(reinterpret_cast<int32_t*>(to), consecutive_pairs(x[0] + at, k - at));
      continue;
    }
    i32x16 pairs[16];
    for (int64_t t = 0; t < 16; ++t) pairs[t] = t < count ? consecutive_pairs(x[t] + at, k - at) : broadcast_int(0);
    transpose16(pairs);
    for (int64_t pair = 0; pair < 16; ++pair) store(reinterpret_cast<int32_t*>(to) + pair * count, pairs[pair], count);
  }
}

/// C [16][columns] in rows of `columns` dwords → sums[token][16 rows].
FATHOM_INLINE void turn_sums(const float* c, int64_t columns, BandSums sums) {
  if (columns == 1) {
    store(sums[0], load(c));
    return;
  }
  i32x16 rows[16];
  for (int64_t r = 0; r < 16; ++r) rows[r] = bits_of(load(c + r * columns, columns));
  transpose16(rows);
  for (int64_t t = 0; t < columns; ++t) store(sums[t], float_of_bits(rows[t]));
}

/// BF16 weights against the block of `count` tokens.
inline void tile_band_bf16(const Band& band, const bf16* x, int64_t count, BandSums sums) {
  configure_tiles(static_cast<int>(count));
  alignas(64) float c[16 * 16];
  alignas(64) bf16 edge[16 * kTileColumns];
  const int64_t step_bytes = 64 * count, pitch = band.pitch;
  const uint8_t* a = band.codes;
  int64_t k = band.rows == kRowGrain ? band.k / kTileColumns * kTileColumns : 0;
  FATHOM_TILE_BARRIER();
  FATHOM_TILE_ZERO(0);
  const char* b = reinterpret_cast<const char*>(x);
  for (int64_t at = 0; at < k; at += kTileColumns, b += step_bytes) {
    FATHOM_TILE_LOAD(6, b, 4 * count);
    FATHOM_TILE_LOAD(4, a + 2 * at, pitch);
    FATHOM_TILE_DP(0, 4, 6);
  }
  for (; k < band.k; k += kTileColumns, b += step_bytes) {
    std::memset(static_cast<void*>(edge), 0, sizeof(edge));
    const size_t bytes = static_cast<size_t>(2 * (band.k - k < kTileColumns ? band.k - k : kTileColumns));
    for (int64_t r = 0; r < band.rows; ++r) std::memcpy(static_cast<void*>(edge + r * kTileColumns), a + r * pitch + 2 * k, bytes);
    FATHOM_TILE_BARRIER();
    FATHOM_TILE_LOAD(6, b, 4 * count);
    FATHOM_TILE_LOAD(4, edge, 64);
    FATHOM_TILE_DP(0, 4, 6);
  }
  FATHOM_TILE_STORE(0, c, 4 * count);
  turn_sums(c, count, sums);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
#endif
