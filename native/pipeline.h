// What happens beside a 32 x 32 block product: the block before it is finished, and the next rows are made ready.
//
// A tile product keeps the matrix unit busy but leaves most issue slots free. In those slots the block before it is
// scaled, added to the sum of the earlier pieces of the contraction and written, a few rows a step, and the left
// operand of the next 32 rows is fetched or widened, a few cache lines a step.
#pragma once

#include <algorithm>

#include "operands.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Stores 32 results as they come from a matrix unit, which has flushed subnormals already.
FATHOM_INLINE void store_line(float* p, f32x16 a, f32x16 b) {
  store(p, a);
  store(p + 16, b);
}
FATHOM_INLINE void store_line(bf16* p, f32x16 a, f32x16 b) {
#if defined(__AVX512BF16__)
  const __m512bh line = _mm512_cvtne2ps_pbh((__m512)b.p[0], (__m512)a.p[0]);
  std::memcpy(static_cast<void*>(p), &line, 64);
#else
  store(p, a);
  store(p + 16, b);
#endif
}

/// What is left to do with a product; bits of a compile-time kind.
enum FinishKind : int { kFirstPiece = 1, kLastPiece = 2, kAdd = 4, kEdge = 8 };

/// A 32 x 32 product on its way to the output.
template <class Out, bool Scaled>
struct Finish {
  const float* product;       // [32][32]
  float* sum;                 // [32][32], of the pieces so far
  const float* row_scale;     // [rows]
  const float* column_scale;  // [32]
  Out* out;
  int64_t ldo;
  int64_t rows = 0, columns = kBlock;
  bool first = true, last = true, accumulate = false;

  /// One row: product times scales, plus the sum so far, to the sum or to the output.
  template <int Kind>
  FATHOM_INLINE void row(int64_t r) const {
    f32x16 a = load(product + r * kBlock), b = load(product + r * kBlock + 16);
    if constexpr (Scaled) {
      a *= load(column_scale) * row_scale[r];
      b *= load(column_scale + 16) * row_scale[r];
    }
    if constexpr ((Kind & kFirstPiece) == 0) {
      a += load(sum + r * kBlock);
      b += load(sum + r * kBlock + 16);
    }
    if constexpr ((Kind & kLastPiece) == 0) store_line(sum + r * kBlock, a, b);
    else if constexpr (Kind & kEdge) write_edge(r, a, b);
    else write<Kind>(r, a, b);
  }

  /// Calls body(std::integral_constant<int, Kind>) for this block's kind.
  template <class Body>
  FATHOM_INLINE void with_kind(const Body& body) const {
    if (!last) return first ? body(kind<kFirstPiece>()) : body(kind<0>());
    if (columns < kBlock) return first ? body(kind<kFirstPiece | kLastPiece | kEdge>()) : body(kind<kLastPiece | kEdge>());
    if (accumulate) return first ? body(kind<kFirstPiece | kLastPiece | kAdd>()) : body(kind<kLastPiece | kAdd>());
    return first ? body(kind<kFirstPiece | kLastPiece>()) : body(kind<kLastPiece>());
  }

  /// All rows at once.
  void run() const {
    with_kind([&](auto tag) {
      for (int64_t r = 0; r < rows; ++r) row<decltype(tag)::value>(r);
    });
  }

 private:
  template <int Kind>
  static constexpr std::integral_constant<int, Kind> kind() {
    return {};
  }

  template <int Kind>
  FATHOM_INLINE void write(int64_t r, f32x16 a, f32x16 b) const {
    Out* to = out + r * ldo;
    if constexpr (Kind & kAdd) {
      a += load(to);
      b += load(to + 16);
    }
    store_line(to, a, b);
  }
  void write_edge(int64_t r, f32x16 a, f32x16 b) const {
    for (int64_t n = 0; n < columns; n += 16) {
      Out* to = out + r * ldo + n;
      f32x16 value = n == 0 ? a : b;
      if (accumulate) value += load(to, columns - n);
      store(to, value, columns - n);
    }
  }
};

/// Makes the next 32 rows of the left operand ready, one line of 32 elements after the other.
class NextRows {
 public:
  NextRows() = default;

  /// Brings contiguous memory into the cache.
  static NextRows fetch(const void* from, int64_t bytes) {
    NextRows next;
    next.from_ = static_cast<const char*>(from);
    next.lines_ = (bytes + 63) / 64;
    return next;
  }
  /// Turns rows of K elements (a multiple of 32) into tiles, see fill_tiles.
  static NextRows tiles(const void* codes, int format, int64_t first_row, int64_t K, bf16* tiles) {
    NextRows next;
    next.format_ = format;
    next.element_ = is_byte(format) ? 1 : 2;
    next.from_ = static_cast<const char*>(codes) + first_row * K * next.element_;
    next.tiles_ = tiles;
    next.steps_ = K / 32;
    next.lines_ = kBlock * next.steps_;
    return next;
  }

  /// Spreads the work over `steps` calls of step().
  void spread(int64_t steps) { per_step_ = (lines_ + steps - 1) / steps; }

  FATHOM_INLINE void step() {
    if (done_ >= lines_) return;
    if (tiles_) return fill(per_step_);
    for (int64_t i = 0; i < per_step_; ++i) __builtin_prefetch(from_ + (done_ + i) * 64, 0, 3);
    done_ += per_step_;
  }
  /// Whatever is left.
  void rest() {
    if (tiles_) fill(lines_);
    done_ = lines_;
  }

 private:
  __attribute__((noinline)) void fill(int64_t count) {
    for (const int64_t end = std::min(lines_, done_ + count); done_ < end; ++done_) {
      const char* from = from_ + done_ * 32 * element_;
      if (format_ == kE4m3) widen_codes<kE4m3>(target(), reinterpret_cast<const uint8_t*>(from));
      else if (format_ == kE5m2) widen_codes<kE5m2>(target(), reinterpret_cast<const uint8_t*>(from));
      else std::memcpy(static_cast<void*>(target()), from, 64);
      if (++column_ == steps_) column_ = 0, ++row_;
    }
  }
  FATHOM_INLINE bf16* target() const { return tiles_ + column_ * 1024 + row_ / 16 * 512 + row_ % 16 * 32; }

  const char* from_ = nullptr;
  bf16* tiles_ = nullptr;
  int format_ = kBf16;
  int64_t element_ = 2, steps_ = 0, lines_ = 0, per_step_ = 0, done_ = 0, row_ = 0, column_ = 0;
};

template <class Work, int Kind>
struct SideWork {
  const Work& work;
  int64_t rows_per_step, next_row;
  NextRows& next;

  FATHOM_INLINE void step() {
    const int64_t end = next_row + rows_per_step < work.rows ? next_row + rows_per_step : work.rows;
    for (; next_row < end; ++next_row) work.template row<Kind>(next_row);
    next.step();
  }
  FATHOM_INLINE void rest() {
    for (; next_row < work.rows; ++next_row) work.template row<Kind>(next_row);
  }
};

/// product [32][32] = A B over `steps` steps, with `pending` finished and `next` advanced beside it.
template <class T, class Work>
FATHOM_INLINE void multiply_beside(Left<T> a, const T* b0, const T* b1, int64_t steps, float* product, const Work& pending,
                                   NextRows& next) {
  const int64_t rows_per_step = (kBlock + steps - 1) / steps;
  pending.with_kind([&](auto tag) {
    SideWork<Work, decltype(tag)::value> side{pending, rows_per_step, 0, next};
    multiply_ready(a, b0, b1, steps, product, kBlock, false, side);
  });
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
