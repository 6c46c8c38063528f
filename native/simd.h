// Sixteen-lane vectors: one source for every instruction-set level.
//
// An f32x16 is an array of the level's native vectors (one zmm, two ymm, or four 128-bit registers), so that it stays in
// registers everywhere. Kernels use the functions below and never intrinsics; a kernel that is templated over
// {float, bf16} loads either with the same call.
//
//   f32x16 x = load(p);          p: const float* or const bf16*, any alignment
//   f32x16 x = load(p, n);       first n lanes (0 <= n <= 16), the others 0; reads no byte past p[n - 1]
//   store(p, x); store(p, x, n)  p: float* or bf16* (round to nearest even, NaN stays NaN, subnormals kept)
//   x + y, x * 2.0f, fma(a, b, c) = a * b + c (one rounding from avx2 up, two in portable), min, max, abs, sqrt
//   mask = x < y (also <=, >, >=, ==); select(mask, a, b)
//   hsum(x), hmax(x), hmin(x): fixed tree (i with i+8, i+4, i+2, i+1), the same at every level
//   exp(x) <= 2 ulp over all floats incl. subnormal results; log(x) <= 2 ulp for normal x; sigmoid(x)
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "types.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fathom {
namespace FATHOM_ISA_NS {

#if defined(__AVX512F__)
constexpr int kNative = 16;
#elif defined(__AVX2__)
constexpr int kNative = 8;
#else
constexpr int kNative = 4;
#endif
constexpr int kParts = 16 / kNative;

typedef float nf32 __attribute__((vector_size(kNative * 4)));
typedef int32_t ni32 __attribute__((vector_size(kNative * 4)));
typedef uint32_t nu32 __attribute__((vector_size(kNative * 4)));
typedef uint16_t nu16 __attribute__((vector_size(kNative * 2)));

struct f32x16 {
  nf32 p[kParts];
};
/// Sixteen int32; also the result of comparisons: all bits set where true.
struct i32x16 {
  ni32 p[kParts];
};

#define FATHOM_EACH_PART _Pragma("GCC unroll 4") for (int part = 0; part < kParts; ++part)

FATHOM_INLINE f32x16 broadcast(float value) {
  f32x16 r;
  FATHOM_EACH_PART r.p[part] = value - nf32{};  // x - 0 is x, signed zero too; compilers know
  return r;
}
FATHOM_INLINE i32x16 broadcast_int(int32_t value) {
  i32x16 r;
  FATHOM_EACH_PART r.p[part] = ni32{} + value;
  return r;
}
FATHOM_INLINE f32x16 zero() { return broadcast(0.0f); }

#define FATHOM_BINARY(OP)                                                                  \
  FATHOM_INLINE f32x16 operator OP(f32x16 a, f32x16 b) {                                   \
    FATHOM_EACH_PART a.p[part] = a.p[part] OP b.p[part];                                   \
    return a;                                                                              \
  }                                                                                        \
  FATHOM_INLINE f32x16 operator OP(f32x16 a, float b) { return a OP broadcast(b); }        \
  FATHOM_INLINE f32x16 operator OP(float a, f32x16 b) { return broadcast(a) OP b; }        \
  FATHOM_INLINE f32x16& operator OP##=(f32x16& a, f32x16 b) { return a = a OP b; }         \
  FATHOM_INLINE f32x16& operator OP##=(f32x16& a, float b) { return a = a OP broadcast(b); }
FATHOM_BINARY(+)
FATHOM_BINARY(-)
FATHOM_BINARY(*)
FATHOM_BINARY(/)
#undef FATHOM_BINARY

#define FATHOM_COMPARE(OP)                                                          \
  FATHOM_INLINE i32x16 operator OP(f32x16 a, f32x16 b) {                            \
    i32x16 r;                                                                       \
    FATHOM_EACH_PART r.p[part] = a.p[part] OP b.p[part];                            \
    return r;                                                                       \
  }                                                                                 \
  FATHOM_INLINE i32x16 operator OP(f32x16 a, float b) { return a OP broadcast(b); } \
  FATHOM_INLINE i32x16 operator OP(i32x16 a, i32x16 b) {                            \
    FATHOM_EACH_PART a.p[part] = a.p[part] OP b.p[part];                            \
    return a;                                                                       \
  }
FATHOM_COMPARE(<)
FATHOM_COMPARE(<=)
FATHOM_COMPARE(>)
FATHOM_COMPARE(>=)
FATHOM_COMPARE(==)
FATHOM_COMPARE(!=)
#undef FATHOM_COMPARE

#define FATHOM_INT_BINARY(OP)                            \
  FATHOM_INLINE i32x16 operator OP(i32x16 a, i32x16 b) { \
    FATHOM_EACH_PART a.p[part] = a.p[part] OP b.p[part]; \
    return a;                                            \
  }                                                      \
  FATHOM_INLINE i32x16 operator OP(i32x16 a, int32_t b) { return a OP broadcast_int(b); }
FATHOM_INT_BINARY(+)
FATHOM_INT_BINARY(-)
FATHOM_INT_BINARY(&)
FATHOM_INT_BINARY(|)
FATHOM_INT_BINARY(^)
#undef FATHOM_INT_BINARY

FATHOM_INLINE f32x16 operator-(f32x16 a) {
  FATHOM_EACH_PART a.p[part] = -a.p[part];
  return a;
}
FATHOM_INLINE i32x16 operator~(i32x16 a) {
  FATHOM_EACH_PART a.p[part] = ~a.p[part];
  return a;
}
FATHOM_INLINE i32x16 shift_left(i32x16 a, int bits) {
  FATHOM_EACH_PART a.p[part] = a.p[part] << bits;
  return a;
}
/// Logical (zero filling) shift.
FATHOM_INLINE i32x16 shift_right(i32x16 a, int bits) {
  FATHOM_EACH_PART a.p[part] = (ni32)((nu32)a.p[part] >> bits);
  return a;
}

FATHOM_INLINE i32x16 bits_of(f32x16 a) {
  i32x16 r;
  FATHOM_EACH_PART r.p[part] = (ni32)a.p[part];
  return r;
}
FATHOM_INLINE f32x16 float_of_bits(i32x16 a) {
  f32x16 r;
  FATHOM_EACH_PART r.p[part] = (nf32)a.p[part];
  return r;
}
FATHOM_INLINE f32x16 to_float(i32x16 a) {
  f32x16 r;
  FATHOM_EACH_PART r.p[part] = __builtin_convertvector(a.p[part], nf32);
  return r;
}
/// Truncates towards zero; the value must fit.
FATHOM_INLINE i32x16 to_int(f32x16 a) {
  i32x16 r;
  FATHOM_EACH_PART r.p[part] = __builtin_convertvector(a.p[part], ni32);
  return r;
}

FATHOM_INLINE f32x16 select(i32x16 mask, f32x16 a, f32x16 b) {
  FATHOM_EACH_PART a.p[part] = mask.p[part] ? a.p[part] : b.p[part];
  return a;
}
FATHOM_INLINE i32x16 select(i32x16 mask, i32x16 a, i32x16 b) {
  FATHOM_EACH_PART a.p[part] = mask.p[part] ? a.p[part] : b.p[part];
  return a;
}

/// a < b ? a : b, lane by lane: a NaN in either operand gives b.
FATHOM_INLINE f32x16 min(f32x16 a, f32x16 b) {
  FATHOM_EACH_PART a.p[part] = a.p[part] < b.p[part] ? a.p[part] : b.p[part];
  return a;
}
/// a > b ? a : b, lane by lane: a NaN in either operand gives b.
FATHOM_INLINE f32x16 max(f32x16 a, f32x16 b) {
  FATHOM_EACH_PART a.p[part] = a.p[part] > b.p[part] ? a.p[part] : b.p[part];
  return a;
}
FATHOM_INLINE i32x16 max(i32x16 a, i32x16 b) {
  FATHOM_EACH_PART a.p[part] = a.p[part] > b.p[part] ? a.p[part] : b.p[part];
  return a;
}
FATHOM_INLINE f32x16 abs(f32x16 a) { return float_of_bits(bits_of(a) & 0x7fffffff); }

FATHOM_INLINE i32x16 abs(i32x16 a) {
  FATHOM_EACH_PART a.p[part] = a.p[part] < 0 ? -a.p[part] : a.p[part];
  return a;
}

FATHOM_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
  c.p[0] = (nf32)_mm512_fmadd_ps((__m512)a.p[0], (__m512)b.p[0], (__m512)c.p[0]);
#elif defined(__FMA__)
  FATHOM_EACH_PART c.p[part] = (nf32)_mm256_fmadd_ps((__m256)a.p[part], (__m256)b.p[part], (__m256)c.p[part]);
#else
  FATHOM_EACH_PART c.p[part] = a.p[part] * b.p[part] + c.p[part];
#endif
  return c;
}
FATHOM_INLINE f32x16 fma(f32x16 a, float b, f32x16 c) { return fma(a, broadcast(b), c); }

FATHOM_INLINE f32x16 sqrt(f32x16 a) {
#if defined(__AVX512F__)
  a.p[0] = (nf32)_mm512_sqrt_ps((__m512)a.p[0]);
#elif defined(__AVX2__)
  FATHOM_EACH_PART a.p[part] = (nf32)_mm256_sqrt_ps((__m256)a.p[part]);
#else
  FATHOM_EACH_PART for (int i = 0; i < kNative; ++i) a.p[part][i] = std::sqrt(a.p[part][i]);
#endif
  return a;
}

// Loads and stores. memcpy of a native vector is one unaligned move.

FATHOM_INLINE f32x16 load(const float* p) {
  f32x16 r;
  FATHOM_EACH_PART std::memcpy(&r.p[part], p + part * kNative, sizeof(nf32));
  return r;
}
FATHOM_INLINE void store(float* p, f32x16 x) {
  FATHOM_EACH_PART std::memcpy(p + part * kNative, &x.p[part], sizeof(nf32));
}
FATHOM_INLINE i32x16 load(const int32_t* p) {
  i32x16 r;
  FATHOM_EACH_PART std::memcpy(&r.p[part], p + part * kNative, sizeof(ni32));
  return r;
}
FATHOM_INLINE void store(int32_t* p, i32x16 x) {
  FATHOM_EACH_PART std::memcpy(p + part * kNative, &x.p[part], sizeof(ni32));
}

/// Zero-extends sixteen uint16.
FATHOM_INLINE i32x16 widen16(const uint16_t* p) {
#if defined(__AVX512F__)
  return {(ni32)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))};
#elif defined(__AVX2__)
  return {{(ni32)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)),
           (ni32)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p + 8)))}};
#else
  i32x16 r;
  FATHOM_EACH_PART {
    nu16 half;
    std::memcpy(&half, p + part * kNative, sizeof(half));
    r.p[part] = (ni32)__builtin_convertvector(half, nu32);
  }
  return r;
#endif
}
/// Stores the low 16 bits of each lane; the lanes must be below 2^16.
FATHOM_INLINE void narrow16(uint16_t* p, i32x16 x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)x.p[0]));
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packus_epi32((__m256i)x.p[0], (__m256i)x.p[1]);
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(packed, 0xd8));
#else
  FATHOM_EACH_PART {
    const nu16 half = __builtin_convertvector((nu32)x.p[part], nu16);
    std::memcpy(p + part * kNative, &half, sizeof(half));
  }
#endif
}

/// Zero-extends sixteen bytes.
FATHOM_INLINE i32x16 widen8(const uint8_t* p) {
#if defined(__AVX512F__)
  return {(ni32)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))};
#elif defined(__AVX2__)
  return {{(ni32)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)),
           (ni32)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8)))}};
#else
  int32_t wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = p[i];
  return load(wide);
#endif
}
/// Stores the low byte of each lane.
FATHOM_INLINE void narrow8(uint8_t* p, i32x16 x) {
#if defined(__AVX512F__)
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)x.p[0]));
#else
  int32_t wide[16];
  store(wide, x);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(wide[i]);
#endif
}

/// The bfloat16 bits of each lane: round to nearest even in integer arithmetic, every NaN as 0x7fc0. VCVTNEPS2BF16 would flush
/// subnormals and so differ from the other levels and from PyTorch.
FATHOM_INLINE i32x16 bf16_bits(f32x16 x) {
  const i32x16 bits = bits_of(x);
  const i32x16 rounded = shift_right(bits + (shift_right(bits, 16) & 1) + 0x7fff, 16);
  return select((bits & 0x7fffffff) > broadcast_int(0x7f800000), broadcast_int(0x7fc0), rounded);
}

FATHOM_INLINE f32x16 load(const bf16* p) {
  return float_of_bits(shift_left(widen16(reinterpret_cast<const uint16_t*>(p)), 16));
}
FATHOM_INLINE void store(bf16* p, f32x16 x) { narrow16(reinterpret_cast<uint16_t*>(p), bf16_bits(x)); }

/// Stores two vectors, one behind the other.
FATHOM_INLINE void store(float* p, f32x16 a, f32x16 b) {
  store(p, a);
  store(p + 16, b);
}
FATHOM_INLINE void store(bf16* p, f32x16 a, f32x16 b) {
#if defined(__AVX512BF16__) && defined(__AVX512DQ__)
  // One instruction for both, but for subnormals, which it takes for zero, and NaN, whose bits it keeps.
  constexpr int kNanOrSubnormal = 0x80 | 0x20 | 0x01;
  const __m512 low = (__m512)a.p[0], high = (__m512)b.p[0];
  if (__builtin_expect((_mm512_fpclass_ps_mask(low, kNanOrSubnormal) | _mm512_fpclass_ps_mask(high, kNanOrSubnormal)) == 0, 1)) {
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    std::memcpy(p, &both, sizeof(both));
    return;
  }
#endif
  store(p, a);
  store(p + 16, b);
}

/// Loads the first n of sixteen elements; the others are zero.
template <class T>
FATHOM_INLINE auto load(const T* p, int64_t n) {
  if (n >= 16) return load(p);
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (sizeof(T) == 4) {
    decltype(load(p)) r;
    const __m512i bits = _mm512_maskz_loadu_epi32(mask, p);
    std::memcpy(&r, &bits, sizeof(r));
    return r;
  } else {
    alignas(32) T buffer[16];
    _mm256_store_si256((__m256i*)buffer, _mm256_maskz_loadu_epi16(mask, p));
    return load(buffer);
  }
#else
  T buffer[16] = {};
  for (int64_t i = 0; i < n; ++i) buffer[i] = p[i];
  return load(buffer);
#endif
}

/// Stores the first n of sixteen lanes.
template <class T, class V>
FATHOM_INLINE void store(T* p, V x, int64_t n) {
  if (n >= 16) return store(p, x);
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_epi32(p, mask, (__m512i)x.p[0]);
  } else {
    _mm256_mask_storeu_epi16(p, mask, _mm512_cvtepi32_epi16((__m512i)bf16_bits(x).p[0]));
  }
#else
  T buffer[16];
  store(buffer, x);
  for (int64_t i = 0; i < n; ++i) p[i] = buffer[i];
#endif
}

FATHOM_INLINE float to_f32(float x) { return x; }
FATHOM_INLINE float to_f32(bf16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float r;
  std::memcpy(&r, &bits, 4);
  return r;
}
FATHOM_INLINE bf16 to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return bf16{0x7fc0};
  return bf16{static_cast<uint16_t>((bits + (bits >> 16 & 1) + 0x7fff) >> 16)};
}
template <class T>
FATHOM_INLINE T from_f32(float x) {
  if constexpr (std::is_same_v<T, bf16>) return to_bf16(x);
  else return x;
}

// Reductions over the lanes, always in the order of the comment at the top of this file.

template <class Op>
FATHOM_INLINE float reduce_lanes(f32x16 x, Op op) {
#pragma GCC unroll 4
  for (int step = kParts / 2; step > 0; step /= 2) {
    for (int part = 0; part < step; ++part) x.p[part] = op(x.p[part], x.p[part + step]);
  }
  float lane[kNative];
  std::memcpy(lane, &x.p[0], sizeof(lane));
#pragma GCC unroll 4
  for (int step = kNative / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lane[i] = op(lane[i], lane[i + step]);
  }
  return lane[0];
}
FATHOM_INLINE float hsum(f32x16 x) {
  return reduce_lanes(x, [](auto a, auto b) { return a + b; });
}
FATHOM_INLINE float hmax(f32x16 x) {
  return reduce_lanes(x, [](auto a, auto b) { return a > b ? a : b; });
}
FATHOM_INLINE float hmin(f32x16 x) {
  return reduce_lanes(x, [](auto a, auto b) { return a < b ? a : b; });
}

/// Largest lane.
FATHOM_INLINE int32_t hmax(i32x16 x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)x.p[0]);
#else
  int32_t lane[16];
  store(lane, x);
  int32_t largest = lane[0];
  for (int i = 1; i < 16; ++i) largest = lane[i] > largest ? lane[i] : largest;
  return largest;
#endif
}

/// Transposes a 16 x 16 matrix of 32-bit elements, one row per vector.
FATHOM_INLINE void transpose16(i32x16 (&rows)[16]) {
#if defined(__AVX512F__)
  __m512i a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {  // 32-bit pairs of neighbouring rows
    a[i] = _mm512_unpacklo_epi32((__m512i)rows[i].p[0], (__m512i)rows[i + 1].p[0]);
    a[i + 1] = _mm512_unpackhi_epi32((__m512i)rows[i].p[0], (__m512i)rows[i + 1].p[0]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // 64-bit pairs: b[i + j] holds, per 128-bit lane l, column 4l + j of rows i..i+3
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {  // 4 x 4 transpose of the 128-bit lanes
    const __m512i low01 = _mm512_shuffle_i32x4(b[j], b[j + 4], 0x44), high01 = _mm512_shuffle_i32x4(b[j], b[j + 4], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(b[j + 8], b[j + 12], 0x44), high23 = _mm512_shuffle_i32x4(b[j + 8], b[j + 12], 0xee);
    rows[j].p[0] = (ni32)_mm512_shuffle_i32x4(low01, low23, 0x88);
    rows[j + 4].p[0] = (ni32)_mm512_shuffle_i32x4(low01, low23, 0xdd);
    rows[j + 8].p[0] = (ni32)_mm512_shuffle_i32x4(high01, high23, 0x88);
    rows[j + 12].p[0] = (ni32)_mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
#else
  int32_t in[16][16], out[16][16];
  for (int i = 0; i < 16; ++i) store(in[i], rows[i]);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) out[j][i] = in[i][j];
  }
  for (int i = 0; i < 16; ++i) rows[i] = load(out[i]);
#endif
}

/// Nearest integer, ties to even, for |x| < 2^22 (adding 1.5 * 2^23 leaves no fraction bits).
FATHOM_INLINE f32x16 round_small(f32x16 x) {
  const f32x16 magic = broadcast(12582912.0f);
  return (x + magic) - magic;  // no -fassociative-math, so the pair stays
}

/// 2^n for integer-valued n in [-126, 127].
FATHOM_INLINE f32x16 power_of_two(f32x16 n) { return float_of_bits(shift_left(to_int(n) + 127, 23)); }

/// e^x. Reduction x = n ln2 + r, |r| <= ln2 / 2, with ln2 in two parts (Cody and Waite); the polynomial is the
/// Taylor series of degree 7, whose truncation is below 2^-27 relative there. 2^n is applied in two factors so
/// that subnormal results round once.
FATHOM_INLINE f32x16 exp(f32x16 x) {
  const f32x16 high = broadcast(89.0f), low = broadcast(-105.0f);  // e^x overflows / is 0 beyond these
  const f32x16 clamped = max(low, min(high, x));                   // min/max return their second operand for NaN
  const f32x16 n = round_small(clamped * 1.44269504088896341f);
  f32x16 r = fma(n, -0.693145751953125f, clamped);  // ln2 rounded to 16 bits: n * hi is exact
  r = fma(n, -1.42860682030941723212e-6f, r);
  f32x16 y = broadcast(1.0f / 5040);
  y = fma(y, r, broadcast(1.0f / 720));
  y = fma(y, r, broadcast(1.0f / 120));
  y = fma(y, r, broadcast(1.0f / 24));
  y = fma(y, r, broadcast(1.0f / 6));
  y = fma(y, r, broadcast(0.5f));
  y = fma(y * r, r, r) + 1.0f;
#if defined(__AVX512F__)
  y.p[0] = (nf32)_mm512_scalef_ps((__m512)y.p[0], (__m512)n.p[0]);
  return y;
#else
  const f32x16 half = round_small(n * 0.5f);
  return y * power_of_two(half) * power_of_two(n - half);
#endif
}

/// Natural logarithm. x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), series to
/// s^11. log 0 = -inf, log of a negative or NaN is NaN, log inf = inf.
FATHOM_INLINE f32x16 log(f32x16 x) {
  const f32x16 tiny = broadcast(1.17549435e-38f);  // smallest normal binary32
  const i32x16 subnormal = x < tiny;
  const f32x16 scaled = select(subnormal, x * 8388608.0f, x);  // 2^23
  const i32x16 bits = bits_of(scaled);
  const i32x16 offset = bits - 0x3f3504f3;  // sqrt(1/2)
  i32x16 exponent;
  FATHOM_EACH_PART exponent.p[part] = offset.p[part] >> 23;
  const f32x16 m = float_of_bits(bits - shift_left(exponent, 23));
  const f32x16 e = to_float(exponent) - select(subnormal, broadcast(23.0f), zero());
  const f32x16 f = m - 1.0f;
  const f32x16 s = f / (f + 2.0f);
  const f32x16 s2 = s * s;
  f32x16 series = broadcast(2.0f / 11);
  series = fma(series, s2, broadcast(2.0f / 9));
  series = fma(series, s2, broadcast(2.0f / 7));
  series = fma(series, s2, broadcast(2.0f / 5));
  series = fma(series, s2, broadcast(2.0f / 3));
  const f32x16 half_square = f * f * 0.5f;
  // log(1 + f) = f - (f^2/2 - s (f^2/2 + s^2 series)): the large term is added last.
  const f32x16 tail = fma(s, fma(series, s2, half_square), e * 1.42860682030941723212e-6f);
  f32x16 y = fma(e, broadcast(0.693145751953125f), f - (half_square - tail));
  const float infinity = std::numeric_limits<float>::infinity();
  y = select(x == broadcast(infinity), x, y);
  y = select(x == zero(), broadcast(-infinity), y);
  return select(x >= zero(), y, broadcast(std::numeric_limits<float>::quiet_NaN()));
}

/// 1 / (1 + e^-x)
FATHOM_INLINE f32x16 sigmoid(f32x16 x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
