// Exponentials, reciprocals and BF16 stores for inner loops: less than simd.h's full range, for fewer instructions.
#pragma once

#include "rows.h"
#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

/// 2^y for y < 128, exactly 0 far below −126 and for kMasked; NaN stays NaN. T is the type that the result is rounded
/// to: relative error 2.6e-6 for bf16 (degree 4) and 7.5e-8 for float (degree 5). Coefficients: minimax of the relative
/// error of 2^r on 0 <= r <= 1 by Remez' algorithm.
template <class T>
FATHOM_INLINE f32x16 exp2(f32x16 y) {
#if defined(__AVX512F__)
  const f32x16 r = {(nf32)_mm512_reduce_ps((__m512)y.p[0], 1)};  // y − floor(y)
#else
  y = max(broadcast(-126.5f), y);  // floor −127, whose power is 0; max gives its second operand for NaN
  const f32x16 n = round_small(y - 0.5f);
  const f32x16 r = y - n;
#endif
  f32x16 p;
  if constexpr (std::is_same_v<T, bf16>) {
    p = fma(broadcast(0.01353416791f), r, broadcast(0.05201146062f));
    p = fma(p, r, broadcast(0.2414427569f));
    p = fma(p, r, broadcast(0.6930038345f));
    p = fma(p, r, broadcast(1.0000025934f));
  } else {
    p = fma(broadcast(0.001877576673f), r, broadcast(0.008989340095f));
    p = fma(p, r, broadcast(0.05582631805f));
    p = fma(p, r, broadcast(0.2401536170f));
    p = fma(p, r, broadcast(0.6931530732f));
    p = fma(p, r, broadcast(0.9999999251f));
  }
#if defined(__AVX512F__)
  p.p[0] = (nf32)_mm512_scalef_ps((__m512)p.p[0], (__m512)y.p[0]);  // p · 2^floor(y)
  return p;
#else
  return p * power_of_two(n);
#endif
}

/// Stores 32 values. The bf16 form flushes subnormals: weights and their gradients below 2^-126 do not matter.
FATHOM_INLINE void store_pair(float* p, f32x16 a, f32x16 b) {
  store(p, a);
  store(p + 16, b);
}
FATHOM_INLINE void store_pair(bf16* p, f32x16 a, f32x16 b) {
#if defined(__AVX512BF16__)
  const __m512bh both = _mm512_cvtne2ps_pbh((__m512)b.p[0], (__m512)a.p[0]);
  std::memcpy(p, &both, 64);
#else
  store(p, a);
  store(p + 16, b);
#endif
}

/// 1 / x to one unit in the last place, for 2^-126 <= x <= 2^126; NaN stays NaN.
FATHOM_INLINE f32x16 reciprocal(f32x16 x) {
#if defined(__AVX512F__)
  const f32x16 guess = {(nf32)_mm512_rcp14_ps((__m512)x.p[0])};
  return fma(guess, fma(-guess, x, broadcast(1.0f)), guess);  // Newton: 14 bits become 28
#else
  return 1.0f / x;
#endif
}

/// 1 / (1 + e^-x) for a result that is rounded to T: for bf16 within 1e-5, and 2^-126 where it would be less.
template <class T>
FATHOM_INLINE f32x16 sigmoid_for(f32x16 x) {
  if constexpr (std::is_same_v<T, float>) return sigmoid(x);
  const f32x16 y = min(broadcast(125.9f), x * -kLog2E);  // min gives its second operand for NaN
  return reciprocal(1.0f + exp2<T>(y));
}

/// out[i] = f(i, n) for i = 0, 16, …, where n counts the elements that exist: 16, known at compile time, but for the last.
/// BF16 as with store_pair.
template <class T, class Map>
FATHOM_INLINE void write_mapped(T* out, int64_t count, const Map& f) {
  constexpr std::integral_constant<int64_t, 16> whole;
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) store_pair(out + i, f(i, whole), f(i + 16, whole));
  each16(count - i, [&](int64_t j, auto n) { store(out + i + j, f(i + j, n), n); });
}

/// out = map(in) for a row of sums.
template <class T, class Map>
FATHOM_INLINE void write_row(T* out, const float* in, int64_t count, const Map& map) {
  write_mapped(out, count, [&](int64_t i, auto n) { return map(load(in + i, n)); });
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
