// One tile of values to codes of a narrow format, with the scale of its largest magnitude.
#pragma once

#include <algorithm>

#include "operands.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Calls body(std::integral_constant<int, F>) for a narrow format.
template <class Body>
void with_narrow(int format, Body&& body) {
  if (format == kE4m3) body(std::integral_constant<int, kE4m3>{});
  else if (format == kE5m2) body(std::integral_constant<int, kE5m2>{});
  else body(std::integral_constant<int, kE5m6>{});
}

/// Bits of the largest magnitude among `count` elements; NaN and infinity order above every number.
template <class Src>
FATHOM_INLINE i32x16 magnitudes(const Src* src, int64_t count) {
  i32x16 largest = broadcast_int(0);
  for (int64_t i = 0; i < count; i += 16) largest = max(largest, bits_of(load(src + i, count - i)) & 0x7fffffff);
  return largest;
}

/// Stores the codes of up to sixteen values.
FATHOM_INLINE void store_bytes(uint8_t* to, i32x16 codes, int64_t count) {
  if (count >= 16) {
    narrow8(to, codes);
    return;
  }
  uint8_t tail[16];
  narrow8(tail, codes);
  std::memcpy(to, tail, static_cast<size_t>(count));
}

/// Stores up to sixteen values divided by their scale in format F: codes as bytes, or for E5M6 values as BF16, times `unscale`.
template <int F>
FATHOM_INLINE void store_rounded(void* codes, int64_t index, f32x16 x, const Divider& divide, float unscale, int64_t n) {
  if constexpr (F == kE5m6) {
    const f32x16 grid = snap<F>(divide(x)) * unscale;
    const i32x16 exact = bits_of(grid) | (bits_of(x) & static_cast<int32_t>(0x80000000));
    auto* to = static_cast<bf16*>(codes) + index;
    if (n >= 16) narrow16(reinterpret_cast<uint16_t*>(to), shift_right(exact, 16));
    else store(to, float_of_bits(exact), n);
    return;
  }
  const i32x16 code = code_byte<F>(divide(abs(x)), bits_of(x));
  if (n >= 16) return narrow8(static_cast<uint8_t*>(codes) + index, code);
  uint8_t tail[16];
  narrow8(tail, code);
  std::memcpy(static_cast<uint8_t*>(codes) + index, tail, static_cast<size_t>(n));
}

/// The tile of a NaN or an infinity: every code NaN.
template <int F>
void store_nan(void* codes, int64_t index, int64_t count) {
  if constexpr (F == kE5m6) std::fill_n(static_cast<bf16*>(codes) + index, count, bf16{0x7fc0});
  else std::memset(static_cast<uint8_t*>(codes) + index, kTraits[F].nan_code, static_cast<size_t>(count));
}

/// One tile of `count` elements, src and codes from `index`. Returns its scale; `fold` multiplies it into the codes.
template <int F, class Src>
FATHOM_INLINE float quantize_tile(const Src* src, int64_t index, int64_t count, const ScaleRule& rule, bool fold, void* codes) {
  constexpr int kVectors = kTile / 16;
  f32x16 x[kVectors];
  i32x16 largest = broadcast_int(0);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    x[v] = count == kTile ? load(src + index + 16 * v) : 16 * v < count ? load(src + index + 16 * v, count - 16 * v) : zero();
    largest = max(largest, bits_of(x[v]) & 0x7fffffff);
  }
  const float scale = rule.scale(largest, F);
  if (scale != scale) {
    store_nan<F>(codes, index, count);
    return scale;
  }
  const Divider divide(scale);
  const float unscale = fold ? scale : 1.0f;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    if (count == kTile) store_rounded<F>(codes, index + 16 * v, x[v], divide, unscale, 16);
    else if (16 * v < count) store_rounded<F>(codes, index + 16 * v, x[v], divide, unscale, count - 16 * v);
  }
  return scale;
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
