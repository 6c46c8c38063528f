// Single-threaded matrix blocks for use inside a kernel's task.
//
// C[M, N] (+)= A[M, K] B[K, N], A row-major, B packed, C float row-major. Packed B, in panels of 16 columns:
//   bf16   [ceil(N / 16)][pad32(K) / 2][16][2]   one 64-byte row per pair of k: an AMX B tile row and a VDPBF16PS operand
//   float  [ceil(N / 16)][K][16]
// Rows beyond K and columns beyond N are zero.
#pragma once

#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

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

/// Where element (k, column) of a panel lies.
template <class T>
constexpr int64_t panel_index(int64_t k, int64_t column) {
  return std::is_same_v<T, bf16> ? (k / 2 * 16 + column) * 2 + k % 2 : k * 16 + column;
}

/// Packs B[k][n] = src[n * ld + k] (src is [N, K]).
template <class Dst, class Src>
void pack_nk(Dst* dst, const Src* src, int64_t N, int64_t K, int64_t ld) {
  for (int64_t n0 = 0; n0 < N; n0 += 16, dst += panel_elements<Dst>(K)) {
    const int64_t columns = N - n0 < 16 ? N - n0 : 16;
    std::memset(static_cast<void*>(dst), 0, panel_elements<Dst>(K) * sizeof(Dst));
    for (int64_t n = 0; n < columns; ++n) {
      const Src* row = src + (n0 + n) * ld;
      for (int64_t k = 0; k < K; ++k) dst[panel_index<Dst>(k, n)] = from_f32<Dst>(to_f32(row[k]));
    }
  }
}

/// Packs B[k][n] = src[k * ld + n] (src is [K, N]).
template <class Dst, class Src>
void pack_kn(Dst* dst, const Src* src, int64_t K, int64_t N, int64_t ld) {
  for (int64_t n0 = 0; n0 < N; n0 += 16, dst += panel_elements<Dst>(K)) {
    const int64_t columns = N - n0 < 16 ? N - n0 : 16;
    std::memset(static_cast<void*>(dst), 0, panel_elements<Dst>(K) * sizeof(Dst));
    for (int64_t k = 0; k < K; ++k) {
      const Src* row = src + k * ld + n0;
      for (int64_t n = 0; n < columns; ++n) dst[panel_index<Dst>(k, n)] = from_f32<Dst>(to_f32(row[n]));
    }
  }
}

/// C[M, N] = (accumulate ? C : 0) + A[M, K] B; lda and ldc in elements. Reads nothing outside A[M, K].
template <class T>
void gemm_block(int64_t M, int64_t N, int64_t K, const T* A, int64_t lda, const T* packed, float* C, int64_t ldc,
                bool accumulate) {
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; n += 16) {
      const T* panel = packed + n / 16 * panel_elements<T>(K);
      f32x16 sum = accumulate ? load(C + m * ldc + n, N - n) : zero();
      for (int64_t k = 0; k < K; ++k) {
        float column[16];
        for (int64_t j = 0; j < 16; ++j) column[j] = to_f32(panel[panel_index<T>(k, j)]);
        sum = fma(load(column), to_f32(A[m * lda + k]), sum);
      }
      store(C + m * ldc + n, sum, N - n);
    }
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
