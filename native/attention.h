// What the attention kernels share: sizes, exponentials, the online softmax, transposition.
//
// Legend: T tokens, H heads, d = nope + rope depth of queries and keys, v value size; a unit is one head of one
// segment. Scores live in base 2: with c = scale·log2(e), softmax weights are 2^(c·q·k − top).
#pragma once

#include <algorithm>
#include <vector>

#include "gemm.h"
#include "memory.h"
#include "rows.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

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

/// One head of one segment: rows begin..end.
struct AttentionUnit {
  int64_t begin, end, head;
  int64_t length() const { return end - begin; }
};

/// Every head of every segment that is not empty, a head's neighbours in memory last.
inline std::vector<AttentionUnit> attention_units(const int32_t* segments, int64_t bounds, int64_t first_head, int64_t last_head) {
  std::vector<AttentionUnit> units;
  for (int64_t s = 0; s + 1 < bounds; ++s) {
    for (int64_t h = first_head; h < last_head; ++h) {
      if (segments[s] < segments[s + 1]) units.push_back({segments[s], segments[s + 1], h});
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

/// 2^y for y <= 127, exactly 0 for y <= −150 and for kMasked; NaN stays NaN. T is the type that the result is rounded to:
/// relative error 2.6e-6 for bf16 (degree 4) and 7.5e-8 for float (degree 5), minimax on |r| <= 1/2 by Remez' algorithm.
template <class T>
FATHOM_INLINE f32x16 exp2(f32x16 y) {
#if !defined(__AVX512F__)
  y = max(broadcast(-127.0f), y);  // max gives its second operand for NaN
#endif
  const f32x16 n = round_small(y);
  const f32x16 r = y - n;
  f32x16 p;
  if constexpr (std::is_same_v<T, bf16>) {
    p = fma(broadcast(0.009570101908f), r, broadcast(0.05591786032f));
    p = fma(p, r, broadcast(0.2402474483f));
    p = fma(p, r, broadcast(0.6931218147f));
    p = fma(p, r, broadcast(0.9999992614f));
  } else {
    p = fma(broadcast(0.001327647198f), r, broadcast(0.009675541334f));
    p = fma(p, r, broadcast(0.05550713273f));
    p = fma(p, r, broadcast(0.2402211972f));
    p = fma(p, r, broadcast(0.6931469671f));
    p = fma(p, r, broadcast(1.0000000717f));
  }
#if defined(__AVX512F__)
  p.p[0] = (nf32)_mm512_scalef_ps((__m512)p.p[0], (__m512)n.p[0]);
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

/// dst[c][r] = src[r][c] for src [rows, cols].
template <class Dst, class Src>
void transpose_matrix(Dst* dst, int64_t dst_stride, const Src* src, int64_t src_stride, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r += 16) {
    const int64_t height = std::min<int64_t>(16, rows - r);
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t width = std::min<int64_t>(16, cols - c);
      i32x16 tile[16];
      for (int64_t i = 0; i < 16; ++i) tile[i] = bits_of(i < height ? load(src + (r + i) * src_stride + c, width) : zero());
      transpose16(tile);
      for (int64_t i = 0; i < width; ++i) store(dst + (c + i) * dst_stride + r, float_of_bits(tile[i]), height);
    }
  }
}

/// C[M, N] (+)= A[M, K] B: M and N multiples of 32, with memory for as many, and for bf16 A zero from K up to a multiple
/// of 32. Panels of B are `panel` elements apart, so that B may be a part of something packed with a larger depth.
template <class T, class Side = NoSideWork>
void multiply(int64_t M, int64_t N, int64_t K, const T* a, int64_t lda, const T* packed, int64_t panel, float* c, int64_t ldc,
              bool accumulate, Side&& side = {}) {
  for (int64_t n = 0; n < N; n += kBlock, packed += 2 * panel) {
    for (int64_t m = 0; m < M; m += kBlock) {
      multiply_32x32(row_major(a + m * lda, lda), packed, packed + panel, steps_of<T>(K), c + m * ldc + n, ldc, accumulate, side);
    }
  }
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

/// Copies `count` rows of `width` elements into rows of `stride`, zero from `width` on, and clears rows up to `rows`.
template <class T>
void copy_padded(T* dst, int64_t stride, int64_t rows, const T* src, int64_t src_stride, int64_t width, int64_t count) {
  for (int64_t i = 0; i < count; ++i, dst += stride, src += src_stride) {
    std::memcpy(static_cast<void*>(dst), src, static_cast<size_t>(width) * sizeof(T));
    if (width < stride) std::memset(static_cast<void*>(dst + width), 0, static_cast<size_t>(stride - width) * sizeof(T));
  }
  clear_rows(dst, stride, 0, rows - count);
}

/// Rows [rows, stride] of keys [k_nope | k_rope] of one head, zero beyond `count` rows and nope + rope columns.
template <class T>
void gather_keys(T* dst, int64_t stride, int64_t rows, const AttentionDims& d, const T* kv, const T* k_rope, int64_t count) {
  clear_rows(dst, stride, 0, rows);
  for (int64_t i = 0; i < count; ++i, dst += stride) {
    std::memcpy(static_cast<void*>(dst), kv + i * d.kv_stride(), static_cast<size_t>(d.nope) * sizeof(T));
    std::memcpy(static_cast<void*>(dst + d.nope), k_rope + i * d.rope, static_cast<size_t>(d.rope) * sizeof(T));
  }
}

/// Keys of one online-softmax step.
constexpr int64_t kKeyBlock = 128;

/// Softmax over blocks of keys with a running maximum [arXiv 2205.14135, alg. 1], for `rows` queries. Buffers have
/// their rows and the values' `width` filled up to multiples of 32.
template <class T>
struct OnlineSoftmax {
  int64_t rows, padded_rows, width;
  /// scale·log2(e).
  float c;
  /// [rows32, kKeyBlock], written by the caller: q·k of the block.
  float* scores;
  /// [rows32, kKeyBlock], written by `block`: 2^(c·score − top), 0 in rows that only fill up.
  T* weights;
  /// [rows32, width], Σ weights·values, accumulated by the caller after each block.
  float* sums;
  /// [rows32]: largest c·score so far, and what the previous sums were multiplied by.
  float *top, *shrink;
  /// [rows32, 16]: Σ weights in sixteen lanes.
  float* mass;

  static size_t bytes(int64_t rows, int64_t width) {
    const int64_t padded = round_up(rows, kBlock);
    return Workspace::bytes_of<float>(padded * kKeyBlock) + Workspace::bytes_of<T>(padded * kKeyBlock) +
           Workspace::bytes_of<float>(padded * round_up(width, kBlock)) + 2 * Workspace::bytes_of<float>(padded) +
           Workspace::bytes_of<float>(padded * 16);
  }

  OnlineSoftmax(Workspace& memory, int64_t row_count, int64_t value_width, float scale)
      : rows(row_count), padded_rows(round_up(row_count, kBlock)), width(round_up(value_width, kBlock)), c(scale * kLog2E) {
    scores = memory.take<float>(padded_rows * kKeyBlock);
    weights = memory.take<T>(padded_rows * kKeyBlock);
    sums = memory.take<float>(padded_rows * width);
    top = memory.take<float>(padded_rows);
    shrink = memory.take<float>(padded_rows);
    mass = memory.take<float>(padded_rows * 16);
    std::fill(top, top + padded_rows, kMasked);
    std::fill(mass, mass + padded_rows * 16, 0.0f);
    clear_rows(weights, kKeyBlock, rows, padded_rows);
  }

  /// Turns the scores of `keys` keys into weights; row i sees the first diagonal + i + 1 of them. Weights of the
  /// others up to `padded` (a multiple of 32) are 0. Rescales the sums, unless this is the first block.
  void block(int64_t keys, int64_t diagonal, int64_t padded, bool first) {
    for (int64_t i = 0; i < rows; ++i) {
      float* row = scores + i * kKeyBlock;
      const int64_t visible = std::min(keys, diagonal + i + 1);
      std::fill(row + visible, row + padded, kMasked);
      shrink[i] = std::max(top[i], row_top(row, padded));
    }
    for (int64_t i = 0; i < rows; i += 16) {
      const f32x16 now = load(shrink + i), before = load(top + i);
      store(top + i, now);
      store(shrink + i, exp2<float>(before - now));
    }
    for (int64_t i = 0; i < rows; ++i) {
      weigh_row(i, padded);
      if (!first && shrink[i] != 1.0f) {
        each16(width, [&](int64_t j, auto n) { store(sums + i * width + j, load(sums + i * width + j, n) * shrink[i], n); });
      }
    }
  }

  /// Σ weights of row i.
  float total(int64_t i) const { return hsum(load(mass + i * 16)); }

 private:
  float row_top(const float* row, int64_t padded) const {
    f32x16 a = load(row), b = load(row + 16);
    for (int64_t j = 32; j < padded; j += 32) {
      a = max(load(row + j), a);
      b = max(load(row + j + 16), b);
    }
    return hmax(max(a, b)) * c;
  }

  void weigh_row(int64_t i, int64_t padded) {
    const float* row = scores + i * kKeyBlock;
    const f32x16 shift = broadcast(-top[i]);
    f32x16 even = load(mass + i * 16) * shrink[i], odd = zero();
    for (int64_t j = 0; j < padded; j += 32) {
      const f32x16 a = exp2<T>(fma(load(row + j), c, shift)), b = exp2<T>(fma(load(row + j + 16), c, shift));
      even += a;
      odd += b;
      store_pair(weights + i * kKeyBlock + j, a, b);
    }
    store(mass + i * 16, even + odd);
  }
};

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
