// Narrow number formats: rounding to their grid, and their codes.
//
// Encoding rounds to nearest, ties to even, and keeps subnormals: the same bits as src/numerics/minifloat.ts and, up to the
// largest value, as PyTorch's float8 casts.
#pragma once

#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Format codes as JavaScript passes them.
enum Format : int { kF32 = 0, kBf16 = 1, kE4m3 = 2, kE5m2 = 3, kE5m6 = 4 };
/// Scale modes as JavaScript passes them: FP32 or power of two, plus kPerTensor for one scale of the whole tensor.
enum ScaleMode : int { kScaleF32 = 0, kScalePow2 = 1, kPerTensor = 2 };

/// Values that share one scale, along the contraction and, for weights, across it [TR §3.3.2].
constexpr int64_t kTile = 128;

/// `mantissa` bits, smallest normal 2^min_exponent, largest finite value, code of NaN.
struct FormatTraits {
  int mantissa, min_exponent;
  float max_finite;
  int nan_code;
};

/// E4M3 and E5M2: OCP 8-bit Floating Point Specification 1.0. E5M6: 5 exponent bits as in E5M2, 6 mantissa bits [TR §3.3.3].
constexpr FormatTraits kTraits[] = {
    {23, -126, 0, 0}, {7, -126, 0, 0}, {3, -6, 448.0f, 0x7f}, {2, -14, 57344.0f, 0x7e}, {6, -14, 65024.0f, 0x7e0}};

constexpr bool is_narrow(int format) { return format >= kE4m3; }
constexpr bool is_byte(int format) { return format == kE4m3 || format == kE5m2; }

constexpr float constexpr_pow2(int exponent) {
  float value = 1;
  for (int i = 0; i < exponent; ++i) value *= 2;
  for (int i = 0; i > exponent; --i) value /= 2;
  return value;
}

FATHOM_INLINE i32x16 is_nan(f32x16 x) { return x != x; }

/// The values of sixteen 8-bit codes.
template <int F>
FATHOM_INLINE f32x16 decode(i32x16 code) {
  constexpr FormatTraits t = kTraits[F];
  const i32x16 magnitude = code & 0x7f;
  const i32x16 normal = shift_left(magnitude + ((126 + t.min_exponent) << t.mantissa), 23 - t.mantissa);
  const f32x16 small = to_float(magnitude) * constexpr_pow2(t.min_exponent - t.mantissa);
  const i32x16 is_small = magnitude < broadcast_int(1 << t.mantissa);
  f32x16 value = select(is_small, small, float_of_bits(normal));
  if constexpr (F == kE4m3) {
    value = select(magnitude == broadcast_int(0x7f), float_of_bits(broadcast_int(0x7fc00000)), value);
  } else {
    // The top exponent is infinity and NaN: widen the exponent field to all ones.
    value = select(magnitude >= broadcast_int(0x7c), float_of_bits(shift_left(magnitude, 21) | 0x7f800000), value);
  }
  return float_of_bits(bits_of(value) | shift_left(code & 0x80, 24));
}

/// `tile_scale` lane by lane.
FATHOM_INLINE f32x16 tile_scales(i32x16 max_bits, int format, int mode) {
  const i32x16 bad = max_bits >= broadcast_int(0x7f800000);
  f32x16 scale = float_of_bits(max_bits) / broadcast(kTraits[format].max_finite);
  if (mode == kScalePow2) scale = float_of_bits((bits_of(scale) + 0x7fffff) & 0x7f800000);
  scale = select(scale == zero(), broadcast(1.0f), scale);
  return select(bad, broadcast(std::numeric_limits<float>::quiet_NaN()), scale);
}

/// Scale of a tile from the bits of its largest magnitude: absMax / max_finite in FP32, 1 if that is zero, NaN if
/// absMax is not finite; kScalePow2 rounds it up to a power of two. As src/numerics/tiles.ts.
FATHOM_INLINE float tile_scale(int32_t max_bits, int format, int mode) {
  if (max_bits >= 0x7f800000) return std::numeric_limits<float>::quiet_NaN();
  float largest;
  std::memcpy(&largest, &max_bits, 4);
  float scale = largest / kTraits[format].max_finite;
  if (scale == 0) return 1;
  if (mode == kScaleF32) return scale;
  uint32_t bits;
  std::memcpy(&bits, &scale, 4);
  bits = (bits + 0x7fffff) & 0x7f800000;  // any mantissa bit carries into the exponent
  std::memcpy(&scale, &bits, 4);
  return scale;
}

/// Where scales come from: kScaleF32 or kScalePow2, and the bits of the largest magnitude that all tiles share, or -1 where
/// each tile has its own.
struct ScaleRule {
  int mode;
  int32_t shared = -1;

  FATHOM_INLINE float scale(i32x16 largest, int format) const { return tile_scale(shared >= 0 ? shared : hmax(largest), format, mode); }
  FATHOM_INLINE f32x16 scales(i32x16 largest, int format) const {
    return tile_scales(shared >= 0 ? broadcast_int(shared) : largest, format, mode);
  }
};

/// A quotient rounded to the grid of F, for |x| up to max_finite and what rounds to it, which is all that division by a tile's
/// scale gives. Adding 1.5 * 2^(23 - mantissa) times the binade, which is not below the smallest normal one, leaves whole
/// spacings. Zero loses its sign; NaN stays NaN.
template <int F>
FATHOM_INLINE f32x16 snap(f32x16 x) {
  constexpr FormatTraits t = kTraits[F];
  const i32x16 binade = max(bits_of(x) & 0x7f800000, broadcast_int((127 + t.min_exponent) << 23));
  const f32x16 shift = float_of_bits(binade + (((23 - t.mantissa) << 23) | 0x400000));
  return (x + shift) - shift;
}

/// The 8-bit code of a quotient in the low byte of each lane, from its magnitude and from bits with its sign; the other bytes
/// are anything. As snap(), with the codes' offset in the mantissa of the shift: neighbouring codes differ by one across
/// binades too, so that a code is the number of spacings plus the binade, and everything above the byte falls away.
template <int F>
FATHOM_INLINE i32x16 code_byte(f32x16 magnitude, i32x16 sign) {
  constexpr FormatTraits t = kTraits[F];
  constexpr int offset = -((127 + t.min_exponent) << t.mantissa) & 0xff;
  const i32x16 binade = max(bits_of(magnitude) & 0x7f800000, broadcast_int((127 + t.min_exponent) << 23));
  const f32x16 shift = float_of_bits(binade + (((23 - t.mantissa) << 23) | 0x400000 | offset));
  const i32x16 code = bits_of(magnitude + shift) + shift_right(binade, 23 - t.mantissa);
  return code | (shift_right(sign, 24) & 0x80);
}

/// Divides by scales, without the divide unit where that is possible.
///
/// q = x r with r = 1 / scale is within 1.5 ulp; q + r (x - scale q), the remainder exact in one FMA, is the correctly
/// rounded quotient (Markstein, IBM J. R&D 34, 1990; compared with VDIVPS on 1.9e8 random pairs) as long as nothing
/// underflows. Remainders are about 2^-24 x, so for scales of 2^-80 and more those below the smallest subnormal
/// belong to quotients under 2^-40, which every format rounds to zero anyway.
class Divider {
 public:
  explicit FATHOM_INLINE Divider(float scale) : scale_(broadcast(scale)), inverse_(broadcast(1.0f / scale)) {
    // A quotient reaches 65024 < 2^16: scales up to 2^100 cannot overflow it.
    fast_ = scale >= 0x1p-80f && scale <= 0x1p100f;
  }
  /// One scale per lane.
  explicit FATHOM_INLINE Divider(f32x16 scale) : scale_(scale), inverse_(1.0f / scale) {
    fast_ = hmin(scale) >= 0x1p-80f && hmax(scale) <= 0x1p100f && hmax(is_nan(scale) & 1) == 0;
  }

  FATHOM_INLINE f32x16 operator()(f32x16 x) const {
#if defined(__FMA__) || defined(__AVX512F__)
    if (fast_) {
      const f32x16 q = x * inverse_;
      return fma(fma(-scale_, q, x), inverse_, q);
    }
#endif
    return x / scale_;
  }

 private:
  f32x16 scale_, inverse_;
  bool fast_;
};

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
