// What happens to a 32 x 32 block product while the next one multiplies.
//
// A tile product keeps the matrix unit busy but leaves most issue slots free. The block before it is scaled, added
// to the sum of the earlier pieces of the contraction and written in those slots, a few rows a step.
#pragma once

#include "gemm.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// A 32 x 32 product on its way to the output.
template <class Out, bool Scaled>
struct Finish {
  const float* product;       // [32][32]
  float* sum;                 // [32][32], of the pieces so far
  const float* row_scale;     // [rows]
  const float* column_scale;  // [32]
  Out* out;
  int64_t ldo;
  int64_t rows = 0, columns;
  bool first, last, accumulate;

  FATHOM_INLINE void row(int64_t r) const {
#pragma GCC unroll 2
    for (int64_t n = 0; n < kBlock; n += 16) {
      f32x16 value = load(product + r * kBlock + n);
      if constexpr (Scaled) value *= load(column_scale + n) * row_scale[r];
      if (!first) value += load(sum + r * kBlock + n);
      if (!last) {
        store(sum + r * kBlock + n, value);
      } else if (n < columns) {
        if (accumulate) value += load(out + r * ldo + n, columns - n);
        store(out + r * ldo + n, value, columns - n);
      }
    }
  }
};

/// Cache lines to be asked for ahead of use, a few per step.
struct Prefetch {
  const char* next = nullptr;
  int64_t lines_per_step = 0;

  FATHOM_INLINE void step() {
    for (int64_t i = 0; i < lines_per_step; ++i, next += 64) __builtin_prefetch(next, 0, 3);
  }
};

template <class Work>
struct SideWork {
  const Work& work;
  int64_t rows_per_step, next_row;
  Prefetch& prefetch;

  FATHOM_INLINE void step() {
    const int64_t end = next_row + rows_per_step < work.rows ? next_row + rows_per_step : work.rows;
    for (; next_row < end; ++next_row) work.row(next_row);
    prefetch.step();
  }
  FATHOM_INLINE void rest() {
    for (; next_row < work.rows; ++next_row) work.row(next_row);
  }
};

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
