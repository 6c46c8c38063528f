// What the attention kernels share: sizes, exponentials, the online softmax, transposition.
//
// Legend: T tokens, H heads, d = nope + rope depth of queries and keys, v value size; a unit is one head of one
// segment. Scores live in base 2: with c = scale·log2(e), softmax weights are 2^(c·q·k − top).
#pragma once

#include <algorithm>
#include <vector>

#include "fast_math.h"
#include "gemm.h"
#include "memory.h"
#include "rows.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Stands for −∞ in masked scores: finite, so that differences stay numbers, and 2^kMasked is 0.
constexpr float kMasked = -1e30f;

/// Sizes of multi-head attention on MLA's expanded heads [TR §2.1.1].
struct AttentionDims {
  int64_t tokens, heads, nope, rope, v;
  float scale;

  int64_t depth() const { return nope + rope; }
  int64_t q_stride() const { return heads * depth(); }
  int64_t kv_head() const { return nope + v; }
  int64_t kv_stride() const { return heads * kv_head(); }
  int64_t o_stride() const { return heads * v; }
};

/// One head of one segment: rows begin..end of keys and values. Its queries stand at the positions from `skip` on, the first of
/// them in row `query` of q.
struct AttentionUnit {
  int64_t begin, end, head;
  int64_t skip, query;
  int64_t length() const { return end - begin; }
};

/// Every head of every segment that is not empty, a head's neighbours in memory last.
inline std::vector<AttentionUnit> attention_units(const int32_t* segments, int64_t bounds, int64_t first_head, int64_t last_head) {
  std::vector<AttentionUnit> units;
  for (int64_t s = 0; s + 1 < bounds; ++s) {
    for (int64_t h = first_head; h < last_head; ++h) {
      if (segments[s] < segments[s + 1]) units.push_back({segments[s], segments[s + 1], h, 0, segments[s]});
    }
  }
  return units;
}

/// Rows begin..end of a matrix [rows, width] = 0.
template <class T>
void clear_rows(T* data, int64_t width, int64_t begin, int64_t end) {
  std::memset(static_cast<void*>(data + begin * width), 0, static_cast<size_t>((end - begin) * width) * sizeof(T));
}

/// Clears the rows of a matrix [tokens, width] that no segment covers.
template <class T>
void clear_outside(T* data, int64_t width, const int32_t* segments, int64_t bounds, int64_t tokens) {
  clear_rows(data, width, 0, segments[0]);
  clear_rows(data, width, segments[bounds - 1], tokens);
}

/// A task's memory out of one scratch slot, handed out in 64-byte aligned pieces.
class Workspace {
 public:
  Workspace(int slot, size_t bytes) : next_(static_cast<char*>(scratch_bytes(slot, bytes))) {}
  template <class T>
  T* take(int64_t count) {
    char* mine = next_;
    next_ += bytes_of<T>(count);
    return reinterpret_cast<T*>(mine);
  }
  template <class T>
  static size_t bytes_of(int64_t count) {
    return (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
  }

 private:
  char* next_;
};

/// Stores the first n of 32 values.
template <class T>
FATHOM_INLINE void store_left(T* p, f32x16 a, f32x16 b, int64_t n) {
  store(p, a, std::min<int64_t>(n, 16));
  if (n > 16) store(p + 16, b, n - 16);
}

/// dst[c][r] = src[r][c] for float src [rows, cols].
template <class T>
void transpose_matrix(T* dst, int64_t dst_stride, const float* src, int64_t src_stride, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r += 32) {
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t width = std::min<int64_t>(16, cols - c);
      i32x16 left[16], right[16];
      for (int64_t i = 0; i < 16; ++i) {
        left[i] = bits_of(r + i < rows ? load(src + (r + i) * src_stride + c, width) : zero());
        right[i] = bits_of(r + 16 + i < rows ? load(src + (r + 16 + i) * src_stride + c, width) : zero());
      }
      transpose16(left);
      transpose16(right);
      for (int64_t i = 0; i < width; ++i) {
        T* out = dst + (c + i) * dst_stride + r;
        if (r + 32 <= rows) store_pair(out, float_of_bits(left[i]), float_of_bits(right[i]));
        else store_left(out, float_of_bits(left[i]), float_of_bits(right[i]), rows - r);
      }
    }
  }
}

/// dst[c][r] = src[r][c] for src [rows, cols], multiples of 32.
inline void transpose_blocks(float* dst, int64_t dst_stride, const float* src, int64_t src_stride, int64_t rows, int64_t cols) {
  transpose_matrix(dst, dst_stride, src, src_stride, rows, cols);
}
inline void transpose_blocks(bf16* dst, int64_t dst_stride, const bf16* src, int64_t src_stride, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r += 16) {
    for (int64_t c = 0; c < cols; c += 32) {
      i32x16 pairs[16];
      for (int64_t i = 0; i < 16; ++i) pairs[i] = load(reinterpret_cast<const int32_t*>(src + (r + i) * src_stride + c));
      transpose16(pairs);
      for (int64_t i = 0; i < 16; ++i) {
        auto* out = reinterpret_cast<uint16_t*>(dst + (c + 2 * i) * dst_stride + r);
        narrow16(out, pairs[i] & 0xffff);
        narrow16(out + dst_stride, shift_right(pairs[i], 16));
      }
    }
  }
}

/// The part of a contraction that a 32×32 block needs; nothing if begin >= end.
struct Range {
  int64_t begin, end;
};

/// Vector work that runs beside tile products, one of `count` portions a step, as `side` of `multiply`. While tiles are
/// multiplied only one of the two 512-bit ports is free: 64 instructions a step cost nothing, more delay the tiles
/// (measured on Sapphire Rapids), so a portion is about that much and what is left runs at full speed in `finish`.
template <class Work>
class Beside {
 public:
  Beside(int64_t count, const Work& work) : count_(count), work_(work) {}
  FATHOM_INLINE void step() {
    if (next_ < count_) work_(next_++);
  }
  FATHOM_INLINE void rest() const {}
  void finish() {
    while (next_ < count_) work_(next_++);
  }

 private:
  const int64_t count_;
  int64_t next_ = 0;
  const Work& work_;
};

/// C[M, N] (+)= A[M, K] B: M and N multiples of 32, with memory for as many, and for bf16 A zero from K up to a multiple
/// of 32. Panels of B are `panel` elements apart, so that B may be a part of something packed with a larger depth.
/// range(m, n) gives the part of the contraction [0, K) that is not known to be zero, in multiples of 32.
template <class T, class Ranges, class Side>
void multiply(int64_t M, int64_t N, const T* a, int64_t lda, const T* packed, int64_t panel, float* c, int64_t ldc,
              bool accumulate, const Ranges& range, Side&& side) {
  for (int64_t n = 0; n < N; n += kBlock, packed += 2 * panel) {
    for (int64_t m = 0; m < M; m += kBlock) {
      const Range k = range(m, n);
      if (k.begin >= k.end) continue;
      const T* b = packed + k.begin * 16;
      multiply_32x32(row_major(a + m * lda + k.begin, lda), b, b + panel, steps_of<T>(k.end - k.begin), c + m * ldc + n, ldc,
                     accumulate, side);
    }
  }
}
template <class T>
void multiply(int64_t M, int64_t N, int64_t K, const T* a, int64_t lda, const T* packed, int64_t panel, float* c, int64_t ldc,
              bool accumulate) {
  multiply(M, N, a, lda, packed, panel, c, ldc, accumulate, [K](int64_t, int64_t) { return Range{0, K}; }, NoSideWork{});
}

/// Elements of a packed B[K, N] with its columns filled up to a multiple of 32.
template <class T>
constexpr int64_t block_elements(int64_t N, int64_t K) {
  return packed_elements<T>(round_up(N, kBlock), K);
}

/// Zeroes the second panel of the last 32 columns where B[K, N] packed does not have one.
template <class T>
void clear_last_panel(T* packed, int64_t N, int64_t K) {
  const int64_t begin = packed_elements<T>(N, K), end = block_elements<T>(N, K);
  std::memset(static_cast<void*>(packed + begin), 0, static_cast<size_t>(end - begin) * sizeof(T));
}

/// pack_nk and pack_kn with the columns filled up to a multiple of 32.
template <class T>
void pack_blocks_nk(T* dst, const T* src, int64_t N, int64_t K, int64_t ld) {
  pack_nk(dst, src, N, K, ld);
  clear_last_panel(dst, N, K);
}
template <class T>
void pack_blocks_kn(T* dst, const T* src, int64_t K, int64_t N, int64_t ld) {
  pack_kn(dst, src, K, N, ld);
  clear_last_panel(dst, N, K);
}

/// dst = src, for rows so short that a call of memcpy would show.
template <class T>
FATHOM_INLINE void copy_row(T* dst, const T* src, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  struct Line {
    char bytes[64];
  } line;
  int64_t i = 0;
  for (; i + kLine <= count; i += kLine) {
    std::memcpy(&line, src + i, 64);
    std::memcpy(static_cast<void*>(dst + i), &line, 64);
  }
  for (; i < count; ++i) dst[i] = src[i];
}

/// Copies `count` rows of `width` elements into rows of `stride`, zero from `width` on, and clears rows up to `rows`.
template <class T>
void copy_padded(T* dst, int64_t stride, int64_t rows, const T* src, int64_t src_stride, int64_t width, int64_t count) {
  for (int64_t i = 0; i < count; ++i, dst += stride, src += src_stride) {
    copy_row(dst, src, width);
    if (width < stride) clear_rows(dst, 1, width, stride);
  }
  clear_rows(dst, stride, 0, rows - count);
}

/// Rows [rows, stride] of keys [k_nope | k_rope] of one head, zero beyond `count` rows and nope + rope columns.
template <class T>
void gather_keys(T* dst, int64_t stride, int64_t rows, const AttentionDims& d, const T* kv, const T* k_rope, int64_t count) {
  for (int64_t i = 0; i < count; ++i, dst += stride) {
    copy_row(dst, kv + i * d.kv_stride(), d.nope);
    copy_row(dst + d.nope, k_rope + i * d.rope, d.rope);
    if (d.depth() < stride) clear_rows(dst, 1, d.depth(), stride);
  }
  clear_rows(dst, stride, 0, rows - count);
}

/// Keys of one step of the online softmax.
constexpr int64_t kKeyBlock = 128;

/// Rows of queries that take a step together: their scores, weights and sums share the L1 cache.
constexpr int64_t kRows = 32;

/// Softmax over blocks of keys with a running maximum [arXiv 2205.14135, alg. 1]: the state of `rows` queries. Scores
/// and weights of a step are [kRows, kKeyBlock]. The values' `width` is filled up to a multiple of 32.
template <class T>
struct OnlineSoftmax {
  int64_t rows, width;
  /// scale·log2(e).
  float c;
  /// [rows32, width], Σ weights·values, accumulated by the caller.
  float* sums;
  /// [rows32]: largest c·score so far, and what the previous sums are multiplied by.
  float *top, *shrink;
  /// [rows32, 16]: Σ weights, and the largest scores of the step, in sixteen lanes.
  float *mass, *peaks;

  static size_t bytes(int64_t rows, int64_t width) {
    const int64_t padded = round_up(rows, kRows);
    return Workspace::bytes_of<float>(padded * round_up(width, kBlock)) + 2 * Workspace::bytes_of<float>(padded) +
           2 * Workspace::bytes_of<float>(padded * 16);
  }

  OnlineSoftmax(Workspace& memory, int64_t row_count, int64_t value_width, float scale)
      : rows(round_up(row_count, kRows)), width(round_up(value_width, kBlock)), c(scale * kLog2E) {
    sums = memory.take<float>(rows * width);
    top = memory.take<float>(rows);
    shrink = memory.take<float>(rows);
    mass = memory.take<float>(rows * 16);
    peaks = memory.take<float>(rows * 16);
    std::fill(top, top + rows, kMasked);
    std::fill(mass, mass + rows * 16, 0.0f);
  }

  /// Looks for the maximum of row i, whose scores are `score`: the first `visible` count, and the others up to `columns`
  /// (a multiple of 32) are masked.
  void look(float* score, int64_t i, int64_t visible, int64_t columns) {
    if (visible < columns) mask_from(score, visible, columns);
    f32x16 a = load(score), b = load(score + 16);
    for (int64_t j = 32; j < columns; j += 32) {
      a = max(load(score + j), a);
      b = max(load(score + j + 16), b);
    }
    // NaN scores are passed over here; they come back as weights.
    store(peaks + i * 16, max(a, max(b, broadcast(kMasked))));
  }

  /// Raises the maxima of rows i .. i + kRows - 1 after all have been looked at.
  void raise(int64_t i) {
    for (const int64_t end = i + kRows; i < end; i += 16) {
      const f32x16 before = load(top + i);
      const f32x16 now = max(across(peaks + i * 16, [](f32x16 a, f32x16 b) { return max(a, b); }) * c, before);
      store(top + i, now);
      store(shrink + i, exp2<float>(before - now));
    }
  }

  /// Weights of row i for `columns` scores (a multiple of 32).
  void weigh(const float* score, T* weight, int64_t i, int64_t columns) {
    const f32x16 shift = broadcast(-top[i]), factor = broadcast(c);
    f32x16 even = load(mass + i * 16), odd = zero();
    for (int64_t j = 0; j < columns; j += 32) {
      const f32x16 a = exp2<T>(fma(load(score + j), factor, shift)), b = exp2<T>(fma(load(score + j + 16), factor, shift));
      even += a;
      odd += b;
      store_pair(weight + j, a, b);
    }
    store(mass + i * 16, even + odd);
  }

  /// Rescales row i to its new maximum.
  void rescale(int64_t i) {
    if (shrink[i] == 1.0f) return;
    const f32x16 less = broadcast(shrink[i]);
    store(mass + i * 16, load(mass + i * 16) * less);
    for (int64_t j = 0; j < width; j += 16) store(sums + i * width + j, load(sums + i * width + j) * less);
  }

  /// Σ weights of rows i .. i + 15.
  f32x16 totals(int64_t i) const {
    return across(mass + i * 16, [](f32x16 a, f32x16 b) { return a + b; });
  }

 private:
  static void mask_from(float* score, int64_t visible, int64_t columns) {
    int64_t j = visible / 16 * 16;
    if (j < visible) {
      f32x16 kept = broadcast(kMasked);
      std::memcpy(&kept, score + j, static_cast<size_t>(visible - j) * sizeof(float));
      store(score + j, kept);
      j += 16;
    }
    for (; j < columns; j += 16) store(score + j, broadcast(kMasked));
  }

  /// Lane r of the result: the sixteen lanes of row r of `lanes` [16, 16] put together by a tree.
  template <class Op>
  static f32x16 across(const float* lanes, const Op& op) {
    i32x16 tile[16];
    for (int64_t i = 0; i < 16; ++i) tile[i] = bits_of(load(lanes + i * 16));
    transpose16(tile);
    f32x16 x[16];
    for (int64_t i = 0; i < 16; ++i) x[i] = float_of_bits(tile[i]);
#pragma GCC unroll 4
    for (int64_t half = 8; half > 0; half /= 2) {
#pragma GCC unroll 8
      for (int64_t i = 0; i < half; ++i) x[i] = op(x[i], x[i + half]);
    }
    return x[0];
  }
};

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
