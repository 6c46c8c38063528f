// Single-threaded matrix blocks for use inside a kernel's task.
//
// C[M, N] (+)= A[M, K] B[K, N], A row-major, B packed, C float row-major. Packed B, in panels of 16 columns:
//   bf16   [ceil(N / 16)][pad32(K) / 2][16][2]   one 64-byte row per pair of k: an AMX B tile row and a VDPBF16PS operand
//   float  [ceil(N / 16)][K][16]
// Rows beyond K and columns beyond N are zero.
//
// Everything is built from one block product of 32 x 32 (`multiply_32x32`) with one implementation per
// instruction set: 2 x 2 AMX tiles; 11 x 2 VDPBF16PS accumulators; FMA on widened BF16 elsewhere.
#pragma once

#include "amx.h"
#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

/// Rows and columns of the block product.
constexpr int64_t kBlock = 32;

/// The contraction length as stored in a packed B.
template <class T>
constexpr int64_t packed_depth(int64_t K) {
  return std::is_same_v<T, bf16> ? round_up(K, 32) : K;
}

/// Elements of one panel of 16 columns.
template <class T>
constexpr int64_t panel_elements(int64_t K) {
  return packed_depth<T>(K) * 16;
}

/// Elements of a packed B[K, N].
template <class T>
constexpr int64_t packed_elements(int64_t N, int64_t K) {
  return round_up(N, 16) / 16 * panel_elements<T>(K);
}

// ---- Packing ----------------------------------------------------------------------------------------------

/// Sixteen pairs of BF16 as dwords, `low` in the lower halves.
FATHOM_INLINE i32x16 bf16_pairs(f32x16 low, f32x16 high) {
  return bf16_bits(low) | shift_left(bf16_bits(high), 16);
}

/// The pairs (k, k + 1) of sixteen rows' elements, for the first `n` of them: row k and row k + 1 (null: zeros).
template <class Src>
FATHOM_INLINE i32x16 row_pairs(const Src* low, const Src* high, int64_t n) {
  if constexpr (std::is_same_v<Src, bf16>) {
    const i32x16 a = shift_right(bits_of(load(low, n)), 16);
    return high ? a | bits_of(load(high, n)) : a;
  } else {
    return bf16_pairs(load(low, n), high ? load(high, n) : zero());
  }
}

/// The 16 pairs of 32 consecutive elements, of which the first `n` exist.
template <class Src>
FATHOM_INLINE i32x16 consecutive_pairs(const Src* src, int64_t n) {
  alignas(64) bf16 line[32];
  if (std::is_same_v<Src, bf16> && n >= 32) return load(reinterpret_cast<const int32_t*>(src));
  store(line, load(src, n < 16 ? n : 16));
  store(line + 16, n > 16 ? load(src + 16, n - 16) : zero());
  return load(reinterpret_cast<const int32_t*>(line));
}

/// One panel of B[k][n] = src[n * ld + k]: `columns` rows of src, K elements each.
template <class Src>
void pack_panel_nk(bf16* dst, const Src* src, int64_t columns, int64_t K, int64_t ld) {
  for (int64_t k = 0; k < K; k += 32, dst += 512) {
    i32x16 rows[16];
    for (int64_t n = 0; n < 16; ++n) {
      rows[n] = n < columns ? consecutive_pairs(src + n * ld + k, K - k) : broadcast_int(0);
    }
    transpose16(rows);
    for (int64_t pair = 0; pair < 16; ++pair) store(reinterpret_cast<int32_t*>(dst + pair * 32), rows[pair]);
  }
}
template <class Src>
void pack_panel_nk(float* dst, const Src* src, int64_t columns, int64_t K, int64_t ld) {
  for (int64_t k = 0; k < K; k += 16, dst += 256) {
    i32x16 rows[16];
    for (int64_t n = 0; n < 16; ++n) rows[n] = bits_of(n < columns ? load(src + n * ld + k, K - k) : zero());
    transpose16(rows);
    for (int64_t i = 0; i < 16 && k + i < K; ++i) store(dst + i * 16, float_of_bits(rows[i]));
  }
}

/// One panel of B[k][n] = src[k * ld + n]: `columns` columns of src, K rows.
template <class Src>
void pack_panel_kn(bf16* dst, const Src* src, int64_t columns, int64_t K, int64_t ld) {
  auto* pairs = reinterpret_cast<int32_t*>(dst);
  for (int64_t k = 0; k < packed_depth<bf16>(K); k += 2, pairs += 16) {
    const Src* row = src + k * ld;
    store(pairs, k < K ? row_pairs(row, k + 1 < K ? row + ld : nullptr, columns) : broadcast_int(0));
  }
}
template <class Src>
void pack_panel_kn(float* dst, const Src* src, int64_t columns, int64_t K, int64_t ld) {
  for (int64_t k = 0; k < K; ++k) store(dst + k * 16, load(src + k * ld, columns));
}

/// Packs B[k][n] = src[n * ld + k] (src is [N, K]).
template <class Dst, class Src>
void pack_nk(Dst* dst, const Src* src, int64_t N, int64_t K, int64_t ld) {
  for (int64_t n = 0; n < N; n += 16, dst += panel_elements<Dst>(K)) {
    pack_panel_nk(dst, src + n * ld, N - n < 16 ? N - n : 16, K, ld);
  }
}

/// Packs B[k][n] = src[k * ld + n] (src is [K, N]).
template <class Dst, class Src>
void pack_kn(Dst* dst, const Src* src, int64_t K, int64_t N, int64_t ld) {
  for (int64_t n = 0; n < N; n += 16, dst += panel_elements<Dst>(K)) {
    pack_panel_kn(dst, src + n, N - n < 16 ? N - n : 16, K, ld);
  }
}

// ---- The 32 x 32 block product ------------------------------------------------------------------------------

/// 32 rows of A for the block product. Element (r, k) of a bf16 operand is
/// data[(r / 16) * half + (r % 16) * row + (k / 32) * step + k % 32]; of a float operand data[r * row + k].
template <class T>
struct Left {
  const T* data;
  int64_t row, step, half;
};

/// 32 rows of a row-major matrix.
template <class T>
FATHOM_INLINE Left<T> row_major(const T* data, int64_t ld) {
  return {data, ld, 32, 16 * ld};
}
/// 32 x K as tiles [K / 32][2][16][32]: every tile is 1 KB in one piece, free of cache-set conflicts.
FATHOM_INLINE Left<bf16> in_tiles(const bf16* data) { return {data, 32, 1024, 512}; }

/// Work that a block product does on the side: step() in the issue slots of every step of 32, rest() at the end.
/// Implementations without idle slots call rest() only.
struct NoSideWork {
  FATHOM_INLINE void step() const {}
  FATHOM_INLINE void rest() const {}
};

#if defined(FATHOM_AMX)

/// C[32, 32] = A B, or += where accumulate, for `steps` steps of 32; b0 and b1 are two panels of B.
///
/// Four TDPBF16PS (64 cycles) per step against four tile loads (31 cycles from L1). A is expected in L1 and B in
/// L2: B's loads carry the streaming hint so that A stays where it is. `side` fills the issue slots in between.
/// The caller has called begin_products() on this thread.
template <class Side>
FATHOM_INLINE void multiply_ready(Left<bf16> a, const bf16* b0, const bf16* b1, int64_t steps, float* c, int64_t ldc,
                                  bool accumulate, Side&& side) {
  const bf16* a1 = a.data + a.half;
  float* c1 = c + 16 * ldc;
  FATHOM_TILE_BARRIER();
  if (accumulate) {
    FATHOM_TILE_LOAD(0, c, ldc * 4);
    FATHOM_TILE_LOAD(1, c + 16, ldc * 4);
    FATHOM_TILE_LOAD(2, c1, ldc * 4);
    FATHOM_TILE_LOAD(3, c1 + 16, ldc * 4);
  } else {
    FATHOM_TILE_ZERO(0);
    FATHOM_TILE_ZERO(1);
    FATHOM_TILE_ZERO(2);
    FATHOM_TILE_ZERO(3);
  }
  for (int64_t step = 0; step < steps; ++step) {
    FATHOM_TILE_STREAM(6, b0 + step * 512, 64);
    FATHOM_TILE_LOAD(4, a.data + step * a.step, a.row * 2);
    FATHOM_TILE_DP(0, 4, 6);
    FATHOM_TILE_LOAD(5, a1 + step * a.step, a.row * 2);
    FATHOM_TILE_DP(2, 5, 6);
    FATHOM_TILE_STREAM(7, b1 + step * 512, 64);
    FATHOM_TILE_DP(1, 4, 7);
    FATHOM_TILE_DP(3, 5, 7);
    side.step();
  }
  side.rest();
  FATHOM_TILE_STORE(0, c, ldc * 4);
  FATHOM_TILE_STORE(1, c + 16, ldc * 4);
  FATHOM_TILE_STORE(2, c1, ldc * 4);
  FATHOM_TILE_STORE(3, c1 + 16, ldc * 4);
}

#endif

/// sums[r][j] (+)= A rows from `first` times columns of panel j, for one panel row of B each call.
template <int R, int P>
struct Accumulators {
  f32x16 sum[R][P];

  FATHOM_INLINE void begin(const float* c, int64_t ldc, bool accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) sum[r][p] = accumulate ? load(c + r * ldc + p * 16) : zero();
    }
  }
  FATHOM_INLINE void end(float* c, int64_t ldc) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) store(c + r * ldc + p * 16, sum[r][p]);
    }
  }
};

/// Rows of the register block, so that accumulators, B and a broadcast fit the registers of the level; panels side by side.
constexpr int kRegisterRows = kNative == 16 ? 11 : kNative == 8 ? 6 : 2;
constexpr int kRegisterPanels = kNative == 16 ? 2 : 1;

/// Adds the products of one pair of k: `a` points at the pair in row 0, rows are `row` apart.
template <int R, int P>
FATHOM_INLINE void add_pair(Accumulators<R, P>& acc, const bf16* a, int64_t row, const bf16* const (&b)[P]) {
#if defined(__AVX512BF16__)
  __m512bh right[P];
#pragma GCC unroll 2
  for (int p = 0; p < P; ++p) std::memcpy(&right[p], b[p], 64);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    int32_t pair;
    std::memcpy(&pair, a + r * row, 4);
    const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) {
      acc.sum[r][p].p[0] = (nf32)_mm512_dpbf16_ps((__m512)acc.sum[r][p].p[0], left, right[p]);
    }
  }
#else
#pragma GCC unroll 2
  for (int p = 0; p < P; ++p) {
    const i32x16 pairs = load(reinterpret_cast<const int32_t*>(b[p]));
    const f32x16 even = float_of_bits(shift_left(pairs, 16));
    const f32x16 odd = float_of_bits(pairs & static_cast<int32_t>(0xffff0000));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc.sum[r][p] = fma(even, to_f32(a[r * row]), acc.sum[r][p]);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc.sum[r][p] = fma(odd, to_f32(a[r * row + 1]), acc.sum[r][p]);
  }
#endif
}

/// R rows times P panels over `steps` steps of 32, without AMX.
template <int R, int P>
void multiply_rows(const bf16* a, int64_t row, int64_t step, const bf16* const (&panels)[P], int64_t steps, float* c,
                   int64_t ldc, bool accumulate) {
  Accumulators<R, P> acc;
  acc.begin(c, ldc, accumulate);
  const bf16* b[P];
  for (int p = 0; p < P; ++p) b[p] = panels[p];
  for (int64_t s = 0; s < steps; ++s, a += step) {
    for (int pair = 0; pair < 16; ++pair) {
      add_pair<R, P>(acc, a + 2 * pair, row, b);
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) b[p] += 32;
    }
  }
  acc.end(c, ldc);
}
template <int R, int P>
void multiply_rows(const float* a, int64_t row, int64_t, const float* const (&panels)[P], int64_t depth, float* c,
                   int64_t ldc, bool accumulate) {
  Accumulators<R, P> acc;
  acc.begin(c, ldc, accumulate);
  for (int64_t k = 0; k < depth; ++k) {
    f32x16 right[P];
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) right[p] = load(panels[p] + k * 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const f32x16 left = broadcast(a[r * row + k]);
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) acc.sum[r][p] = fma(left, right[p], acc.sum[r][p]);
    }
  }
  acc.end(c, ldc);
}

/// `rows` rows (a multiple of nothing) of one half, in register blocks.
template <int P, class T>
void multiply_half(const T* a, int64_t row, int64_t step, int64_t rows, const T* const (&panels)[P], int64_t steps,
                   float* c, int64_t ldc, bool accumulate) {
  constexpr int R = kRegisterRows;
  int64_t r = 0;
  for (; r + R <= rows; r += R) multiply_rows<R, P>(a + r * row, row, step, panels, steps, c + r * ldc, ldc, accumulate);
  if constexpr (R == 11) {
    for (; r + 5 <= rows; r += 5) multiply_rows<5, P>(a + r * row, row, step, panels, steps, c + r * ldc, ldc, accumulate);
  }
  if constexpr (R > 2) {
    for (; r + 2 <= rows; r += 2) multiply_rows<2, P>(a + r * row, row, step, panels, steps, c + r * ldc, ldc, accumulate);
  }
  for (; r < rows; ++r) multiply_rows<1, P>(a + r * row, row, step, panels, steps, c + r * ldc, ldc, accumulate);
}

/// `rows` x 32 block without AMX; steps of 32 for bf16, of 1 for float.
template <class T>
void multiply_rows_by_32(Left<T> a, int64_t rows, const T* b0, const T* b1, int64_t steps, float* c, int64_t ldc,
                         bool accumulate) {
  // Where both halves have one row pitch, the register blocks run across them.
  const bool uniform = std::is_same_v<T, float> || a.half == 16 * a.row;
  const int64_t first = uniform || rows < 16 ? rows : 16;
  auto both = [&](const T* data, int64_t count, float* out) {
    if constexpr (kRegisterPanels == 2) {
      const T* const panels[2] = {b0, b1};
      multiply_half<2>(data, a.row, a.step, count, panels, steps, out, ldc, accumulate);
    } else {
      const T* const left[1] = {b0};
      const T* const right[1] = {b1};
      multiply_half<1>(data, a.row, a.step, count, left, steps, out, ldc, accumulate);
      multiply_half<1>(data, a.row, a.step, count, right, steps, out + 16, ldc, accumulate);
    }
  };
  both(a.data, first, c);
  if (rows > first) both(a.data + a.half, rows - first, c + 16 * ldc);
}

#if defined(FATHOM_AMX)
/// Prepares this thread for multiply_ready; cheap, but not free.
inline void begin_products() { ensure_tiles(); }
#else
inline void begin_products() {}

template <class Side>
FATHOM_INLINE void multiply_ready(Left<bf16> a, const bf16* b0, const bf16* b1, int64_t steps, float* c, int64_t ldc,
                                  bool accumulate, Side&& side) {
  multiply_rows_by_32(a, kBlock, b0, b1, steps, c, ldc, accumulate);
  side.rest();
}
#endif
template <class Side>
FATHOM_INLINE void multiply_ready(Left<float> a, const float* b0, const float* b1, int64_t depth, float* c, int64_t ldc,
                                  bool accumulate, Side&& side) {
  multiply_rows_by_32(a, kBlock, b0, b1, depth, c, ldc, accumulate);
  side.rest();
}

/// multiply_ready for callers that do not prepare the thread themselves.
template <class T, class Side>
FATHOM_INLINE void multiply_32x32(Left<T> a, const T* b0, const T* b1, int64_t steps, float* c, int64_t ldc, bool accumulate,
                                  Side&& side) {
  begin_products();
  multiply_ready(a, b0, b1, steps, c, ldc, accumulate, side);
}

/// Steps of the contraction as multiply_32x32 counts them.
template <class T>
constexpr int64_t steps_of(int64_t K) {
  return std::is_same_v<T, bf16> ? packed_depth<T>(K) / 32 : K;
}

// ---- C (+)= A B for any sizes -------------------------------------------------------------------------------

/// Copies rows x columns of C between two float matrices.
FATHOM_INLINE void copy_block(float* to, int64_t ldt, const float* from, int64_t ldf, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < columns; n += 16) store(to + r * ldt + n, load(from + r * ldf + n, columns - n), columns - n);
  }
}

/// Rows of A with zeros beyond M and K, [32][packed_depth(K)].
FATHOM_INLINE void copy_rows(bf16* to, const bf16* from, int64_t lda, int64_t rows, int64_t K) {
  const int64_t depth = packed_depth<bf16>(K);
  for (int64_t r = 0; r < kBlock; ++r, to += depth) {
    for (int64_t k = 0; k < depth; k += 32) {
      const i32x16 line = r < rows && k < K ? consecutive_pairs(from + r * lda + k, K - k) : broadcast_int(0);
      store(reinterpret_cast<int32_t*>(to + k), line);
    }
  }
}

/// Contraction that a padded copy of 32 rows covers at a time; the copy stays in L1.
constexpr int64_t kCopyDepth = 256;

/// C[rows <= 32, columns <= 32] (+)= A B through copies that are padded to the block; any K.
FATHOM_INLINE void multiply_edge(const bf16* A, int64_t lda, int64_t rows, int64_t K, const bf16* b0, const bf16* b1, float* C,
                                 int64_t ldc, int64_t columns, bool accumulate) {
  alignas(64) bf16 padded[kBlock * kCopyDepth];
  alignas(64) float block[kBlock * kBlock] = {};
  if (accumulate) copy_block(block, kBlock, C, ldc, rows, columns);
  for (int64_t k = 0; k < K; k += kCopyDepth) {
    const int64_t depth = K - k < kCopyDepth ? K - k : kCopyDepth;
    copy_rows(padded, A + k, lda, rows, depth);
    multiply_32x32(row_major(padded, packed_depth<bf16>(depth)), b0 + k * 16, b1 + k * 16, steps_of<bf16>(depth), block,
                   kBlock, true, NoSideWork{});
  }
  copy_block(C, ldc, block, kBlock, rows, columns);
}
FATHOM_INLINE void multiply_edge(const float* A, int64_t lda, int64_t rows, int64_t K, const float* b0, const float* b1,
                                 float* C, int64_t ldc, int64_t columns, bool accumulate) {
  alignas(64) float block[kBlock * kBlock];
  if (accumulate) copy_block(block, kBlock, C, ldc, rows, columns);
  multiply_rows_by_32(row_major(A, lda), rows, b0, b1, K, block, kBlock, accumulate);
  copy_block(C, ldc, block, kBlock, rows, columns);
}

/// C[M, N] = (accumulate ? C : 0) + A[M, K] B; lda and ldc in elements. Reads nothing outside A[M, K].
template <class T>
void gemm_block(int64_t M, int64_t N, int64_t K, const T* A, int64_t lda, const T* packed, float* C, int64_t ldc,
                bool accumulate) {
  const bool whole_steps = std::is_same_v<T, float> || K % 32 == 0;
  for (int64_t m = 0; m < M; m += kBlock) {
    const int64_t rows = M - m < kBlock ? M - m : kBlock;
    for (int64_t n = 0; n < N; n += kBlock) {
      const int64_t columns = N - n < kBlock ? N - n : kBlock;
      const T* b0 = packed + n / 16 * panel_elements<T>(K);
      const T* b1 = columns > 16 ? b0 + panel_elements<T>(K) : b0;
      const T* a = A + m * lda;
      float* c = C + m * ldc + n;
      if (rows == kBlock && columns == kBlock && whole_steps) {
        multiply_32x32(row_major(a, lda), b0, b1, steps_of<T>(K), c, ldc, accumulate, NoSideWork{});
      } else {
        multiply_edge(a, lda, rows, K, b0, b1, c, ldc, columns, accumulate);
      }
    }
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
