// Products with 4-bit weights in panels of 16 rows: a lane is a row, so that no sums across lanes are needed.
#pragma once

#include "project_int.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Panels of 16 rows that follow each other, `pitch` bytes apart.
struct Panels {
  const uint8_t* data;
  int64_t pitch, k;
};

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
FATHOM_INLINE void q4_step(const Panels& w, const uint8_t* panel, int half, int64_t small, const Q4Tokens& x, __m512 (&total)[P][T]) {
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
      const __m512i both = _mm512_loadu_si512(panel + p * w.pitch + (4 * half + line) * kPanelLine);
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
    const __m512 scale = (__m512)panel_scales(panel + p * w.pitch, half).p[0];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale(t, small / 4)));
      total[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[p][t]), both, total[p][t]);
    }
  }
}

/// P panels against T tokens: sums[p][t][16 rows].
template <int P, int T>
FATHOM_INLINE void q4_panels(const Panels& w, const Q4Tokens& x, float (*sums)[kTokenBlock][kRowGrain]) {
  __m512 total[P][T];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) total[p][t] = _mm512_setzero_ps();
  }
  const uint8_t* panel = w.data;
  for (int64_t small = 0; small * kSmallTile < w.k; small += 2, panel += kPanelBytes) {
    q4_step<P, T>(w, panel, 0, small, x, total);
    q4_step<P, T>(w, panel, 1, small + 1, x, total);
  }
  for (int p = 0; p < P; ++p) {
    for (int t = 0; t < T; ++t) _mm512_storeu_ps(sums[p][x.token + t], total[p][t]);
  }
}

/// Panels that are read side by side: four streams keep memory busy; more tokens leave registers for fewer.
constexpr int64_t kPanelsTogether = 4;

/// Up to kPanelsTogether panels against `count` tokens.
inline void q4_block(const Panels& w, int64_t panels, const IntBlock& block, int64_t count, float (*sums)[kTokenBlock][kRowGrain]) {
  Q4Tokens x{block, w.k, 0};
  const auto one = [&](int64_t p) { return Panels{w.data + p * w.pitch, w.pitch, w.k}; };
  for (; x.token + 8 <= count; x.token += 8) {
    for (int64_t p = 0; p < panels; ++p) q4_panels<1, 8>(one(p), x, sums + p);
  }
  if (x.token + 4 <= count) {
    int64_t p = 0;
    for (; p + 2 <= panels; p += 2) q4_panels<2, 4>(one(p), x, sums + p);
    if (p < panels) q4_panels<1, 4>(one(p), x, sums + p);
    x.token += 4;
  }
  if (x.token + 2 <= count) {
    if (panels == 4) q4_panels<4, 2>(w, x, sums);
    for (int64_t p = 0; p < panels && panels < 4; ++p) q4_panels<1, 2>(one(p), x, sums + p);
    x.token += 2;
  }
  if (x.token < count) {
    if (panels == 4) q4_panels<4, 1>(w, x, sums);
    for (int64_t p = 0; p < panels && panels < 4; ++p) q4_panels<1, 1>(one(p), x, sums + p);
  }
}

#else

constexpr int64_t kPanelsTogether = 1;

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

inline void q4_block(const Panels& w, int64_t, const IntBlock& block, int64_t count, float (*sums)[kTokenBlock][kRowGrain]) {
  const Q4Tokens x{block, w.k, 0};
  for (int64_t t = 0; t < count; ++t) {
    f32x16 total = zero();
    for (int64_t small = 0; small * kSmallTile < w.k; ++small) {
      const uint8_t* panel = w.data + small / 2 * kPanelBytes;
      const int half = small % 2;
      const i32x16 sum = q4_products(panel + 4 * half * kPanelLine, x.codes(t) + small * kSmallTile, x.sum(t, small));
      total = fma(to_float(sum), panel_scales(panel, half) * x.scale(t, small / 4), total);
    }
    store(sums[0][t], total);
  }
}

#endif

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
