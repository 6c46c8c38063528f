// What row-wise ops do to one row, for the ops and for the blocks that put several into one call: same code, same bits.
#pragma once

#include <cmath>

#include "fast_math.h"
#include "rows.h"

namespace fathom {
namespace FATHOM_ISA_NS {

// ---- RMSNorm ------------------------------------------------------------------------------------------------------

/// 1 / sqrt(mean(x²) + eps) of one row.
template <class T>
float inverse_rms(const T* x, int64_t width, float eps) {
  f32x16 sums[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 64 <= width; i += 64) {
    for (int64_t j = 0; j < 4; ++j) {
      const f32x16 v = load(x + i + 16 * j);
      sums[j] = fma(v, v, sums[j]);
    }
  }
  each16(width - i, [&](int64_t j, auto n) {
    const f32x16 v = load(x + i + j, n);
    sums[0] = fma(v, v, sums[0]);
  });
  return 1.0f / std::sqrt(hsum((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<float>(width) + eps);
}

/// y = x·r·weight of one row; returns r.
template <class T>
float rms_norm_row(const T* x, const float* weight, int64_t width, float eps, T* y) {
  const float r = inverse_rms(x, width, eps);
  write_mapped(y, width, [=](int64_t i, auto n) { return load(x + i, n) * r * load(weight + i, n); });
  return r;
}

// ---- Rotary position embedding ----------------------------------------------------------------------------------------

/// Neighbouring lanes exchanged: (1, 0, 3, 2, …).
FATHOM_INLINE f32x16 swap_pairs(f32x16 x) {
  ni32 order;
  for (int i = 0; i < kNative; ++i) order[i] = i ^ 1;
  FATHOM_EACH_PART x.p[part] = __builtin_shuffle(x.p[part], order);
  return x;
}

/// The angles of one position as the inner loops want them: y = x·cos + partner·sin.
struct Angles {
  float* cos;
  float* sin;
};

/// table [rope/2, 2] -> interleaved: cos twice and (−sin, sin) per pair; halves: cos and sin of pair i at i.
inline void prepare_angles(const float* table, int64_t rope, bool interleaved, float direction, const Angles& to) {
  for (int64_t i = 0; i < rope / 2; ++i) {
    const float c = table[2 * i], s = direction * table[2 * i + 1];
    if (interleaved) {
      to.cos[2 * i] = to.cos[2 * i + 1] = c;
      to.sin[2 * i] = -s;
      to.sin[2 * i + 1] = s;
    } else {
      to.cos[i] = c;
      to.sin[i] = s;
    }
  }
}

template <class T>
void rotate_interleaved(T* x, int64_t rope, const Angles& angle) {
  write_mapped(x, rope, [=](int64_t i, auto n) {
    const f32x16 v = load(x + i, n);
    return fma(v, load(angle.cos + i, n), swap_pairs(v) * load(angle.sin + i, n));
  });
}

template <class T>
void rotate_halves(T* x, int64_t rope, const Angles& angle) {
  each16(rope / 2, [&](int64_t i, auto n) {
    const f32x16 a = load(x + i, n), b = load(x + rope / 2 + i, n);
    const f32x16 c = load(angle.cos + i, n), s = load(angle.sin + i, n);
    store(x + i, fma(a, c, -(b * s)), n);
    store(x + rope / 2 + i, fma(a, s, b * c), n);
  });
}

/// One slice of `rope` values.
template <class T>
void rotate(T* x, int64_t rope, bool interleaved, const Angles& angle) {
  interleaved ? rotate_interleaved(x, rope, angle) : rotate_halves(x, rope, angle);
}

// ---- Experts --------------------------------------------------------------------------------------------------------

/// h = silu(gate)·up for `count` elements.
template <class T>
void swiglu_row(const T* gate, const T* up, int64_t count, T* h) {
  write_mapped(h, count, [=](int64_t i, auto n) {
    const f32x16 g = load(gate + i, n);
    return g * sigmoid_for<T>(g) * load(up + i, n);
  });
}

/// Σ_k weights[k]·x[place[k]] for sixteen columns, of which n exist; rows of x are `width` apart. Without weights all are 1.
template <class T, class N>
FATHOM_INLINE f32x16 weighted_sum(const T* x, int64_t width, const int32_t* place, const float* weights, int64_t top_k, N n) {
  f32x16 sum = zero();
  for (int64_t k = 0; k < top_k; ++k) sum = fma(load(x + place[k] * width, n), weights ? weights[k] : 1.0f, sum);
  return sum;
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
