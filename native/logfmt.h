// LogFMT-n on tiles of 1x128, n = 4..16 (src/numerics/logfmt.ts is the reference and describes format and wire layout).
//
// Bit for bit the reference: FP64 operations stand there in the same order (elementary.h). Encoding estimates the code in
// FP32 with an error bound; where a value lies within that bound of the point between two codes, the reference's exact
// comparison decides.
//
// Legend: n bits; K magnitude code 0 .. 2^(n-1) - 1; a group is up to eight tiles, whose logarithms and
// exponentials are computed side by side (the compiler vectorises loops over a group).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "elementary.h"
#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr int kLogFmtTile = 128;
constexpr int kLogFmtHeaderBytes = 8;
constexpr int kGroup = 8;

/// Eight doubles; the compiler splits them where vectors are shorter.
typedef double f64x8 __attribute__((vector_size(64)));
typedef int64_t i64x8 __attribute__((vector_size(64)));

// ---- The grid of a tile -----------------------------------------------------------------------------------------

/// Exponentials per tile: e^(min - step), and e^(step 2^b) for b = 0, 3, 6, 9, 12; the powers between come by squaring.
constexpr int kMaxExponentials = 6;
constexpr int exponentials(int bits) { return 1 + (bits + 1) / 3; }

/// Fills exps[i][tile] with the exponentials that the grids of a group need.
FATHOM_INLINE void grid_exponentials(const float* min, const float* step, int bits, double (*exps)[kGroup]) {
  for (int tile = 0; tile < kGroup; ++tile) exps[0][tile] = exact_exp(static_cast<double>(min[tile]) - step[tile]);
  double scale = 1;
  for (int i = 1; i < exponentials(bits); ++i, scale *= 8) {
    for (int tile = 0; tile < kGroup; ++tile) exps[i][tile] = exact_exp(step[tile] * scale);
  }
}

/// The value of code c, sign included, but for those with K = 0: (middle[c >> 4 & 15] * low[c & 15]) * high[c >> 8].
/// `middle` includes e^(min - step), and the sign is one more bit whose factor is -1.
struct LogFmtGrid {
  alignas(64) double low[16];
  alignas(64) double middle[16];
  alignas(64) double high[256];
  int top;

  void fill(const double (*exps)[kGroup], int tile, float step, int bits) {
    double powers[16];
    for (int b = 0; b < 16; ++b) powers[b] = 1;
    for (int b = 0; b < bits - 1; ++b) powers[b] = b % 3 == 0 ? exps[1 + b / 3][tile] : powers[b - 1] * powers[b - 1];
    powers[bits - 1] = -1;
    top = step == 0 ? 1 : (1 << (bits - 1)) - 1;
    const f64x8 none = f64x8{} + 1.0, low_half = eight(none, powers), middle_half = eight(none * exps[0][tile], powers + 4);
    put(low, low_half);
    put(low + 8, low_half * powers[3]);
    put(middle, middle_half);
    put(middle + 8, middle_half * powers[7]);
    put(high, eight(none, powers + 8));
    for (int b = 3; b < bits - 8; ++b) {
      for (int i = 0; i < 1 << b; ++i) high[i + (1 << b)] = high[i] * powers[8 + b];
    }
  }

  /// first times those of three powers whose bit is set in the lane's number, in ascending order.
  static FATHOM_INLINE f64x8 eight(f64x8 first, const double* powers) {
    const f64x8 one = f64x8{} + 1.0;
    const i64x8 odd = {0, -1, 0, -1, 0, -1, 0, -1}, pairs = {0, 0, -1, -1, 0, 0, -1, -1}, fours = {0, 0, 0, 0, -1, -1, -1, -1};
    const f64x8 a = odd ? one * powers[0] : one, b = pairs ? one * powers[1] : one, c = fours ? one * powers[2] : one;
    return first * a * b * c;
  }

  static FATHOM_INLINE void put(double* to, f64x8 values) { std::memcpy(to, &values, sizeof(values)); }

  double product(int code) const { return middle[code >> 4 & 15] * low[code & 15] * high[code >> 8]; }

  /// Magnitude of K.
  float magnitude(int k) const {
    return k == 0 ? 0 : std::min(static_cast<float>(product(k)), std::numeric_limits<float>::max());
  }

  /// Whether no magnitude exceeds what FP32 holds: 2^128 - 2^103 is where rounding gives infinity.
  bool fits() const { return product(top) < 0x1.ffffffp127; }

  /// The code for magnitude x, by exact comparison, from a guess.
  int nearest(float x, int guess, bool linear) const {
    if (x == 0) return 0;
    int k = guess < 0 ? 0 : guess > top ? top : guess;
    while (k > 0 && magnitude(k) > x) --k;
    while (k < top && magnitude(k + 1) <= x) ++k;
    if (k == top) return k;
    const double value = x, low = magnitude(k), high = magnitude(k + 1);
    const double excess = linear ? value - low - (high - value) : k == 0 ? 1.0 : value * value - low * high;
    return excess > 0 || (excess == 0 && k % 2 == 1) ? k + 1 : k;
  }
};

// ---- Packing: src/numerics/packing.ts ---------------------------------------------------------------------------

/// The low n bits of four 16-bit codes, side by side.
FATHOM_INLINE uint64_t squeeze4(const uint16_t* codes, int bits) {
  uint64_t four;
  std::memcpy(&four, codes, 8);
#if defined(__BMI2__)
  return _pext_u64(four, 0x0001000100010001ull * ((1u << bits) - 1));
#else
  uint64_t packed = 0;
  for (int i = 0; i < 4; ++i) packed |= (four >> (16 * i) & 0xffff) << (bits * i);
  return packed;
#endif
}

/// The inverse of squeeze4; higher bits of `packed` are ignored.
FATHOM_INLINE void spread4(uint64_t packed, int bits, uint16_t* codes) {
#if defined(__BMI2__)
  const uint64_t four = _pdep_u64(packed, 0x0001000100010001ull * ((1u << bits) - 1));
#else
  uint64_t four = 0;
  for (int i = 0; i < 4; ++i) four |= (packed >> (bits * i) & ((1u << bits) - 1)) << (16 * i);
#endif
  std::memcpy(codes, &four, 8);
}

/// Packs 128 codes; writes up to 16 bytes beyond the 16 n that count.
FATHOM_INLINE void pack_tile(const uint16_t* codes, int bits, uint8_t* out) {
  for (int i = 0; i < kLogFmtTile; i += 8, out += bits) {
    const uint64_t low = squeeze4(codes + i, bits), high = squeeze4(codes + i + 4, bits);
    const uint64_t first = bits == 16 ? low : low | high << (4 * bits);
    const uint64_t second = bits == 16 ? high : bits > 8 ? high >> (64 - 4 * bits) : 0;
    std::memcpy(out, &first, 8);
    if (bits > 8) std::memcpy(out + 8, &second, 8);
  }
}

/// Unpacks 128 codes; reads up to 16 bytes beyond the 16 n that count.
FATHOM_INLINE void unpack_tile(const uint8_t* in, int bits, uint16_t* codes) {
  for (int i = 0; i < kLogFmtTile; i += 8, in += bits) {
    uint64_t first, second = 0;
    std::memcpy(&first, in, 8);
    if (bits > 8) std::memcpy(&second, in + 8, 8);
    const uint64_t high = bits == 16 ? second : bits > 8 ? first >> (4 * bits) | second << (64 - 4 * bits) : first >> (4 * bits);
    spread4(first, bits, codes + i);
    spread4(high, bits, codes + i + 4);
  }
}

// ---- Encoding ---------------------------------------------------------------------------------------------------

/// Smallest non-zero and largest magnitude of 128 values, as FP32 bits; both 0 if all are zero.
struct MagnitudeRange {
  uint32_t least, most;
  bool has_zero;
};

/// op over the lanes as unsigned integers, in the order of reduce_lanes.
template <class Op>
FATHOM_INLINE uint32_t reduce_unsigned(i32x16 x, Op op) {
  for (int step = kParts / 2; step > 0; step /= 2) {
    for (int part = 0; part < step; ++part) x.p[part] = (ni32)op((nu32)x.p[part], (nu32)x.p[part + step]);
  }
  uint32_t lane[kNative];
  std::memcpy(lane, &x.p[0], sizeof(lane));
#pragma GCC unroll 4
  for (int step = kNative / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lane[i] = op(lane[i], lane[i + step]);
  }
  return lane[0];
}

template <class T>
FATHOM_INLINE MagnitudeRange magnitude_range(const T* values) {
  const auto larger = [](auto a, auto b) { return a > b ? a : b; };
  const auto smaller = [](auto a, auto b) { return a < b ? a : b; };
  i32x16 most = broadcast_int(0), most_before = most, least_before = broadcast_int(-1);
#pragma GCC unroll 8
  for (int i = 0; i < kLogFmtTile; i += 16) {
    const i32x16 magnitude = bits_of(load(values + i)) & INT32_MAX;
    const i32x16 before = magnitude - 1;  // as an unsigned number, zero becomes the largest of all
    FATHOM_EACH_PART {
      most.p[part] = (ni32)larger((nu32)most.p[part], (nu32)magnitude.p[part]);
      most_before.p[part] = (ni32)larger((nu32)most_before.p[part], (nu32)before.p[part]);
      least_before.p[part] = (ni32)smaller((nu32)least_before.p[part], (nu32)before.p[part]);
    }
  }
  return {reduce_unsigned(least_before, smaller) + 1, reduce_unsigned(most, larger),
          reduce_unsigned(most_before, larger) == UINT32_MAX};
}

/// What the estimate of a tile's codes takes: K = 1 + round(log2(|x| / 2^exponent) scale + offset), safe where the
/// rounding distance stays below `safe`.
struct EncodePlan {
  float min, step;
  float scale, offset, safe;
  int32_t exponent_bits;  // exponent of the first grid value, in place in FP32 bits
  float first;            // magnitude of K = 1
  float flush;            // of the values below `first`, those above this become K = 1, the others zero
  int top;
  bool below;  // whether values may lie below `first` by more than its rounding
  bool exact;  // whether the estimate is of no use: grid too fine for FP32, or subnormal values
};

/// The middle between two neighbours on the grid, as a share of the step in logarithm: ln((1 + e^step) / 2) / step,
/// by its series (error below 1e-7 up to a step of 0.36) or as it stands.
inline double middle_of_step(double s) {
  if (s < 0.36) return 0.5 + s * (1.0 / 8 + s * s * (-1.0 / 192 + s * s * (1.0 / 2880)));
  return std::log((1 + std::exp(s)) / 2) / s;
}

/// Bound of the estimate's error from log2, in units of log2: the polynomial (1.85e-6), its roundings, and the FP32
/// roundings of the grid values (2^-24 relative, times log2 e).
constexpr double kLog2Error = 2.5e-6;

FATHOM_INLINE EncodePlan plan_encoding(const MagnitudeRange& range, double first, double min_log, double step_log,
                                       double first_value, int bits, bool linear) {
  EncodePlan plan;
  plan.min = static_cast<float>(min_log);
  plan.step = static_cast<float>(step_log);
  plan.first = static_cast<float>(first_value);
  if (!(plan.first < std::numeric_limits<float>::max())) plan.first = std::numeric_limits<float>::max();
  const auto first_float = static_cast<float>(first);
  uint32_t first_bits;
  std::memcpy(&first_bits, &first_float, 4);
  plan.exponent_bits = static_cast<int32_t>(first_bits & 0x7f800000);
  plan.flush = linear ? plan.first / 2 : 0;
  plan.below = range.has_zero || range.least < first_bits;
  plan.top = plan.step == 0 ? 1 : (1 << (bits - 1)) - 1;
  const double log2_min = plan.min * 1.4426950408889634 - (static_cast<int>(first_bits >> 23) - 127);
  const double scale = plan.step == 0 ? 0 : 0.6931471805599453 / plan.step;
  const double middle = linear ? middle_of_step(plan.step) : 0.5;
  plan.scale = static_cast<float>(scale);
  plan.offset = static_cast<float>(0.5 - middle - log2_min * scale);
  // Roundings of scale, offset, and the two fused multiply-adds, each at most 2^-24 of a number below
  // 2^(bits-1) + scale + 1; doubled for the levels that round the products too.
  const double roundings = (6.0 * (1 << (bits - 1)) + 6 * scale + 6) * 0x1p-24;
  const double error = scale * kLog2Error + roundings;
  plan.safe = plan.step == 0 ? 1.0f : static_cast<float>(0.5 - error);
  plan.exact = error > 0.25 || range.least < 0x01800000;  // 2^-124: `flush` is exact from there
  return plan;
}

/// log2(1 + t) for t in [0, 1), to 1.85e-6: minimax polynomial.
FATHOM_INLINE f32x16 log2_1p(f32x16 t) {
  f32x16 y = broadcast(-0.0256910789725f);
  y = fma(y, t, broadcast(0.121002207072f));
  y = fma(y, t, broadcast(-0.276540704478f));
  y = fma(y, t, broadcast(0.456521641056f));
  y = fma(y, t, broadcast(-0.71779107163f));
  y = fma(y, t, broadcast(1.44249531559f));
  return fma(y, t, broadcast(1.84568251681e-6f));
}

/// Codes of 16 values by the estimate; `distance` receives how far each was rounded, 0 where the comparison is exact.
template <bool Below>
FATHOM_INLINE i32x16 estimate_codes(f32x16 x, const EncodePlan& plan, int bits, f32x16& distance) {
  const i32x16 pattern = bits_of(x);
  const i32x16 magnitude = pattern & INT32_MAX;
  const f32x16 exponent = to_float(shift_right(magnitude - plan.exponent_bits, 23));
  const f32x16 fraction = float_of_bits((pattern & 0x007fffff) | 0x3f800000) - 1.0f;
  const f32x16 position = fma(log2_1p(fraction), plan.scale, fma(exponent, plan.scale, broadcast(plan.offset)));
  const f32x16 magic = broadcast(12582912.0f);  // 1.5 * 2^23 leaves no fraction bits
  const f32x16 shifted = position + magic;
  distance = abs(position - (shifted - magic));
  i32x16 k = bits_of(shifted) - (0x4b400000 - 1);
  const i32x16 one = broadcast_int(1), top = broadcast_int(plan.top);
  k = select(k < one, one, k);
  k = select(k > top, top, k);
  if constexpr (Below) {
    const f32x16 size = float_of_bits(magnitude);
    const i32x16 low = size < broadcast(plan.first);
    k = select(low, (size > broadcast(plan.flush)) & 1, k);
    distance = select(low, zero(), distance);
  }
  return k | (shift_right(pattern, 32 - bits) & (1 << (bits - 1)));
}

/// Estimates all codes of a tile. Returns whether one is too close to call; `distances` tell which.
template <bool Below, class T>
FATHOM_INLINE bool estimate_tile(const T* values, const EncodePlan& plan, int bits, uint16_t* codes, float* distances) {
  f32x16 furthest = zero();
#pragma GCC unroll 8
  for (int i = 0; i < kLogFmtTile; i += 16) {
    f32x16 distance;
    narrow16(codes + i, estimate_codes<Below>(load(values + i), plan, bits, distance));
    store(distances + i, distance);
    furthest = max(furthest, distance);
  }
  return hmax(furthest) >= plan.safe;
}

/// Codes of a tile by the reference's comparison: all of them, or those that were rounded further than is safe.
template <class T>
inline void compare_tile(const T* values, const LogFmtGrid& grid, const EncodePlan& plan, int bits, bool linear,
                         uint16_t* codes, const float* distances) {
  const int mask = (1 << (bits - 1)) - 1;
  for (int i = 0; i < kLogFmtTile; ++i) {
    if (distances && distances[i] < plan.safe) continue;
    const float x = to_f32(values[i]);
    const float size = std::fabs(x);
    const int guess = distances ? codes[i] & mask : plan.step == 0 ? 1 : static_cast<int>((std::log(size) - plan.min) / plan.step);
    codes[i] = static_cast<uint16_t>(grid.nearest(size, size == 0 ? 0 : guess, linear) | (std::signbit(x) ? mask + 1 : 0));
  }
}

/// Up to eight tiles of 128 values on their way to the wire.
template <class T>
struct LogFmtEncoder {
  int bits;
  bool linear;

  /// Encodes tiles values[i] to out[i], each 8 + 16 n bytes. Returns the first tile that is not finite, or -1.
  int group(const T* const* values, uint8_t* const* out, int count) const {
    MagnitudeRange ranges[kGroup];
    alignas(64) double first[kGroup], most[kGroup], min[kGroup], step[kGroup], grid_first[kGroup];
    int bad = -1;
    for (int i = 0; i < kGroup; ++i) {
      first[i] = most[i] = 1;
      if (i >= count) continue;
      ranges[i] = magnitude_range(values[i]);
      if (ranges[i].most >= 0x7f800000 && bad < 0) bad = i;
      if (ranges[i].most == 0 || ranges[i].most >= 0x7f800000) continue;
      most[i] = float_of_bits(ranges[i].most);
      first[i] = std::max<double>(float_of_bits(ranges[i].least), most[i] * 0x1p-32);
    }
    if (bad >= 0) return bad;
    const double intervals = (1 << (bits - 1)) - 2;
    for (int i = 0; i < kGroup; ++i) min[i] = static_cast<float>(exact_log_ratio(first[i], 1.0));
    for (int i = 0; i < kGroup; ++i) step[i] = static_cast<float>(exact_log_ratio(most[i], first[i]) / intervals);
    for (int i = 0; i < kGroup; ++i) grid_first[i] = exact_exp(min[i] - step[i]) * exact_exp(step[i]);
    for (int i = 0; i < count; ++i) {
      const EncodePlan plan = plan_encoding(ranges[i], first[i], min[i], step[i], grid_first[i], bits, linear);
      tile(values[i], ranges[i], plan, out[i]);
    }
    return -1;
  }

  void tile(const T* values, const MagnitudeRange& range, const EncodePlan& plan, uint8_t* out) const {
    alignas(64) uint16_t codes[kLogFmtTile];
    alignas(64) float distances[kLogFmtTile];
    std::memcpy(out, &plan.min, 4);
    std::memcpy(out + 4, &plan.step, 4);
    const bool estimated = !plan.exact || range.most == 0;
    const bool close = !estimated || (plan.below ? estimate_tile<true>(values, plan, bits, codes, distances)
                                                 : estimate_tile<false>(values, plan, bits, codes, distances));
    if (close) {
      double exps[kMaxExponentials][kGroup];
      const float min[kGroup] = {plan.min}, step[kGroup] = {plan.step};
      grid_exponentials(min, step, bits, exps);
      LogFmtGrid grid;
      grid.fill(exps, 0, plan.step, bits);
      compare_tile(values, grid, plan, bits, linear, codes, estimated ? distances : nullptr);
    }
    alignas(64) uint8_t packed[2 * kLogFmtTile + 16];
    pack_tile(codes, bits, packed);
    std::memcpy(out + kLogFmtHeaderBytes, packed, 16 * static_cast<size_t>(bits));
  }

  static float float_of_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
};

// ---- Decoding ---------------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
/// 128 values; the grid must fit. `high` maps eight codes to their third factors.
template <class T, class High>
FATHOM_INLINE void decode_vectors(const uint16_t* codes, const LogFmtGrid& grid, T* out, const High& high) {
  const __m512d low0 = _mm512_load_pd(grid.low), low1 = _mm512_load_pd(grid.low + 8);
  const __m512d middle0 = _mm512_load_pd(grid.middle), middle1 = _mm512_load_pd(grid.middle + 8);
  const auto eight = [&](const uint16_t* p) {
    const __m512i code = _mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m512d low = _mm512_permutex2var_pd(low0, code, low1);  // takes the last four bits of each index
    const __m512d middle = _mm512_permutex2var_pd(middle0, _mm512_srli_epi64(code, 4), middle1);
    return _mm512_cvtpd_ps(high(_mm512_mul_pd(middle, low), code));
  };
#pragma GCC unroll 8
  for (int i = 0; i < kLogFmtTile; i += 16) {
    const __m256 first = eight(codes + i), second = eight(codes + i + 8);
    if constexpr (std::is_same_v<T, float>) {
      _mm256_storeu_ps(out + i, first);
      _mm256_storeu_ps(out + i + 8, second);
    } else {
      f32x16 both;
      both.p[0] = (nf32)_mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
      store(out + i, both);
    }
  }
}

/// decode_vectors by the number of bits: up to 8 there is no third factor, up to 11 it is one of eight.
template <class T>
FATHOM_INLINE void decode_by_tables(const uint16_t* codes, const LogFmtGrid& grid, int bits, T* out) {
  if (bits <= 8) return decode_vectors(codes, grid, out, [](__m512d product, __m512i) { return product; });
  const __m512d few = _mm512_load_pd(grid.high);
  if (bits <= 11) {
    return decode_vectors(codes, grid, out, [&](__m512d product, __m512i code) {
      return _mm512_mul_pd(product, _mm512_permutexvar_pd(_mm512_srli_epi64(code, 8), few));
    });
  }
  decode_vectors(codes, grid, out, [&](__m512d product, __m512i code) {
    return _mm512_mul_pd(product, _mm512_i64gather_pd(_mm512_srli_epi64(code, 8), grid.high, 8));
  });
}
#else
template <class T>
FATHOM_INLINE void decode_by_tables(const uint16_t* codes, const LogFmtGrid& grid, int, T* out) {
  for (int i = 0; i < kLogFmtTile; ++i) out[i] = from_f32<T>(static_cast<float>(grid.product(codes[i])));
}
#endif

/// Whether a code with K = 0 is among 128.
FATHOM_INLINE bool has_zero(const uint16_t* codes, int bits) {
  const auto mask = static_cast<uint16_t>((1 << (bits - 1)) - 1);
  uint16_t smallest = UINT16_MAX;
  for (int i = 0; i < kLogFmtTile; ++i) smallest = std::min<uint16_t>(smallest, codes[i] & mask);
  return smallest == 0;
}

/// 128 values, one by one: zeros, and grids that reach beyond FP32.
template <class T>
inline void decode_singly(const uint16_t* codes, const LogFmtGrid& grid, int bits, T* out) {
  const int sign = 1 << (bits - 1);
  for (int i = 0; i < kLogFmtTile; ++i) {
    const float magnitude = grid.magnitude(codes[i] & (sign - 1));
    out[i] = from_f32<T>(codes[i] & sign ? -magnitude : magnitude);
  }
}

/// Whether a tile's min and step are such as an encoder writes: |ln x| <= 104 for every FP32 value, and the step is
/// at most ln(2^32) / 6.
inline bool sane_header(const uint8_t* tile) {
  float min, step;
  std::memcpy(&min, tile, 4);
  std::memcpy(&step, tile + 4, 4);
  return std::fabs(min) <= 104 && step >= 0 && step <= 4;
}

/// Decodes tiles in[i] to out[i], 128 values each.
template <class T>
void decode_group(const uint8_t* const* in, T* const* out, int count, int bits) {
  float min[kGroup] = {}, step[kGroup] = {};
  for (int i = 0; i < count; ++i) {
    std::memcpy(min + i, in[i], 4);
    std::memcpy(step + i, in[i] + 4, 4);
  }
  double exps[kMaxExponentials][kGroup];
  grid_exponentials(min, step, bits, exps);
  LogFmtGrid grid;
  alignas(64) uint16_t codes[kLogFmtTile];
  for (int i = 0; i < count; ++i) {
    grid.fill(exps, i, step[i], bits);
    unpack_tile(in[i] + kLogFmtHeaderBytes, bits, codes);
    if (has_zero(codes, bits) || !grid.fits()) decode_singly(codes, grid, bits, out[i]);
    else decode_by_tables(codes, grid, bits, out[i]);
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
