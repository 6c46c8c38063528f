// Products of stored weights with AMX: 16 rows of weights are the left tile, loaded from where they lie, and up to 16
// tokens the right one, which has as many columns as there are tokens.
//
// Tokens: blocks of 16, the last of what is left; a block of c tokens is [K / 32][16 pairs of columns][c][2] BF16, for one
// token the vector itself.
#pragma once

#include "amx.h"
#include "operands.h"
#include "project_int.h"

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

// ---- Weights with scales: a tile of sums for every 128 columns -----------------------------------------------

/// Tiles of 128 columns whose sums are taken together.
constexpr int64_t kTileGroup = 4;
/// Columns of 8-bit weights in a tile.
constexpr int64_t kByteColumns = 64;

/// 128 columns of a band from column k, where they lie or, at an edge, in `edge` [16][128] with zeros.
struct Codes {
  const uint8_t* data;
  int64_t pitch;
};

FATHOM_INLINE Codes tile_codes(const Band& band, int64_t k, uint8_t* edge) {
  const int64_t columns = band.k - k < kTile ? band.k - k : kTile;
  if (band.rows == kRowGrain && columns == kTile) return {band.codes + k, band.pitch};
  std::memset(edge, 0, kRowGrain * kTile);
  for (int64_t r = 0; r < band.rows; ++r) std::memcpy(edge + r * kTile, band.codes + r * band.pitch + k, static_cast<size_t>(columns));
  return {edge, kTile};
}

/// A block of tokens in rows of codes and scales → as the tile unit reads them; see IntBlock.
inline void turn_codes(const IntBlock& block, int64_t k, int64_t count, int8_t* codes, float* scales) {
  for (int64_t at = 0; at < code_pitch(k); at += kByteColumns, codes += kByteColumns * count) {
    i32x16 quads[16];
    for (int64_t t = 0; t < 16; ++t) {
      quads[t] = t < count ? load(reinterpret_cast<const int32_t*>(block.codes + t * code_pitch(k) + at)) : broadcast_int(0);
    }
    transpose16(quads);
    for (int64_t quad = 0; quad < 16; ++quad) store(reinterpret_cast<int32_t*>(codes) + quad * count, quads[quad], count);
  }
  for (int64_t tile = 0; tile < scale_pitch(k); ++tile) {
    for (int64_t t = 0; t < 16; ++t) scales[tile * 16 + t] = t < count ? block.scales[t * scale_pitch(k) + tile] : 0;
  }
}

/// 8-bit weights against more tokens than the vector kernels take: sums [16 rows][16] for each of up to four tiles.
inline void tile_int8_group(const Band& band, const int8_t* x, int64_t count, int64_t tile, int64_t tiles, int32_t (*sums)[256]) {
  alignas(64) uint8_t edge[kRowGrain * kTile];
  for (int64_t i = 0; i < tiles; ++i) {
    const Codes a = tile_codes(band, (tile + i) * kTile, edge);
    const int8_t* b = x + (tile + i) * kTile * count;
    FATHOM_TILE_BARRIER();
    FATHOM_TILE_ZERO(0);
    FATHOM_TILE_LOAD(4, a.data, a.pitch);
    FATHOM_TILE_LOAD(6, b, 4 * count);
    FATHOM_TILE_DP_INT8(0, 4, 6);
    FATHOM_TILE_LOAD(5, a.data + kByteColumns, a.pitch);
    FATHOM_TILE_LOAD(7, b + kByteColumns * count, 4 * count);
    FATHOM_TILE_DP_INT8(0, 5, 7);
    FATHOM_TILE_STORE(0, sums[i], 64);
  }
}

/// sums of tokens (lanes) and 16 rows += integers * scales, tile after tile.
FATHOM_INLINE void add_scaled(const Band& band, const float* token_scales, int64_t tile, int64_t tiles, const int32_t (*parts)[256], f32x16 (&total)[16]) {
  for (int64_t r = 0; r < band.rows; ++r) {
    const uint8_t* scales = band.scales + (r * tiles_of(band.k) + tile) * 4;
    for (int64_t i = 0; i < tiles; ++i) {
      const f32x16 both = scale_at(scales, i) * load(token_scales + (tile + i) * 16);
      total[r] = fma(to_float(load(parts[i] + 16 * r)), both, total[r]);
    }
  }
}

/// A block of tokens, turned by turn_codes, against a band of int8.
inline void tile_band_int8(const Band& band, const IntBlock& block, int64_t count, BandSums sums) {
  configure_tiles(static_cast<int>(count));
  alignas(64) int32_t parts[2][kTileGroup][256];
  f32x16 total[16];
  for (auto& row : total) row = zero();
  const int64_t tiles = tiles_of(band.k);
  const auto size = [&](int64_t tile) { return tiles - tile < kTileGroup ? tiles - tile : kTileGroup; };
  int turn = 0;
  // The sums of one group are added while the next one multiplies.
  tile_int8_group(band, block.codes, count, 0, size(0), parts[0]);
  for (int64_t tile = 0; tile < tiles; tile += kTileGroup, turn ^= 1) {
    const int64_t next = tile + kTileGroup;
    if (next < tiles) tile_int8_group(band, block.codes, count, next, size(next), parts[turn ^ 1]);
    add_scaled(band, block.scales, tile, size(tile), parts[turn], total);
  }
  i32x16 turned[16];
  for (int r = 0; r < 16; ++r) turned[r] = bits_of(total[r]);
  transpose16(turned);
  for (int64_t t = 0; t < count; ++t) store(sums[t], float_of_bits(turned[t]));
}

// ---- FP8 -----------------------------------------------------------------------------------------------------

/// 128 columns of 16 rows widened to four tiles [16][32] of BF16; NaN stays NaN.
inline void widen_tile(const Codes& codes, bf16* to) {
  __m512i largest = _mm512_setzero_si512();
  for (int64_t r = 0; r < kRowGrain; ++r) {
    const uint8_t* row = codes.data + r * codes.pitch;
    for (int64_t i = 0; i < 4; ++i) widen_codes<kE4m3>(to + i * 512 + r * 32, row + 32 * i);
    for (int64_t i = 0; i < 2; ++i) {
      const __m512i magnitude = _mm512_and_si512(_mm512_loadu_si512(row + 64 * i), _mm512_set1_epi8(0x7f));
      largest = _mm512_max_epu8(largest, magnitude);
    }
  }
  if (_mm512_cmpeq_epi8_mask(largest, _mm512_set1_epi8(0x7f)) == 0) return;
  for (int64_t r = 0; r < kRowGrain; ++r) {
    for (int64_t k = 0; k < kTile; ++k) {
      if ((codes.data[r * codes.pitch + k] & 0x7f) == 0x7f) to[k / 32 * 512 + r * 32 + k % 32] = bf16{0x7fc0};
    }
  }
}

/// FP8 weights of one block row against the block of `count` tokens; as for BF16, tile sums scaled and added every 128 columns.
inline void tile_band_fp8(const Band& band, const bf16* x, int64_t count, BandSums sums) {
  configure_tiles(static_cast<int>(count));
  alignas(64) bf16 wide[2][4 * 512];
  alignas(64) float part[2][256];
  alignas(64) float total[256] = {};
  alignas(64) uint8_t edge[kRowGrain * kTile];
  const int64_t tiles = tiles_of(band.k);
  const uint8_t* scales = band.scales + band.first / kTile * tiles * 4;
  const auto add = [&](int64_t tile) {
    const float scale = scale_at(scales, tile);
    const float* from = part[tile % 2];
    for (int64_t i = 0; i < 16 * count; i += 16) store(total + i, fma(load(from + i), scale, load(total + i)));
  };
  widen_tile(tile_codes(band, 0, edge), wide[0]);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const bf16* a = wide[tile % 2];
    const int64_t left = tile_pitch(band.k) - tile * kTile, steps = left < kTile ? left / kTileColumns : 4;
    FATHOM_TILE_BARRIER();
    FATHOM_TILE_ZERO(0);
    for (int64_t step = 0; step < steps; ++step) {
      FATHOM_TILE_LOAD(6, x + (tile * 4 + step) * kTileColumns * count, 4 * count);
      FATHOM_TILE_LOAD(4, a + step * 512, 64);
      FATHOM_TILE_DP(0, 4, 6);
    }
    FATHOM_TILE_STORE(0, part[tile % 2], 4 * count);
    if (tile + 1 < tiles) widen_tile(tile_codes(band, (tile + 1) * kTile, edge), wide[(tile + 1) % 2]);
    if (tile > 0) add(tile - 1);
  }
  add(tiles - 1);
  turn_sums(total, count, sums);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
#endif
