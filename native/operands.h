// The left operand of a GEMM, brought into the form that the block product reads: 32 rows of BF16 or float.
#pragma once

#include "formats.h"
#include "gemm.h"

namespace fathom {
namespace FATHOM_ISA_NS {

// ---- Checks of arguments ------------------------------------------------------------------------------------

inline void check_format(const char* op, int format) {
  if (format < kF32 || format > kE5m6) fail(op, "unknown format code " + std::to_string(format) + ", known are 0 to 4");
}

inline void check_sizes(const char* op, int64_t rows, int64_t columns) {
  if (rows >= 0 && columns >= 1) return;
  fail(op, "bad size " + std::to_string(rows) + " x " + std::to_string(columns));
}

/// How codes of a format are stored: E5M6 as BF16.
inline DType storage_of(int format) {
  return format == kF32 ? DType::f32 : is_byte(format) ? DType::u8 : DType::bf16;
}

/// Row bounds of groups, which must ascend within [0, M]; null if absent.
inline const int32_t* checked_offsets(const char* op, const Span& offsets, int64_t M) {
  if (!offsets) return nullptr;
  const int32_t* bounds = offsets.as<int32_t>(op, "offsets", 1);
  for (size_t g = 0; g < offsets.length; ++g) {
    if (bounds[g] < (g ? bounds[g - 1] : 0) || bounds[g] > M) {
      fail(op, "offsets[" + std::to_string(g) + "] is " + std::to_string(bounds[g]) + ", must ascend within 0 to " + std::to_string(M));
    }
  }
  return bounds;
}

// ---- Codes to values ----------------------------------------------------------------------------------------

/// The values of up to sixteen stored elements from `index`.
template <int F>
FATHOM_INLINE f32x16 load_codes(const void* codes, int64_t index, int64_t n) {
  if constexpr (F == kF32) return load(static_cast<const float*>(codes) + index, n);
  else if constexpr (!is_byte(F)) return load(static_cast<const bf16*>(codes) + index, n);
  else {
    const auto* bytes = static_cast<const uint8_t*>(codes) + index;
    if (n >= 16) return decode<F>(widen8(bytes));
    uint8_t tail[16] = {};
    std::memcpy(tail, bytes, static_cast<size_t>(n));
    return decode<F>(widen8(tail));
  }
}

/// Calls body(std::integral_constant<int, F>) for every format.
template <class Body>
FATHOM_INLINE void with_format(int format, Body&& body) {
  switch (format) {
    case kF32: return body(std::integral_constant<int, kF32>{});
    case kE4m3: return body(std::integral_constant<int, kE4m3>{});
    case kE5m2: return body(std::integral_constant<int, kE5m2>{});
    default: return body(std::integral_constant<int, kBf16>{});  // E5M6 is stored as BF16
  }
}

/// Widens 32 codes of an 8-bit format to BF16. Finite codes are exact. NaN codes are not kept apart: quantize() gives
/// the tile of a NaN a NaN scale, which reaches the product.
template <int F>
FATHOM_INLINE void widen_codes(bf16* dst, const uint8_t* codes) {
#if defined(__AVX512BW__)
  constexpr FormatTraits t = kTraits[F];
  // Values of the subnormal codes as BF16: 0..7 times 2^-9 (E4M3), 0..3 times 2^-16 (E5M2).
  alignas(64) static constexpr uint16_t kE4m3Small[32] = {0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};
  alignas(64) static constexpr uint16_t kE5m2Small[32] = {0, 0x3780, 0x3800, 0x3840};
  constexpr int shift = 7 - t.mantissa;
  const __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)codes));
  const __m512i placed = _mm512_and_si512(_mm512_slli_epi16(wide, shift), _mm512_set1_epi16((short)(0x8000 | 0x7f << shift)));
  const __mmask32 small = _mm512_testn_epi16_mask(wide, _mm512_set1_epi16(0x7f & ~((1 << t.mantissa) - 1)));
  __m512i value = _mm512_add_epi16(placed, _mm512_set1_epi16((126 + t.min_exponent) << 7));
  value = _mm512_mask_permutexvar_epi16(value, small, wide, _mm512_load_si512(F == kE4m3 ? kE4m3Small : kE5m2Small));
  // value | (placed & 0x8000)
  _mm512_storeu_si512(dst, _mm512_ternarylogic_epi32(value, placed, _mm512_set1_epi16((short)0x8000), 0xf8));
#else
  store(dst, decode<F>(widen8(codes)));
  store(dst + 16, decode<F>(widen8(codes + 16)));
#endif
}

/// The values of 32 codes of an 8-bit format; NaN as in widen_codes.
template <int F>
FATHOM_INLINE void decode_line(const uint8_t* codes, f32x16 (&values)[2]) {
  alignas(64) bf16 line[32];
  widen_codes<F>(line, codes);
  values[0] = load(line);
  values[1] = load(line + 16);
}

FATHOM_INLINE void copy_line(bf16* dst, const bf16* src) { std::memcpy(dst, src, 64); }

/// `rows` rows of `src` (K elements each, `ld` apart) → tiles [ceil(K/32)][2][16][32], zeros beyond rows and K.
/// `copy` turns 32 source elements into 32 BF16.
template <class Src, class Copy>
FATHOM_INLINE void fill_tiles(bf16* tiles, const Src* src, int64_t ld, int64_t rows, int64_t K, const Copy& copy) {
  const int64_t whole = K / 32, rest = K % 32;
  if (rows < kBlock) std::memset(static_cast<void*>(tiles), 0, static_cast<size_t>(round_up(K, 32) * kBlock) * 2);
  for (int64_t r = 0; r < rows; ++r) {
    bf16* dst = tiles + r * 32;
    const Src* row = src + r * ld;
    for (int64_t step = 0; step < whole; ++step) copy(dst + step * 1024, row + step * 32);
    if (rest == 0) continue;
    Src tail[32] = {};
    std::memcpy(static_cast<void*>(tail), row + whole * 32, static_cast<size_t>(rest) * sizeof(Src));
    copy(dst + whole * 1024, tail);
  }
}

/// K columns of up to 32 rows of codes in format `format` (bf16, e4m3, e5m2, e5m6), from element `first`, `ld` apart → tiles.
inline void fill_tiles(bf16* tiles, const void* codes, int format, int64_t first, int64_t ld, int64_t rows, int64_t K) {
  const auto* bytes = static_cast<const uint8_t*>(codes) + first;
  if (format == kE4m3) {
    fill_tiles(tiles, bytes, ld, rows, K, [](bf16* to, const uint8_t* from) { widen_codes<kE4m3>(to, from); });
  } else if (format == kE5m2) {
    fill_tiles(tiles, bytes, ld, rows, K, [](bf16* to, const uint8_t* from) { widen_codes<kE5m2>(to, from); });
  } else {
    fill_tiles(tiles, static_cast<const bf16*>(codes) + first, ld, rows, K, [](bf16* to, const bf16* from) { copy_line(to, from); });
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
