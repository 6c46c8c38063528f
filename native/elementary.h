// e^x and ln(x / y) in FP64: src/numerics/elementary.ts, operation by operation.
//
// A file that includes this must forbid the compiler to fuse products with sums (fp-contract=off): the reference has no
// fused multiply-add, and these promise its bits. Both vectorise in loops over arrays.
#pragma once

#include <cstring>

#include "types.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr double kLn2High = 6.93147180369123816490e-1, kLn2Low = 1.90821492927058770002e-10;
constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52

FATHOM_INLINE uint64_t bits_of_double(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  return bits;
}
FATHOM_INLINE double double_of_bits(uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, 8);
  return x;
}

/// e^x for |x| <= 700.
FATHOM_INLINE double exact_exp(double x) {
  const double shifted = x * 1.4426950408889634 + kRound;
  const double n = shifted - kRound;
  const double r = x - n * kLn2High - n * kLn2Low;
  double sum = 1.0 / 6227020800;
  sum = sum * r + 1.0 / 479001600;
  sum = sum * r + 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 1.0 / 2;
  // The low bits of `shifted` are n as an integer.
  return (r * r * sum + r + 1) * double_of_bits((bits_of_double(shifted) + 1023) << 52);
}

/// ln(x / y) of positive normal doubles.
FATHOM_INLINE double exact_log_ratio(double x, double y) {
  constexpr uint64_t kFraction = (uint64_t{1} << 52) - 1, kOne = uint64_t{1023} << 52;
  const uint64_t a = bits_of_double(x), b = bits_of_double(y);
  double k = static_cast<double>(static_cast<int32_t>(a >> 52) - static_cast<int32_t>(b >> 52));
  double p = double_of_bits((a & kFraction) | kOne), q = double_of_bits((b & kFraction) | kOne);
  const bool high = p > q * 1.4142135623730951, low = q > p * 1.4142135623730951;
  k = k + (high ? 1.0 : 0.0) - (low ? 1.0 : 0.0);
  q = q * (high ? 2.0 : 1.0);
  p = p * (low ? 2.0 : 1.0);
  const double s = (p - q) / (p + q);
  const double z = s * s;
  double sum = 1.0 / 21;
  sum = sum * z + 1.0 / 19;
  sum = sum * z + 1.0 / 17;
  sum = sum * z + 1.0 / 15;
  sum = sum * z + 1.0 / 13;
  sum = sum * z + 1.0 / 11;
  sum = sum * z + 1.0 / 9;
  sum = sum * z + 1.0 / 7;
  sum = sum * z + 1.0 / 5;
  sum = sum * z + 1.0 / 3;
  return k * kLn2High + (k * kLn2Low + 2 * (s + s * (z * sum)));
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
