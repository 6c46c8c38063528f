// Products with 4-bit weights in panels of 16 rows: a lane is a row, so that no sums across lanes are needed.
#pragma once

#include "amx.h"
#include "project_int.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Up to four panel rows, 16 rows each, that are read side by side: best far apart, as many streams keep memory busy.
struct Panels {
  const uint8_t* data[4];
  int64_t count, k;
};
constexpr int64_t kPanelsTogether = 4;

/// Sums of panels.
using PanelSums = float[kPanelsTogether][kTokenBlock][kRowGrain];

constexpr int64_t kPanelColumns = 64, kPanelLine = 64, kPanelScales = 512;

/// The scales of 16 rows for 32 columns: half 0 or 1 of a panel.
FATHOM_INLINE f32x16 panel_scales(const uint8_t* panel, int half) {
  return load(reinterpret_cast<const bf16*>(panel + kPanelScales + 32 * half));
}

/// Tokens as the kernels of q4 see them.
struct Q4Tokens {
  const IntBlock& block;
  int64_t k, token;
  const int8_t* codes(int64_t t) const { return block.codes + (token + t) * code_pitch(k); }
  float scale(int64_t t, int64_t tile) const { return block.scales[(token + t) * scale_pitch(k) + tile]; }
  int32_t sum(int64_t t, int64_t small) const { return block.sums[(token + t) * (code_pitch(k) / kSmallTile) + small]; }
};

#if defined(__AVX512VNNI__)

/// 32 columns of P panels against T tokens: adds to total[p][t], sixteen rows each.
template <int P, int T>
FATHOM_INLINE void q4_step(const uint8_t* const (&panel)[P], int half, int64_t small, const Q4Tokens& x, __m512 (&total)[P][T]) {
  const __m512i low_half = _mm512_set1_epi8(15);
  __m512i sum[P][T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const __m512i offset = _mm512_set1_epi32(x.sum(t, small));
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sum[p][t] = offset;
  }
#pragma GCC unroll 4
  for (int line = 0; line < 4; ++line) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* from = panel[p] + (4 * half + line) * kPanelLine;
      fetch(from + kFetchAheadOfFour);
      const __m512i both = _mm512_loadu_si512(from);
      const __m512i low = _mm512_and_si512(both, low_half), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        int32_t four[2];
        std::memcpy(four, x.codes(t) + small * kSmallTile + 8 * line, 8);
        sum[p][t] = _mm512_dpbusd_epi32(sum[p][t], low, _mm512_set1_epi32(four[0]));
        sum[p][t] = _mm512_dpbusd_epi32(sum[p][t], high, _mm512_set1_epi32(four[1]));
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const __m512 scale = (__m512)panel_scales(panel[p], half).p[0];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale(t, small / 4)));
      total[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[p][t]), both, total[p][t]);
    }
  }
}

/// P panels from `first` against T tokens.
template <int P, int T>
FATHOM_INLINE void q4_panels(const Panels& w, int64_t first, const Q4Tokens& x, PanelSums& sums) {
  __m512 total[P][T];
  const uint8_t* panel[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    panel[p] = w.data[first + p];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) total[p][t] = _mm512_setzero_ps();
  }
  for (int64_t small = 0; small * kSmallTile < w.k; small += 2) {
    q4_step<P, T>(panel, 0, small, x, total);
    q4_step<P, T>(panel, 1, small + 1, x, total);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) panel[p] += kPanelBytes;
  }
  for (int p = 0; p < P; ++p) {
    for (int t = 0; t < T; ++t) _mm512_storeu_ps(sums[first + p][x.token + t], total[p][t]);
  }
}

/// All panels against T tokens, P at a time as far as that goes.
template <int P, int T>
FATHOM_INLINE void q4_tokens(const Panels& w, Q4Tokens& x, PanelSums& sums) {
  int64_t p = 0;
  for (; p + P <= w.count; p += P) q4_panels<P, T>(w, p, x, sums);
  for (; p < w.count; ++p) q4_panels<1, T>(w, p, x, sums);
  x.token += T;
}

/// Panels against a block of tokens. More tokens leave registers for fewer panels.
inline void q4_block(const Panels& w, const IntBlock& block, int64_t count, PanelSums& sums) {
  Q4Tokens x{block, w.k, 0};
  while (x.token + 8 <= count) q4_tokens<1, 8>(w, x, sums);
  if (x.token + 4 <= count) q4_tokens<2, 4>(w, x, sums);
  if (x.token + 2 <= count) q4_tokens<4, 2>(w, x, sums);
  if (x.token < count) q4_tokens<4, 1>(w, x, sums);
}

#else

/// 32 columns of 16 rows against one token's codes: integers [16], the codes' offset of 8 taken away by `offset`.
FATHOM_INLINE i32x16 q4_products(const uint8_t* lines, const int8_t* x, int32_t offset) {
#if defined(__AVX2__)
  __m256i sum[2] = {_mm256_set1_epi32(offset), _mm256_set1_epi32(offset)};
  const __m256i low_half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  for (int line = 0; line < 4; ++line) {
    int32_t four[2];
    std::memcpy(four, x + 8 * line, 8);
    for (int side = 0; side < 2; ++side) {
      const __m256i both = _mm256_loadu_si256((const __m256i*)(lines + line * kPanelLine + 32 * side));
      const __m256i low = _mm256_and_si256(both, low_half), high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
      // At most 2 * 15 * 127 in 16 bits.
      const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, _mm256_set1_epi32(four[0])),
                                             _mm256_maddubs_epi16(high, _mm256_set1_epi32(four[1])));
      sum[side] = _mm256_add_epi32(sum[side], _mm256_madd_epi16(pairs, ones));
    }
  }
  return {{(ni32)sum[0], (ni32)sum[1]}};
#else
  int32_t sum[16];
  for (int r = 0; r < 16; ++r) sum[r] = offset;
  for (int line = 0; line < 4; ++line) {
    for (int i = 0; i < 64; ++i) {
      const uint8_t both = lines[line * kPanelLine + i];
      sum[i / 4] += (both & 15) * x[8 * line + i % 4] + (both >> 4) * x[8 * line + 4 + i % 4];
    }
  }
  return load(sum);
#endif
}

inline void q4_block(const Panels& w, const IntBlock& block, int64_t count, PanelSums& sums) {
  const Q4Tokens x{block, w.k, 0};
  for (int64_t p = 0; p < w.count; ++p) {
    for (int64_t t = 0; t < count; ++t) {
      f32x16 total = zero();
      for (int64_t small = 0; small * kSmallTile < w.k; ++small) {
        const uint8_t* panel = w.data[p] + small / 2 * kPanelBytes;
        const int half = small % 2;
        const i32x16 sum = q4_products(panel + 4 * half * kPanelLine, x.codes(t) + small * kSmallTile, x.sum(t, small));
        total = fma(to_float(sum), panel_scales(panel, half) * x.scale(t, small / 4), total);
      }
      store(sums[p][t], total);
    }
  }
}

#endif

#if defined(FATHOM_AMX)

/// 128 columns (or 64, at an end) of a panel row as right tiles [groups of 32][8 quads of columns][16 rows][4], signed.
FATHOM_INLINE void unpack_q4(const uint8_t* panel, int64_t groups, int8_t* to) {
  const __m512i low_half = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
  for (int64_t group = 0; group < groups; ++group, to += 512) {
    const uint8_t* from = panel + group / 2 * kPanelBytes + group % 2 * 4 * kPanelLine;
#pragma GCC unroll 4
    for (int64_t line = 0; line < 4; ++line) {
      fetch(from + line * kPanelLine + kFetchAheadOfFour);
      const __m512i both = _mm512_loadu_si512(from + line * kPanelLine);
      const __m512i low = _mm512_and_si512(both, low_half), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half);
      _mm512_store_si512(to + 128 * line, _mm512_sub_epi8(low, eight));
      _mm512_store_si512(to + 128 * line + 64, _mm512_sub_epi8(high, eight));
    }
  }
}

/// Panels against a block of more than a few tokens. The tile sums of one step (a panel row, 128 columns) are scaled and added
/// while the next one multiplies.
class Q4Tiles {
 public:
  Q4Tiles(const Panels& w, const IntBlock& block, int64_t count, PanelSums& sums) : w_(w), x_(block), count_(count), sums_(sums) {
    configure_half_tiles(static_cast<int>(count));
    for (int64_t p = 0; p < w.count; ++p) std::memset(sums[p], 0, static_cast<size_t>(count * kRowGrain) * 4);
  }

  /// Tile loads wait for stores to reach the cache, so that what is unpacked is multiplied two steps later.
  void run() {
    const int64_t steps = tiles_of(w_.k) * w_.count;
    for (int64_t step = 0; step < steps + 2; ++step) {
      if (step < steps) unpack_q4(panel(step), groups(step / w_.count), codes_[step % 3]);
      if (step >= 1 && step <= steps) multiply(step - 1);
      if (step >= 2) add(step - 2);
    }
  }

 private:
  int64_t groups(int64_t tile) const {
    const int64_t left = round_up(w_.k, kPanelColumns) - tile * kTile;
    return left < kTile ? left / kSmallTile : 4;
  }
  const uint8_t* panel(int64_t step) const { return w_.data[step % w_.count] + step / w_.count * 2 * kPanelBytes; }

  void multiply(int64_t step) {
    const int64_t tile = step / w_.count, pitch = code_pitch(w_.k);
    FATHOM_TILE_BARRIER();
    for (int64_t group = 0; group < groups(tile); ++group) {
      FATHOM_TILE_ZERO(0);
      FATHOM_TILE_LOAD(4, x_.codes + tile * kTile + group * kSmallTile, pitch);
      FATHOM_TILE_LOAD(6, codes_[step % 3] + group * 512, 64);
      FATHOM_TILE_DP_INT8(0, 4, 6);
      FATHOM_TILE_STORE(0, parts_[step % 2][group], 64);
    }
  }

  void add(int64_t step) {
    const int64_t tile = step / w_.count, p = step % w_.count, count = groups(tile);
    f32x16 scale[4];
    for (int64_t g = 0; g < count; ++g) scale[g] = panel_scales(panel(step) + g / 2 * kPanelBytes, static_cast<int>(g % 2));
    for (int64_t t = 0; t < count_; ++t) {
      const float own = x_.scales[t * scale_pitch(w_.k) + tile];
      f32x16 total = load(sums_[p][t]);
      for (int64_t g = 0; g < count; ++g) total = fma(to_float(load(parts_[step % 2][g] + 16 * t)), scale[g] * own, total);
      store(sums_[p][t], total);
    }
  }

  const Panels& w_;
  const IntBlock& x_;
  const int64_t count_;
  PanelSums& sums_;
  alignas(64) int8_t codes_[3][4 * 512];
  alignas(64) int32_t parts_[2][4][256];
};

#endif

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
