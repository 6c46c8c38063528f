// Products of stored weights with AMX: 16 rows of weights are the left tile, loaded from where they lie, and up to 16
// tokens the right one, which has as many columns as there are tokens.
//
// Tokens of BF16 and FP8 weights: a block of c tokens is [K / 32][16 pairs of columns][c][2] BF16, for one token the vector itself.
// Those of int8 weights: see IntBlock.
#pragma once

#include "amx.h"
#include "operands.h"
#include "project_int.h"

#if defined(FATHOM_AMX)
namespace fathom {
namespace FATHOM_ISA_NS {

/// Columns of a BF16 tile, and of a tile of bytes.
constexpr int64_t kTileColumns = 32, kByteColumns = 64;

/// BF16 elements of one token.
constexpr int64_t tile_pitch(int64_t k) { return round_up(k, kTileColumns); }

/// Stores the sums of token t and the 16 rows of run position i.
FATHOM_INLINE void put_rows(f32x16 value, const Band& band, int64_t i, float* sums) {
  if (band.spacing == 1) return store(sums, value);
  float lane[16];
  store(lane, value);
  for (int64_t r = 0; r < 16; ++r) sums[r * band.spacing + i] = lane[r];
}

/// C [16 rows][columns], rows `pitch` dwords apart, to the sums of run position i.
FATHOM_INLINE void put_tile(const float* c, int64_t pitch, int64_t columns, const Band& band, int64_t i, BandSums& sums) {
  if (columns == 1) return put_rows(load(c), band, i, sums[0]);
  i32x16 rows[16];
  for (int64_t r = 0; r < 16; ++r) rows[r] = bits_of(load(c + r * pitch, columns));
  transpose16(rows);
  for (int64_t t = 0; t < columns; ++t) put_rows(float_of_bits(rows[t]), band, i, sums[t]);
}

/// `Columns` bytes of the 16 rows of run position i from byte `at` of `bytes`, where they lie, or filled up with zeros in `edge`.
struct Codes {
  const uint8_t* data;
  int64_t pitch;
};

template <int64_t Columns>
FATHOM_INLINE Codes codes_at(const Band& band, int64_t i, int64_t at, int64_t bytes, uint8_t* edge) {
  const int64_t pitch = band.spacing * band.pitch, columns = bytes - at < Columns ? bytes - at : Columns;
  const uint8_t* from = band.codes + i * band.pitch + at;
  if (band.whole() && columns == Columns) return {from, pitch};
  std::memset(edge, 0, kRowGrain * Columns);
  const int64_t rows = band.whole() ? kRowGrain : band.rows;
  for (int64_t r = 0; r < rows; ++r) std::memcpy(edge + r * Columns, from + r * pitch, static_cast<size_t>(columns));
  return {edge, Columns};
}

/// Fetches one line of each of the band's sixteen streams, for later than byte `at` of row i of the runs.
FATHOM_INLINE void fetch_lines(const Band& band, int64_t i, int64_t at) {
  const uint8_t* line = band.codes + i * band.pitch + at + ahead_of(band, kRowGrain, i, at, kFetchAhead);
#pragma GCC unroll 16
  for (int64_t r = 0; r < kRowGrain; ++r) fetch(line + r * band.spacing * band.pitch);
}

// ---- BF16 ----------------------------------------------------------------------------------------------------

/// `count` <= 16 tokens as one block.
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

/// Multiplies the rows of run position i into tile register 0.
FATHOM_INLINE void multiply_bf16(const Band& band, int64_t i, const bf16* x, int64_t count) {
  alignas(64) uint8_t edge[kRowGrain * 64];
  const int64_t whole = band.whole() ? band.k / kTileColumns * kTileColumns : 0, pitch = band.spacing * band.pitch;
  const uint8_t* a = band.codes + i * band.pitch;
  FATHOM_TILE_BARRIER();
  FATHOM_TILE_ZERO(0);
  int64_t k = 0;
  for (; k < whole; k += kTileColumns, x += kTileColumns * count) {
    fetch_lines(band, i, 2 * k);
    FATHOM_TILE_LOAD(6, x, 4 * count);
    FATHOM_TILE_LOAD(4, a + 2 * k, pitch);
    FATHOM_TILE_DP(0, 4, 6);
  }
  for (; k < band.k; k += kTileColumns, x += kTileColumns * count) {
    const Codes part = codes_at<64>(band, i, 2 * k, 2 * band.k, edge);
    FATHOM_TILE_BARRIER();
    FATHOM_TILE_LOAD(6, x, 4 * count);
    FATHOM_TILE_LOAD(4, part.data, part.pitch);
    FATHOM_TILE_DP(0, 4, 6);
  }
}

/// BF16 weights against the block of `count` tokens.
inline void tile_band_bf16(const Band& band, const bf16* x, int64_t count, BandSums& sums) {
  configure_tiles(static_cast<int>(count));
  alignas(64) float c[16 * 16];
  for (int64_t i = 0; i < band.spacing; ++i) {
    multiply_bf16(band, i, x, count);
    FATHOM_TILE_STORE(0, c, 4 * count);
    put_tile(c, count, count, band, i, sums);
  }
}

// ---- int8 ----------------------------------------------------------------------------------------------------

/// Tiles of 128 columns whose sums are taken together.
constexpr int64_t kTileGroup = 4;

/// A block of tokens in rows of codes and scales → as the tile unit reads them; see IntBlock.
inline void turn_codes(const IntBlock& block, int64_t k, int64_t count, int8_t* codes, float* scales) {
  if (count == 1) std::memcpy(codes, block.codes, static_cast<size_t>(code_pitch(k)));
  for (int64_t at = 0; at < code_pitch(k) && count > 1; at += kByteColumns, codes += kByteColumns * count) {
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

/// Integer sums [16 rows][pitch] of up to four tiles of run position i.
FATHOM_INLINE void multiply_int8(const Band& band, int64_t i, const int8_t* x, int64_t count, int64_t tile, int64_t tiles, int64_t pitch,
                                 int32_t (*sums)[256]) {
  alignas(64) uint8_t edge[kRowGrain * kTile];
  for (int64_t part = 0; part < tiles; ++part) {
    const int64_t at = (tile + part) * kTile;
    const bool half = band.k - at <= kByteColumns;
    const Codes a = half ? codes_at<kByteColumns>(band, i, at, band.k, edge) : codes_at<kTile>(band, i, at, band.k, edge);
    const int8_t* b = x + at * count;
    fetch_lines(band, i, at);
    if (!half) fetch_lines(band, i, at + kByteColumns);
    FATHOM_TILE_BARRIER();
    FATHOM_TILE_ZERO(0);
    FATHOM_TILE_LOAD(4, a.data, a.pitch);
    FATHOM_TILE_LOAD(6, b, 4 * count);
    FATHOM_TILE_DP_INT8(0, 4, 6);
    if (!half) {
      FATHOM_TILE_LOAD(5, a.data + kByteColumns, a.pitch);
      FATHOM_TILE_LOAD(7, b + kByteColumns * count, 4 * count);
      FATHOM_TILE_DP_INT8(0, 5, 7);
    }
    FATHOM_TILE_STORE(0, sums[part], 4 * pitch);
  }
}

/// Scales of the 16 rows of run position i: [tile][16 rows] of up to 16 tiles.
FATHOM_INLINE void turn_scales(const Band& band, int64_t i, int64_t tile, int64_t tiles, i32x16 (&scales)[16]) {
  for (int64_t r = 0; r < 16; ++r) {
    const int64_t row = r * band.spacing + i;
    const auto* from = reinterpret_cast<const int32_t*>(band.scales) + row * tiles_of(band.k) + tile;
    scales[r] = row < band.rows ? load(from, tiles) : broadcast_int(0);
  }
  transpose16(scales);
}

/// One token against run position i.
FATHOM_INLINE f32x16 one_token_int8(const Band& band, int64_t i, const IntBlock& block) {
  alignas(64) int32_t parts[2][kTileGroup][256];
  i32x16 scales[16];
  f32x16 total = zero();
  const int64_t tiles = tiles_of(band.k);
  const auto size = [&](int64_t tile) { return tiles - tile < kTileGroup ? tiles - tile : kTileGroup; };
  int turn = 0;
  multiply_int8(band, i, block.codes, 1, 0, size(0), 1, parts[0]);
  for (int64_t tile = 0; tile < tiles; tile += kTileGroup, turn ^= 1) {
    const int64_t next = tile + kTileGroup;
    if (tile % 16 == 0) turn_scales(band, i, tile, tiles - tile < 16 ? tiles - tile : 16, scales);
    if (next < tiles) multiply_int8(band, i, block.codes, 1, next, size(next), 1, parts[turn ^ 1]);
    for (int64_t part = 0; part < size(tile); ++part) {
      const f32x16 both = float_of_bits(scales[(tile + part) % 16]) * block.scales[(tile + part) * 16];
      total = fma(to_float(load(parts[turn][part])), both, total);
    }
  }
  return total;
}

/// sums of tokens (lanes) and 16 rows += integers * scales, tile after tile.
FATHOM_INLINE void add_scaled(const Band& band, int64_t i, const float* token_scales, int64_t tile, int64_t tiles,
                              const int32_t (*parts)[256], f32x16 (&total)[16]) {
  const int64_t rows = band.whole() ? kRowGrain : band.rows;
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* scales = band.scales + ((r * band.spacing + i) * tiles_of(band.k) + tile) * 4;
    for (int64_t part = 0; part < tiles; ++part) {
      const f32x16 both = scale_at(scales, part) * load(token_scales + (tile + part) * 16);
      total[r] = fma(to_float(load(parts[part] + 16 * r)), both, total[r]);
    }
  }
}

/// Several tokens against run position i: the sums of one group of tiles are added while the next one multiplies.
FATHOM_INLINE void some_tokens_int8(const Band& band, int64_t i, const IntBlock& block, int64_t count, f32x16 (&total)[16]) {
  alignas(64) int32_t parts[2][kTileGroup][256];
  for (auto& row : total) row = zero();
  const int64_t tiles = tiles_of(band.k);
  const auto size = [&](int64_t tile) { return tiles - tile < kTileGroup ? tiles - tile : kTileGroup; };
  int turn = 0;
  multiply_int8(band, i, block.codes, count, 0, size(0), 16, parts[0]);
  for (int64_t tile = 0; tile < tiles; tile += kTileGroup, turn ^= 1) {
    const int64_t next = tile + kTileGroup;
    if (next < tiles) multiply_int8(band, i, block.codes, count, next, size(next), 16, parts[turn ^ 1]);
    add_scaled(band, i, block.scales, tile, size(tile), parts[turn], total);
  }
}

/// A block of tokens, turned by turn_codes, against a band of int8.
inline void tile_band_int8(const Band& band, const IntBlock& block, int64_t count, BandSums& sums) {
  configure_tiles(static_cast<int>(count));
  for (int64_t i = 0; i < band.spacing; ++i) {
    if (count == 1) {
      put_rows(one_token_int8(band, i, block), band, i, sums[0]);
      continue;
    }
    f32x16 total[16];
    i32x16 turned[16];
    some_tokens_int8(band, i, block, count, total);
    for (int r = 0; r < 16; ++r) turned[r] = bits_of(total[r]);
    transpose16(turned);
    for (int64_t t = 0; t < count; ++t) put_rows(float_of_bits(turned[t]), band, i, sums[t]);
  }
}

// ---- FP8 -----------------------------------------------------------------------------------------------------

/// Order in which widen64 leaves the eight columns' runs of 64: tokens follow it.
constexpr int kRunOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

/// Tokens for FP8 weights: columns of every 64 in the order of kRunOrder, filled up with zeros to 128.
template <class T>
void prepare_fp8_block(const T* const* x, int64_t count, int64_t k, bf16* to) {
  alignas(64) bf16 line[kTokenBlock][kByteColumns];
  const bf16* rows[kTokenBlock];
  for (int64_t t = 0; t < count; ++t) rows[t] = line[t];
  for (int64_t at = 0; at < round_up(k, kTile); at += kByteColumns, to += kByteColumns * count) {
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t run = 0; run < 8; run += 2) {  // sixteen columns are two runs
        const int64_t from = at + 8 * run, left = k - from;
        alignas(32) bf16 pair[16];
        store(pair, left > 0 ? load(x[t] + from, left) : zero());
        std::memcpy(line[t] + 4 * run, pair, 16);
        std::memcpy(line[t] + 32 + 4 * run, pair + 8, 16);
      }
    }
    prepare_tile_block(rows, count, kByteColumns, to);
  }
}

/// 64 codes of E4M3 to 64 BF16, eight by eight in the order of kRunOrder. Exact; NaN stays NaN.
///
/// A normal code s eeee mmm is, with 120 added to the exponent, the BF16 number of bytes s 0 (eeee + 120) / 2 and e mmm 0000, which are
/// both affine in the bits of the code. Subnormal codes and NaN are rare and put right afterwards.
FATHOM_INLINE void widen64(const uint8_t* codes, bf16* low, bf16* high) {
  const __m512i code = _mm512_loadu_si512(codes);
  const __m512i magnitude = _mm512_and_si512(_mm512_add_epi8(code, _mm512_set1_epi8(1)), _mm512_set1_epi8(0x7f));
  const __mmask64 odd = _mm512_cmple_epu8_mask(magnitude, _mm512_set1_epi8(8));  // 0 … 7 and NaN
  // Row i of the bit matrix gives bit i of the result, counted from the last byte [Intel SDM, GF2P8AFFINEQB].
  const __m512i upper = _mm512_gf2p8affine_epi64_epi8(code, _mm512_set1_epi64(0x1020404040404080), 0x3c);
  const __m512i lower = _mm512_gf2p8affine_epi64_epi8(code, _mm512_set1_epi64(0x0000000001020408), 0);
  __m512i first = _mm512_unpacklo_epi8(lower, upper), second = _mm512_unpackhi_epi8(lower, upper);
  if (__builtin_expect(odd != 0, 0)) {
    alignas(64) bf16 exact[64];
    for (int i = 0; i < 64; i += 16) store(exact + i, decode<kE4m3>(widen8(codes + i)));
    const __m512i low_runs = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13), high_runs = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
    const __m512i a = _mm512_load_si512(exact), b = _mm512_load_si512(exact + 32);
    first = _mm512_permutex2var_epi64(a, low_runs, b);
    second = _mm512_permutex2var_epi64(a, high_runs, b);
  }
  _mm512_store_si512(low, first);
  _mm512_store_si512(high, second);
}

/// 128 columns of 16 rows widened to four tiles [16][32] of BF16.
FATHOM_INLINE void widen_tile(const Codes& codes, bf16* to) {
  for (int64_t r = 0; r < kRowGrain; ++r) {
    const uint8_t* row = codes.data + r * codes.pitch;
    widen64(row, to + r * 32, to + 512 + r * 32);
    widen64(row + 64, to + 1024 + r * 32, to + 1536 + r * 32);
  }
}

/// Sums of 128 columns of FP8 weights at run position i, tile after tile, scaled and added: total [16 rows][count].
FATHOM_INLINE void multiply_fp8(const Band& band, int64_t i, const bf16* x, int64_t count, float* total) {
  alignas(64) bf16 wide[3][4 * 512];
  alignas(64) float part[2][256];
  alignas(64) uint8_t edge[kRowGrain * kTile];
  std::memset(total, 0, static_cast<size_t>(64 * count));
  const int64_t tiles = tiles_of(band.k);
  const uint8_t* scales = band.scales + band.first / kTile * tiles * 4;
  const auto add = [&](int64_t tile) {
    const float scale = scale_at(scales, tile);
    const float* from = part[tile % 2];
    for (int64_t j = 0; j < 16 * count; j += 16) store(total + j, fma(load(from + j), scale, load(total + j)));
  };
  const auto widen = [&](int64_t tile) {
    if (tile >= tiles) return;
    fetch_lines(band, i, tile * kTile);
    fetch_lines(band, i, tile * kTile + 64);
    widen_tile(codes_at<kTile>(band, i, tile * kTile, band.k, edge), wide[tile % 3]);
  };
  // Tile loads wait for stores to reach the cache: what is widened is multiplied two tiles later.
  widen(0);
  widen(1);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const bf16 *a = wide[tile % 3], *b = x + tile * kTile * count;
    widen(tile + 2);
    FATHOM_TILE_BARRIER();
    FATHOM_TILE_ZERO(0);
    for (int64_t step = 0; step < 4; ++step) {
      FATHOM_TILE_LOAD(6, b + step * kTileColumns * count, 4 * count);
      FATHOM_TILE_LOAD(4, a + step * 512, 64);
      FATHOM_TILE_DP(0, 4, 6);
    }
    FATHOM_TILE_STORE(0, part[tile % 2], 4 * count);
    if (tile > 0) add(tile - 1);
  }
  add(tiles - 1);
}

/// FP8 weights within one row of blocks against the block of `count` tokens.
inline void tile_band_fp8(const Band& band, const bf16* x, int64_t count, BandSums& sums) {
  configure_tiles(static_cast<int>(count));
  alignas(64) float total[256];
  for (int64_t i = 0; i < band.spacing; ++i) {
    multiply_fp8(band, i, x, count, total);
    put_tile(total, count, count, band, i, sums);
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
#endif
