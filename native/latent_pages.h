// Pages of the latent cache: layout, and slots as numbers. src/tensor/latent-pages.ts describes formats and layout, and
// src/backend/reference/page-codec.ts is the reference.
#pragma once

#include <algorithm>
#include <cmath>

#include "fast_math.h"
#include "formats.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Formats of a cache as JavaScript passes them.
enum CacheFormat : int { kCacheF32 = 0, kCacheBf16 = 1, kCacheFp8 = 2, kCacheLogFmt8 = 3 };

/// Tokens of a page.
constexpr int64_t kPageTokens = 32;

/// Exponents of an fp8 tile's scale; the one above marks a tile that is not finite.
constexpr int kLeastExponent = -100, kMostExponent = 119;

/// One layer's pages.
struct LatentPages {
  uint8_t* data;
  int format;
  int64_t latent, rope;
  int64_t count;  // pages

  int64_t element() const { return format == kCacheF32 ? 4 : format == kCacheBf16 ? 2 : 1; }
  int64_t rope_element() const { return format == kCacheF32 ? 4 : 2; }
  int64_t tile_bytes() const { return format == kCacheFp8 ? 1 : format == kCacheLogFmt8 ? 8 : 0; }
  int64_t tiles() const { return tile_bytes() == 0 ? 0 : (latent + kTile - 1) / kTile; }
  int64_t scales_offset() const { return kPageTokens * latent * element(); }
  int64_t rope_offset() const { return scales_offset() + kPageTokens * tiles() * tile_bytes(); }
  int64_t page_bytes() const { return rope_offset() + kPageTokens * rope * rope_element(); }

  uint8_t* page(int64_t slot) const { return data + slot / kPageTokens * page_bytes(); }
  uint8_t* latents(int64_t slot) const { return page(slot) + slot % kPageTokens * latent * element(); }
  uint8_t* scales(int64_t slot) const { return page(slot) + scales_offset() + slot % kPageTokens * tiles() * tile_bytes(); }
  uint8_t* k_rope(int64_t slot) const { return page(slot) + rope_offset() + slot % kPageTokens * rope * rope_element(); }
};

/// Pages as JavaScript passes them. @throws if the size of `data` is not one of whole pages
LatentPages latent_pages(const Span& data, int format, int64_t latent, int64_t rope, const char* op);

/// latent [d_c] and k_rope [d_h^R] -> slot (latent_pages_ops.cc).
void write_slot(const LatentPages& pages, int64_t slot, const float* latent, const float* k_rope);
void write_slot(const LatentPages& pages, int64_t slot, const bf16* latent, const bf16* k_rope);

/// to = from for a row of numbers; both may lie anywhere.
template <class To, class From>
void convert_row(To* to, const From* from, int64_t count) {
  each16(count, [&](int64_t i, auto n) { store(to + i, load(from + i, n), n); });
}

// ---- Reading ------------------------------------------------------------------------------------------------------

/// Sixteen codes of which `n` exist.
FATHOM_INLINE i32x16 load_codes(const uint8_t* codes, int64_t n) {
  if (n >= 16) return widen8(codes);
  uint8_t sixteen[16] = {};
  std::memcpy(sixteen, codes, static_cast<size_t>(n));
  return widen8(sixteen);
}

template <class T>
void read_fp8_tile(T* out, const uint8_t* codes, uint8_t scale, int64_t count) {
  const f32x16 factor = broadcast(std::ldexp(1.0f, scale - 127));
  each16(count, [&](int64_t i, auto n) { store(out + i, decode<kE4m3>(load_codes(codes + i, n)) * factor, n); });
}

#if defined(__AVX512BW__)
/// E4M3 codes as BF16 in sixteen bits: the magnitude's exponent and mantissa lie together, so that widening is a shift and
/// an addition to the exponent, which takes the scale in too. Subnormal codes come from a table.
FATHOM_INLINE void read_fp8_tile(bf16* out, const uint8_t* codes, uint8_t scale, int64_t count) {
  // The BF16 bits of m/8 · 2^-6. For the others 120 is the difference between the biases of BF16 and E4M3.
  alignas(64) static const uint16_t small[32] = {0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};
  const __m512i table = _mm512_load_si512(small);
  const __m512i bias = _mm512_set1_epi16(static_cast<int16_t>((120 << 7) + (scale - 127) * 128));
  const __m512i by_scale = _mm512_set1_epi16(static_cast<int16_t>((scale - 127) * 128));
  for (int64_t i = 0; i < count; i += 32) {
    const __mmask32 exist = count - i >= 32 ? 0xffffffffu : (1u << (count - i)) - 1;
    const __m512i code = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(exist, codes + i));
    const __m512i magnitude = _mm512_and_si512(code, _mm512_set1_epi16(0x7f));
    const __mmask32 is_small = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(8));
    const __mmask32 is_zero = _mm512_testn_epi16_mask(magnitude, magnitude);
    __m512i value = _mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), bias);
    value = _mm512_mask_add_epi16(value, is_small, _mm512_permutexvar_epi16(magnitude, table), by_scale);
    value = _mm512_mask_mov_epi16(value, is_zero, _mm512_setzero_si512());
    // sign | value: the code's bit 7 moved to bit 15.
    const __m512i sign = _mm512_and_si512(_mm512_slli_epi16(code, 8), _mm512_set1_epi16(static_cast<int16_t>(0x8000)));
    _mm512_mask_storeu_epi16(out + i, exist, _mm512_or_si512(value, sign));
  }
}
#endif

/// e^(min + step (K − 1)) with its sign; FP32 arithmetic in place of the reference's FP64: relative error below 1e-5.
template <class T>
void read_logfmt_tile(T* out, const uint8_t* codes, const uint8_t* header, int64_t count) {
  float min, step;
  std::memcpy(&min, header, 4);
  std::memcpy(&step, header + 4, 4);
  const f32x16 slope = broadcast(step * kLog2E), start = broadcast((min - step) * kLog2E);
  const auto sixteen = [&](int64_t i, int64_t n) {
    const i32x16 code = load_codes(codes + i, n), k = code & 0x7f;
    const f32x16 magnitude = exp2<T>(fma(to_float(k), slope, start));
    const f32x16 value = select(k == broadcast_int(0), zero(), magnitude);
    return float_of_bits(bits_of(value) | shift_left(code & 0x80, 24));
  };
  write_mapped(out, count, sixteen);
}

/// slot -> latent [d_c].
template <class T>
void read_latent(const LatentPages& pages, int64_t slot, T* out) {
  const uint8_t* at = pages.latents(slot);
  if (pages.format == kCacheF32) return convert_row(out, reinterpret_cast<const float*>(at), pages.latent);
  if (pages.format == kCacheBf16) return convert_row(out, reinterpret_cast<const bf16*>(at), pages.latent);
  const uint8_t* scale = pages.scales(slot);
  for (int64_t i = 0; i < pages.latent; i += kTile, scale += pages.tile_bytes()) {
    const int64_t count = std::min(kTile, pages.latent - i);
    if (pages.format == kCacheFp8) read_fp8_tile(out + i, at + i, *scale, count);
    else read_logfmt_tile(out + i, at + i, scale, count);
  }
}

/// slot -> k_rope [d_h^R].
template <class T>
void read_rope(const LatentPages& pages, int64_t slot, T* out) {
  const uint8_t* at = pages.k_rope(slot);
  if (pages.format == kCacheF32) convert_row(out, reinterpret_cast<const float*>(at), pages.rope);
  else convert_row(out, reinterpret_cast<const bf16*>(at), pages.rope);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
