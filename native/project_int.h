// Tokens quantised to 8 bits, and products with weights of 8 bits.
//
// Products are summed exactly in integers over 128 columns (q4: 32), so that any instruction and any grouping gives the same;
// then sum = fma(float(integer), weight scale * token scale, sum), columns ascending. That fixes the bits of a value.
#pragma once

#include "gemm.h"
#include "project_dot.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Columns that share a scale of q4.
constexpr int64_t kSmallTile = 32;

constexpr int64_t tiles_of(int64_t k) { return (k + kTile - 1) / kTile; }
/// Scales of a token, so that four can be read from any multiple of four.
constexpr int64_t scale_pitch(int64_t k) { return round_up(tiles_of(k), 4); }
/// Codes of a token.
constexpr int64_t code_pitch(int64_t k) { return round_up(k, kTile); }

/// A block of quantised tokens.
struct IntBlock {
  int8_t* codes;    // [count][code_pitch], zeros beyond k; or for the tile unit [code_pitch / 64][16 quads of columns][count][4]
  float* scales;    // [16][scale_pitch]; or for the tile unit [scale_pitch][16]
  int32_t* sums;    // int8: -128 times the sum of the codes [16][scale_pitch] of 128 columns; q4: -8 times that of 32 [16][code_pitch / 32]
};

inline int64_t int_block_bytes(int64_t k, int64_t count) {
  return round_up(count * code_pitch(k), 64) + kTokenBlock * scale_pitch(k) * 4 + kTokenBlock * code_pitch(k) / kSmallTile * 4;
}

inline IntBlock int_block(const uint8_t* block, int64_t k, int64_t count) {
  auto* at = const_cast<uint8_t*>(block);
  auto* scales = reinterpret_cast<float*>(at + round_up(count * code_pitch(k), 64));
  return {reinterpret_cast<int8_t*>(at), scales, reinterpret_cast<int32_t*>(scales + kTokenBlock * scale_pitch(k))};
}

/// Up to 128 values to codes -127 … 127, zeros after them; returns the scale. `sums` receives the sums of 32 codes each.
template <class T>
float quantize_codes(const T* x, int64_t count, int8_t* codes, int32_t (&sums)[4]) {
  f32x16 value[8];
  i32x16 largest = broadcast_int(0);
  for (int v = 0; v < 8; ++v) {
    value[v] = 16 * v < count ? load(x + 16 * v, count - 16 * v) : zero();
    largest = max(largest, bits_of(value[v]) & 0x7fffffff);
  }
  const int32_t bits = hmax(largest);
  float magnitude;
  std::memcpy(&magnitude, &bits, 4);
  const bool finite = bits < 0x7f800000;
  const float quotient = magnitude / 127.0f;
  const float scale = !finite ? std::numeric_limits<float>::quiet_NaN() : quotient == 0 ? 1.0f : quotient;
  const Divider divide(finite ? scale : 1.0f);
  for (int v = 0; v < 8; ++v) {
    const f32x16 code = finite ? round_small(divide(value[v])) : zero();
    narrow8(reinterpret_cast<uint8_t*>(codes) + 16 * v, to_int(code));
    sums[v / 2] = (v % 2 ? sums[v / 2] : 0) + static_cast<int32_t>(hsum(code));
  }
  return scale;
}

/// Token t of a block in rows of codes; `small` asks for q4's sums.
template <class T>
void prepare_codes(const T* x, int64_t k, int64_t t, bool small, const IntBlock& block) {
  const int64_t pitch = scale_pitch(k), small_pitch = code_pitch(k) / kSmallTile;
  for (int64_t tile = 0; tile < tiles_of(k); ++tile) {
    int32_t sums[4];
    const int64_t at = tile * kTile, count = k - at < kTile ? k - at : kTile;
    block.scales[t * pitch + tile] = quantize_codes(x + at, count, block.codes + t * code_pitch(k) + at, sums);
    if (!small) block.sums[t * pitch + tile] = -128 * (sums[0] + sums[1] + sums[2] + sums[3]);
    for (int i = 0; i < 4 && small; ++i) block.sums[t * small_pitch + 4 * tile + i] = -8 * sums[i];
  }
  for (int64_t tile = tiles_of(k); tile < pitch; ++tile) block.scales[t * pitch + tile] = 0;
}

#if defined(__AVX512VNNI__)

/// Sums of the sixteen lanes of sixteen vectors: lane i is the sum of vector i.
FATHOM_INLINE __m512i lane_sums(const __m512i (&v)[16]) {
  __m512i a[8], b[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
  }
  const __m512i low = _mm512_add_epi32(_mm512_shuffle_i32x4(b[0], b[1], 0x44), _mm512_shuffle_i32x4(b[0], b[1], 0xee));
  const __m512i high = _mm512_add_epi32(_mm512_shuffle_i32x4(b[2], b[3], 0x44), _mm512_shuffle_i32x4(b[2], b[3], 0xee));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
}

/// 64 codes as unsigned bytes, 128 added; the first `n` of them exist.
FATHOM_INLINE __m512i offset_codes(const uint8_t* codes, int64_t n) {
  const __m512i bytes = n >= 64 ? _mm512_loadu_si512(codes) : _mm512_maskz_loadu_epi8(n <= 0 ? 0 : (uint64_t{1} << n) - 1, codes);
  return _mm512_xor_si512(bytes, _mm512_set1_epi8(static_cast<char>(0x80)));
}

/// Four rows (which may be the same) against T tokens.
template <int T>
class Int8Rows {
 public:
  Int8Rows(const Band& band, const int64_t (&rows)[4], int64_t i, const IntBlock& block, int64_t token)
      : band_(band), i_(i), k_(band.k), block_(block), token_(token) {
    for (int64_t r = 0; r < 4; ++r) {
      codes_[r] = band.codes + rows[r] * band.pitch;
      scales_[r] = band.scales + rows[r] * tiles_of(k_) * 4;
    }
  }

  /// Sums of the four rows, per token.
  FATHOM_INLINE void run(__m128 (&total)[T]) {
    for (int t = 0; t < T; ++t) total[t] = _mm_setzero_ps();
    const int64_t tiles = tiles_of(k_);
    for (int64_t tile = 0; tile < tiles; tile += 4) {
      const int64_t count = tiles - tile < 4 ? tiles - tile : 4;
      for (int64_t i = 0; i < count; ++i) multiply(tile + i, i);
      finish(tile, count, total);
    }
  }

 private:
  /// Products of one tile, lanes not yet summed, to part_[t][i * 4 + row].
  FATHOM_INLINE void multiply(int64_t tile, int64_t i) {
    __m512i sum[4][T], x[2][T];
    const int64_t at = tile * kTile, left = k_ - at, ahead = ahead_of(band_, 4, i_, at, kFetchAheadOfFour);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const int8_t* token = block_.codes + (token_ + t) * code_pitch(k_) + at;
      x[0][t] = _mm512_loadu_si512(token);
      x[1][t] = _mm512_loadu_si512(token + 64);
      const int32_t offset = block_.sums[(token_ + t) * scale_pitch(k_) + tile];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) sum[r][t] = _mm512_zextsi128_si512(_mm_cvtsi32_si128(offset));
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const uint8_t* codes = codes_[r] + at + 64 * half;
        fetch(codes + ahead);
        const __m512i w = offset_codes(codes, left - 64 * half);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) sum[r][t] = _mm512_dpbusd_epi32(sum[r][t], w, x[half][t]);
      }
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) part_[t][i * 4 + r] = sum[r][t];
    }
  }

  /// Adds up to four tiles to the totals of the four rows.
  FATHOM_INLINE void finish(int64_t tile, int64_t count, __m128 (&total)[T]) {
    const __mmask8 some = static_cast<__mmask8>((1 << count) - 1);
    __m512 scale = _mm512_castps128_ps512(_mm_maskz_loadu_ps(some, scales_[0] + 4 * tile));
    scale = _mm512_insertf32x4(scale, _mm_maskz_loadu_ps(some, scales_[1] + 4 * tile), 1);
    scale = _mm512_insertf32x4(scale, _mm_maskz_loadu_ps(some, scales_[2] + 4 * tile), 2);
    scale = _mm512_insertf32x4(scale, _mm_maskz_loadu_ps(some, scales_[3] + 4 * tile), 3);
    scale = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), scale);  // [tile][row]
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const __m512 sums = _mm512_cvtepi32_ps(lane_sums(part_[t]));
      const __m512 own = _mm512_castps128_ps512(_mm_loadu_ps(block_.scales + (token_ + t) * scale_pitch(k_) + tile));
      const __m512 spread = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), own);
      const __m512 both = _mm512_mul_ps(scale, spread);
      total[t] = _mm_fmadd_ps(_mm512_castps512_ps128(sums), _mm512_castps512_ps128(both), total[t]);
      if (count > 1) total[t] = _mm_fmadd_ps(_mm512_extractf32x4_ps(sums, 1), _mm512_extractf32x4_ps(both, 1), total[t]);
      if (count > 2) total[t] = _mm_fmadd_ps(_mm512_extractf32x4_ps(sums, 2), _mm512_extractf32x4_ps(both, 2), total[t]);
      if (count > 3) total[t] = _mm_fmadd_ps(_mm512_extractf32x4_ps(sums, 3), _mm512_extractf32x4_ps(both, 3), total[t]);
    }
  }

  const Band& band_;
  const int64_t i_, k_;
  const IntBlock& block_;
  const int64_t token_;
  const uint8_t *codes_[4], *scales_[4];
  __m512i part_[T][16];
};

template <int T>
FATHOM_INLINE void int8_rows(const Band& band, const IntBlock& block, int64_t token, BandSums& sums) {
  four_streams(band, [&](const int64_t(&rows)[4], int64_t i) {
    __m128 total[T];
    Int8Rows<T>(band, rows, i, block, token).run(total);
    for (int t = 0; t < T; ++t) {
      alignas(16) float four[4];
      _mm_store_ps(four, total[t]);
      for (int r = 0; r < 4; ++r) sums[token + t][rows[r]] = four[r];
    }
  });
}

/// `count` tokens against a band.
inline void int8_band(const Band& band, const IntBlock& block, int64_t count, BandSums& sums) {
  int64_t t = 0;
  for (; t + 4 <= count; t += 4) int8_rows<4>(band, block, t, sums);
  if (t + 2 <= count) int8_rows<2>(band, block, t, sums), t += 2;
  if (t < count) int8_rows<1>(band, block, t, sums);
}

#else

/// Sum of `count` products of codes.
FATHOM_INLINE int32_t dot_codes(const int8_t* a, const int8_t* b, int64_t count) {
  int32_t sum = 0;
  int64_t i = 0;
#if defined(__AVX2__)
  __m256i lanes = _mm256_setzero_si256();
  for (; i + 16 <= count; i += 16) {
    const __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(a + i)));
    const __m256i y = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(b + i)));
    lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(x, y));
  }
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  sum = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
#endif
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

inline float fused(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

inline void int8_band(const Band& band, const IntBlock& block, int64_t count, BandSums& sums) {
  for (int64_t row = 0; row < band.rows; ++row) {
    const auto* codes = reinterpret_cast<const int8_t*>(band.codes + row * band.pitch);
    for (int64_t t = 0; t < count; ++t) {
      float total = 0;
      for (int64_t tile = 0; tile < tiles_of(band.k); ++tile) {
        const int64_t at = tile * kTile, columns = band.k - at < kTile ? band.k - at : kTile;
        const int32_t sum = dot_codes(codes + at, block.codes + t * code_pitch(band.k) + at, columns);
        const float scale = scale_at(band.scales, row * tiles_of(band.k) + tile) * block.scales[t * scale_pitch(band.k) + tile];
        total = fused(static_cast<float>(sum), scale, total);
      }
      sums[t][row] = total;
    }
  }
}

#endif

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
