// What happens beside a 32 x 32 block product: the block before it is finished, and the next rows are fetched.
//
// A tile product keeps the matrix unit busy but leaves most issue slots free. In those slots the block before it is
// scaled, added to the sum of the earlier pieces of the contraction and written, a few rows a step, and the next rows of
// the left operand are fetched into the cache, a few lines a step.
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

/// What is left to do with a block; bits of a compile-time kind.
enum FinishKind : int { kFirstPieces = 1, kLastPieces = 2, kAdd = 4, kPair = 8 };

/// Scales of a product: none; one per row and piece (what is constant over the columns is a factor of it); or one per row
/// and one per column.
enum class Scaling { none, rows, rows_and_columns };

/// A 32 x 32 block on its way to the output. Scaled contractions are taken in pieces of 128 with scales of their own, two
/// at a time where there are two: one pass over the block then serves both.
template <class Out, Scaling S>
struct Finish {
  static constexpr bool kScaled = S != Scaling::none;

  const float* product = nullptr;    // [pieces][32][32], kPitch apart
  float* sum = nullptr;              // [32][32], of the pieces so far
  const float* row_scale[2] = {};     // [rows] per piece
  const float* column_scale[2] = {};  // [32] per piece, for rows_and_columns
  Out* out = nullptr;
  int64_t ldo = 0;
  int64_t rows = 0, columns = kBlock, pieces = 1;
  bool first = true, last = true, accumulate = false;

  /// Floats from piece to piece: 4 KB and a line, so that rows of the two do not compete for one cache set.
  static constexpr int64_t kPitch = kBlock * kBlock + 16;

  /// The scales of the two halves of every row, per piece.
  struct ColumnScales {
    f32x16 half[2][2];
  };
  template <int Kind>
  FATHOM_INLINE ColumnScales column_scales() const {
    ColumnScales s;
    for (int piece = 0; piece < 2; ++piece) {
      const bool used = S == Scaling::rows_and_columns && (piece == 0 || (Kind & kPair));
      for (int h = 0; h < 2; ++h) s.half[piece][h] = used ? load(column_scale[piece] + 16 * h) : zero();
    }
    return s;
  }

  FATHOM_INLINE f32x16 scale_of(int piece, int64_t r, int h, const ColumnScales& scales) const {
    const f32x16 scale = broadcast(row_scale[piece][r]);
    return S == Scaling::rows_and_columns ? scale * scales.half[piece][h] : scale;
  }

  /// Half h of row r: products times scales, plus the sum so far.
  template <int Kind>
  FATHOM_INLINE f32x16 value(int64_t r, int h, const ColumnScales& scales) const {
    const int64_t at = r * kBlock + 16 * h;
    f32x16 x = load(product + at);
    if constexpr (kScaled) {
      const f32x16 scale = scale_of(0, r, h, scales);
      x = (Kind & kFirstPieces) ? x * scale : fma(x, scale, load(sum + at));
      if constexpr (Kind & kPair) x = fma(load(product + kPitch + at), scale_of(1, r, h, scales), x);
    } else if constexpr ((Kind & kFirstPieces) == 0) {
      x += load(sum + at);
    }
    return x;
  }

  /// Row r of a whole block, to the sum or to the output.
  template <int Kind>
  FATHOM_INLINE void row(int64_t r, const ColumnScales& scales) const {
    f32x16 a = value<Kind>(r, 0, scales), b = value<Kind>(r, 1, scales);
    if constexpr ((Kind & kLastPieces) == 0) return store_line(sum + r * kBlock, a, b);
    Out* to = out + r * ldo;
    if constexpr (Kind & kAdd) {
      a += load(to);
      b += load(to + 16);
    }
    store_line(to, a, b);
  }

  bool whole() const { return rows == kBlock && columns == kBlock; }

  /// Calls body(std::integral_constant<int, Kind>) for this block's kind.
  template <class Body>
  FATHOM_INLINE void with_kind(const Body& body) const {
    if constexpr (kScaled) {
      if (pieces == 2) return with_pieces<kPair>(body);
    }
    with_pieces<0>(body);
  }

  /// All of it at once, of blocks at the edges too.
  __attribute__((noinline)) void run() const {
    if (rows == 0) return;
    with_kind([&](auto tag) {
      constexpr int kind = decltype(tag)::value;
      const ColumnScales scales = column_scales<kind>();
      for (int64_t r = 0; r < rows; ++r) {
        if constexpr (kind & kLastPieces) write_edge(r, value<kind>(r, 0, scales), value<kind>(r, 1, scales));
        else row<kind>(r, scales);
      }
    });
  }

 private:
  template <int Kind>
  static constexpr std::integral_constant<int, Kind> kind() {
    return {};
  }

  template <int Pair, class Body>
  FATHOM_INLINE void with_pieces(const Body& body) const {
    constexpr int f = kFirstPieces, l = kLastPieces;
    if (!last) return first ? body(kind<Pair | f>()) : body(kind<Pair>());
    if (accumulate) return first ? body(kind<Pair | f | l | kAdd>()) : body(kind<Pair | l | kAdd>());
    return first ? body(kind<Pair | f | l>()) : body(kind<Pair | l>());
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

/// Fetches rows of memory into L2, a few lines a step.
class Stream {
 public:
  Stream() = default;

  /// `rows` rows of `row_bytes`, `pitch` bytes apart, spread over `steps` calls of step().
  Stream(const void* from, int64_t rows, int64_t row_bytes, int64_t pitch, int64_t steps)
      : at_(static_cast<const char*>(from)), rows_(rows), row_bytes_(row_bytes), pitch_(pitch) {
    const int64_t lines = rows * ((row_bytes + 63) / 64);
    per_step_ = steps > 0 ? (lines + steps - 1) / steps : 0;
  }

  FATHOM_INLINE void step() {
    for (int64_t i = 0; i < per_step_ && rows_ > 0; ++i) {
      __builtin_prefetch(at_ + offset_, 0, 2);
      offset_ += 64;
      if (offset_ < row_bytes_) continue;
      offset_ = 0;
      at_ += pitch_;
      --rows_;
    }
  }

 private:
  const char* at_ = nullptr;
  int64_t rows_ = 0, row_bytes_ = 0, pitch_ = 0, per_step_ = 0, offset_ = 0;
};

/// What is needed next: two streams.
struct Prefetch {
  Stream first, second;

  FATHOM_INLINE void step() {
    first.step();
    second.step();
  }
};

/// Finishes a whole block, `Rows` rows a step. Works on a copy, so that its fields can live in registers.
template <class Work, int Kind, int Rows>
struct SideWork {
  const Work work;
  Prefetch& next;
  const typename Work::ColumnScales scales = work.template column_scales<Kind>();
  int64_t row = 0;

  FATHOM_INLINE void step() {
    if (row < kBlock) {
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) work.template row<Kind>(row + i, scales);
      row += Rows;
    }
    next.step();
  }
  FATHOM_INLINE void rest() {
    for (; row < kBlock; ++row) work.template row<Kind>(row, scales);
  }
};

/// Nothing but the next rows.
struct OnlyNext {
  Prefetch& next;
  FATHOM_INLINE void step() { next.step(); }
  FATHOM_INLINE void rest() {}
};

/// Work between the two pieces of a pair: all but the rest.
template <class Side>
struct WithoutRest {
  Side& side;
  FATHOM_INLINE void step() { side.step(); }
  FATHOM_INLINE void rest() {}
};

/// Where the operands of a block lie: A and two panels of B, and the steps of each piece of the contraction.
template <class T>
struct Operands {
  Left<T> a;
  const T *b0, *b1;
  int64_t steps[2];
};

/// A chain of blocks. While one multiplies, the one before it is finished.
template <class T, class Out, Scaling S>
class BlockChain {
 public:
  using Block = Finish<Out, S>;

  BlockChain() {
    for (int i = 0; i < 2; ++i) blocks_[i].product = products_ + i * kPieces * Block::kPitch;
  }

  /// The description of the next block, to be filled in before multiply().
  Block& block() { return blocks_[turn_]; }

  /// Multiplies A B for block(), with the block before and `next` beside it.
  FATHOM_INLINE void multiply(const Operands<T>& operands, Prefetch& next) {
    const int64_t pieces = blocks_[turn_].pieces;
    float* product = products_ + turn_ * kPieces * Block::kPitch;
    turn_ ^= 1;
    Block& due = blocks_[turn_];
    if (!due.whole()) {
      due.run();
      multiply_pieces(operands, pieces, product, OnlyNext{next});
    } else {
      const int64_t steps = operands.steps[0] + (pieces == 2 ? operands.steps[1] : 0);
      due.with_kind([&](auto tag) {
        constexpr int kind = decltype(tag)::value;
        if (steps < 8) beside<kind, 8>(operands, pieces, product, due, next);
        else beside<kind, 4>(operands, pieces, product, due, next);
      });
    }
    due.rows = 0;
  }

  /// Finishes what is left.
  void drain() {
    Block& due = blocks_[turn_ ^ 1];
    due.run();
    due.rows = 0;
  }

 private:
  static constexpr int kPieces = Block::kScaled ? 2 : 1;

  /// A function of its own per kind, so that all registers are free for it.
  template <int Kind, int Rows>
  __attribute__((noinline)) static void beside(const Operands<T>& operands, int64_t pieces, float* product, const Block& due, Prefetch& next) {
    SideWork<Block, Kind, Rows> side{due, next};
    multiply_pieces(operands, pieces, product, side);
  }

  template <class Side>
  FATHOM_INLINE static void multiply_pieces(const Operands<T>& o, int64_t pieces, float* product, Side&& side) {
    if (!Block::kScaled || pieces == 1) return multiply_ready(o.a, o.b0, o.b1, o.steps[0], product, kBlock, false, side);
    const int64_t first = o.steps[0];
    multiply_ready(o.a, o.b0, o.b1, first, product, kBlock, false, WithoutRest<Side>{side});
    Left<T> a = o.a;
    a.data += first * a.step;
    multiply_ready(a, o.b0 + first * 512, o.b1 + first * 512, o.steps[1], product + Block::kPitch, kBlock, false, side);
  }

  alignas(64) float products_[2 * kPieces * Block::kPitch];
  Block blocks_[2];
  int turn_ = 0;
};

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
