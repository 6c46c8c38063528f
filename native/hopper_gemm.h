// The FP8 tensor core of Hopper, emulated: src/numerics/accumulate.ts defines it, and these are its bits.
//
// 32 products at a time are shifted to the largest exponent E among them and cut off after 13 fraction bits, i.e. to
// multiples of 2^(E-13); their exact sum is added to a register of 14 significant bits, what is beyond being cut off
// [TR §3.5.2, ISCA §3.1.1]. Every `segment` products the register is scaled and added to an FP32 or FP22 sum.
//
// Operations: a product takes a multiplication and a maximum, then a multiplication by 2^(13-E), a truncating conversion
// and an integer addition: 5 vector operations for 16 products, against a half in a GEMM with FMA. Products of a
// group are kept in L1 in between.
//
// The fast path needs E in [-112, 100], where all of this is exact in FP32. Blocks whose operands could leave it, which
// codes cannot and only folded or BF16 values can, or that hold NaN or infinity, take the plain path.
//
// Who includes this may not let the compiler fuse products with sums.
#pragma once

#include <algorithm>
#include <cmath>

#include "gemm.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Products that the unit adds at once, and fraction bits that it keeps [ISCA §3.1.1].
constexpr int64_t kHopperGroup = 32;
constexpr int kHopperBits = 13;
/// Exponents of products between which the fast path is exact.
constexpr int kLeastExponent = -112, kGreatestExponent = 100;

/// The least magnitude that is not zero, negated, and the largest one of the values of an operand, as bits.
class MagnitudeRange {
 public:
  FATHOM_INLINE void add(f32x16 x) {
    const i32x16 bits = bits_of(x) & 0x7fffffff;
    greatest_ = max(greatest_, bits);
    least_ = max(least_, select(bits == broadcast_int(0), broadcast_int(-kInfinity), broadcast_int(0) - bits));
  }

  /// Whether all products with the values of the other operand stay within the exponents of the fast path.
  bool suits(const MagnitudeRange& other) const {
    const int32_t a = hmax(greatest_), b = hmax(other.greatest_);
    if (a >= kInfinity || b >= kInfinity) return false;
    if (a == 0 || b == 0) return true;
    // The exponent of a product is the sum of both or one more. Subnormal values count as 2^-127, which is too small.
    const int least = (-hmax(least_) >> 23) + (-hmax(other.least_) >> 23) - 254;
    return least >= kLeastExponent && (a >> 23) + (b >> 23) - 254 < kGreatestExponent;
  }

 private:
  static constexpr int32_t kInfinity = 0x7f800000;
  i32x16 greatest_ = broadcast_int(0), least_ = broadcast_int(-kInfinity);
};

/// Rows of A against panels of B. Padding of the contraction to whole groups is zero.
struct HopperOperands {
  const float* a;  // [rows][depth]
  const float* b;  // [panels][depth][16]
  int64_t depth;   // a multiple of 32
  const float* row_scales;     // [segments][row_pitch]
  const float* column_scales;  // [segments][column_pitch], columns in the order of the panels
  int64_t row_pitch, column_pitch;
  int64_t segment;  // a multiple of 32, or the depth
  bool promote;     // to FP32
};

/// x cut off to 13 fraction bits after the leading one; exact for normal FP22 numbers.
FATHOM_INLINE double keep_bits(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, 8);
  bits &= ~((int64_t{1} << (52 - kHopperBits)) - 1);
  std::memcpy(&x, &bits, 8);
  return x;
}

/// As truncateFp22 of accumulate.ts: below the smallest normal number the last bit stays 2^-139.
inline double truncate_fp22(double x) {
  if (std::fabs(x) >= 0x1p-126) return keep_bits(x);
  return std::trunc(x * 0x1p139) * 0x1p-139;
}

/// sums += register * scales, in FP32 or FP22, and empties the register.
FATHOM_INLINE void empty_register(double (&reg)[16], float row_scale, const float* column_scales, bool promote, double (&sums)[16]) {
  for (int i = 0; i < 16; ++i) {
    const double sum = sums[i] + reg[i] * row_scale * column_scales[i];
    sums[i] = promote ? static_cast<double>(static_cast<float>(sum)) : truncate_fp22(sum);
    reg[i] = 0;
  }
}

/// The larger magnitude, lane by lane; `largest` has no sign.
FATHOM_INLINE f32x16 larger_magnitude(f32x16 largest, f32x16 x) {
#if defined(__AVX512DQ__)
  return {(nf32)_mm512_range_ps((__m512)largest.p[0], (__m512)x.p[0], 0x0b)};  // maximum of magnitudes, sign cleared
#else
  return max(largest, abs(x));
#endif
}

/// Adds one group of 32 products of R rows and a panel to the registers.
template <int R>
FATHOM_INLINE void add_group(const float* a, int64_t lda, const float* b, double (&reg)[R][16]) {
  alignas(64) float products[R][kHopperGroup * 16];
  f32x16 largest[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) largest[r] = zero();
#pragma GCC unroll 4
  for (int64_t k = 0; k < kHopperGroup; ++k) {
    const f32x16 right = load(b + k * 16);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const f32x16 product = right * a[r * lda + k];
      store(products[r] + k * 16, product);
      largest[r] = larger_magnitude(largest[r], product);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    // 2^(13-E) and 2^(E-13); where all products are zero any power will do.
    const i32x16 exponent = max(shift_right(bits_of(largest[r]), 23), broadcast_int(127 + kLeastExponent));
    const f32x16 to_units = float_of_bits(shift_left(broadcast_int(254 + kHopperBits) - exponent, 23));
    const f32x16 unit = float_of_bits(shift_left(exponent - broadcast_int(kHopperBits), 23));
    i32x16 units = broadcast_int(0);
#pragma GCC unroll 8
    for (int64_t k = 0; k < kHopperGroup; ++k) units = units + to_int(load(products[r] + k * 16) * to_units);
    alignas(64) float sum[16];
    store(sum, to_float(units) * unit);
    for (int i = 0; i < 16; ++i) reg[r][i] = keep_bits(reg[r][i] + static_cast<double>(sum[i]));
  }
}

/// As add_group for one row, in the words of accumulate.ts.
inline void add_group_plainly(const float* a, const float* b, double (&reg)[16]) {
  for (int i = 0; i < 16; ++i) {
    float products[kHopperGroup];
    double largest = 0;
    bool finite = true;
    for (int64_t k = 0; k < kHopperGroup; ++k) {
      products[k] = a[k] * b[k * 16 + i];
      finite = finite && std::isfinite(products[k]);
      largest = std::max(largest, std::fabs(static_cast<double>(products[k])));
    }
    if (!finite) reg[i] = std::numeric_limits<double>::quiet_NaN();
    if (!finite || largest == 0) continue;
    const double unit = std::ldexp(1.0, std::max(std::ilogb(largest), -126) - kHopperBits);
    double sum = 0;
    for (float product : products) sum += std::trunc(product / unit) * unit;
    reg[i] = truncate_fp22(reg[i] + sum);
  }
}

/// out[r][0..16) = sums of R rows from `row` and of panel `panel`.
template <int R>
void hopper_rows(const HopperOperands& o, int64_t row, int64_t panel, bool fast, float* out) {
  alignas(64) double reg[R][16] = {}, sums[R][16] = {};
  const float* a = o.a + row * o.depth;
  const float* b = o.b + panel * 16 * o.depth;
  for (int64_t from = 0, segment = 0; from < o.depth; from += o.segment, ++segment) {
    const int64_t end = std::min(o.depth, from + o.segment);
    for (int64_t k = from; k < end; k += kHopperGroup) {
      if (fast) add_group<R>(a + k, o.depth, b + k * 16, reg);
      else {
        for (int r = 0; r < R; ++r) add_group_plainly(a + r * o.depth + k, b + k * 16, reg[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      const float* columns = o.column_scales + segment * o.column_pitch + panel * 16;
      empty_register(reg[r], o.row_scales[segment * o.row_pitch + row + r], columns, o.promote, sums[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < 16; ++i) out[r * 16 + i] = static_cast<float>(sums[r][i]);
  }
}

/// Calls finish(row, panel, sums [16]) for every row and panel.
template <class Finish>
void hopper_block(const HopperOperands& o, int64_t rows, int64_t panels, bool fast, const Finish& finish) {
  constexpr int R = 4;  // enough chains of maxima to hide their latency
  alignas(64) float sums[R * 16];
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t row = 0; row < rows;) {
      const bool whole = rows - row >= R;
      if (whole) hopper_rows<R>(o, row, panel, fast, sums);
      else hopper_rows<1>(o, row, panel, fast, sums);
      for (int r = 0; r < (whole ? R : 1); ++r) finish(row + r, panel, static_cast<const float*>(sums + r * 16));
      row += whole ? R : 1;
    }
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
