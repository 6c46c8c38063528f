// Products of stored weights without tiles: each row of weights is read once, in place, against up to four tokens at a time.
//
// Every sum runs over the columns in one order, whatever the number of rows and tokens that share registers, so that a value
// does not depend on them.
#pragma once

#include "formats.h"
#include "stored_weight.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Rows that a band has at most.
constexpr int64_t kBandRows = 128;

/// Rows of a piece that kernels take together: 16 * spacing of them, in 16 runs of `spacing` rows; or fewer than 16.
///
/// Memory is read as many ascending streams, one in each run. Streams in one page of 4 KB confuse the prefetchers: with
/// the runs a page apart, 16 of them read at 97 % of the machine's rate where neighbouring rows of 1 KB reach 83 %.
struct Band {
  const uint8_t* codes;
  const uint8_t* scales;
  int64_t pitch;  // bytes from row to row
  int64_t rows, spacing, k;
  int64_t first;  // row of the tensor

  bool whole() const { return rows == kRowGrain * spacing; }
};

/// The spacing of rows of `pitch` bytes.
constexpr int64_t band_spacing(int64_t pitch) {
  const int64_t pages = (4096 + pitch - 1) / pitch;
  return pages < kBandRows / kRowGrain ? pages : kBandRows / kRowGrain;
}

/// Sums of a band.
using BandSums = float[kTokenBlock][kBandRows];

/// How far ahead of its use a stream is fetched, of sixteen and of four: without it the time of memory and that of
/// arithmetic add up; with it the shorter hides behind the longer.
constexpr int64_t kFetchAhead = 512, kFetchAheadOfFour = 1024;

FATHOM_INLINE void fetch(const uint8_t* line) { __builtin_prefetch(line); }

/// A band's rows as `streams` runs that are read side by side. Offset from byte `at` of row i of a run to the byte that its
/// stream reads `ahead` bytes later: at the end of the run, the stream goes on in the next band.
FATHOM_INLINE int64_t ahead_of(const Band& band, int64_t streams, int64_t i, int64_t at, int64_t ahead) {
  const int64_t run = band.rows / streams;
  return i + 1 < run || at + ahead < band.pitch ? ahead : ahead + (band.rows - run) * band.pitch;
}

/// Calls body(rows, i) with every row of a band in sets of four, one from each of four streams; repeats rows where there are not
/// enough.
template <class Body>
FATHOM_INLINE void four_streams(const Band& band, const Body& body) {
  const int64_t run = (band.rows + 3) / 4;
  for (int64_t i = 0; i < run; ++i) {
    int64_t rows[4];
    for (int64_t r = 0; r < 4; ++r) rows[r] = r * run + i < band.rows ? r * run + i : band.rows - 1;
    body(rows, i);
  }
}

/// Scale i of a table of floats that may lie unaligned.
FATHOM_INLINE float scale_at(const uint8_t* scales, int64_t i) {
  float value;
  std::memcpy(&value, scales + 4 * i, 4);
  return value;
}

// ---- Floating-point weights against float tokens ------------------------------------------------------------

/// Weights that are widened to float and multiplied by FMA in steps of 32 columns. Tokens lie in the order in which
/// a step's two vectors hold the columns.
constexpr int64_t kStep = 32;

/// The two vectors of 32 weights: columns 0-15 and 16-31, of BF16 the even and the odd ones.
template <WeightFormat F>
FATHOM_INLINE void load_step(const uint8_t* from, f32x16 (&w)[2]) {
  if constexpr (F == WeightFormat::fp32) {
    w[0] = load(reinterpret_cast<const float*>(from));
    w[1] = load(reinterpret_cast<const float*>(from) + 16);
  } else if constexpr (F == WeightFormat::bf16) {
    const i32x16 pairs = load(reinterpret_cast<const int32_t*>(from));
    w[0] = float_of_bits(shift_left(pairs, 16));
    w[1] = float_of_bits(pairs & static_cast<int32_t>(0xffff0000));
  } else {
    w[0] = decode<kE4m3>(widen8(from));
    w[1] = decode<kE4m3>(widen8(from + 16));
  }
}

template <WeightFormat F>
constexpr int64_t element_bytes() {
  return F == WeightFormat::fp32 ? 4 : F == WeightFormat::bf16 ? 2 : 1;
}

/// R rows against T tokens x, `ldx` floats apart: sums[t][rows[r]].
template <WeightFormat F, int R, int T>
FATHOM_INLINE void dot_rows(const Band& band, const int64_t* rows, int64_t i, const float* x, int64_t ldx, float (*sums)[kBandRows]) {
  constexpr int64_t bytes = element_bytes<F>();
  f32x16 sum[R][T];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[r][t] = zero();
  }
  // Blocks of 128 rows: a band lies within one.
  const uint8_t* scales = F == WeightFormat::fp8 ? band.scales + band.first / kTile * ((band.k + kTile - 1) / kTile) * 4 : nullptr;
  const auto add = [&](int64_t k, const uint8_t* const (&from)[R]) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      f32x16 w[2];
      load_step<F>(from[r], w);
      if constexpr (F == WeightFormat::fp8) {
        const float scale = scale_at(scales, k / kTile);
        w[0] *= scale;
        w[1] *= scale;
      }
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        sum[r][t] = fma(w[0], load(x + t * ldx + k), sum[r][t]);
        sum[r][t] = fma(w[1], load(x + t * ldx + k + 16), sum[r][t]);
      }
    }
  };
  const uint8_t *codes[R], *from[R];
  for (int r = 0; r < R; ++r) codes[r] = band.codes + rows[r] * band.pitch;
  int64_t k = 0;
  for (; k + kStep <= band.k; k += kStep) {
    const int64_t ahead = ahead_of(band, 4, i, k * bytes, kFetchAheadOfFour);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      from[r] = codes[r] + k * bytes;
      for (int64_t line = 0; line < kStep * bytes; line += 64) fetch(from[r] + line + ahead);
    }
    add(k, from);
  }
  if (k < band.k) {
    alignas(64) uint8_t tail[R][kStep * bytes] = {};
    for (int r = 0; r < R; ++r) {
      std::memcpy(tail[r], codes[r] + k * bytes, static_cast<size_t>((band.k - k) * bytes));
      from[r] = tail[r];
    }
    add(k, from);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sums[t][rows[r]] = hsum(sum[r][t]);
  }
}

/// Rows and tokens of the register block.
constexpr int kDotRows = kNative == 16 ? 4 : 2, kDotTokens = kNative == 16 ? 4 : kNative == 8 ? 2 : 1;

template <WeightFormat F, int T>
FATHOM_INLINE void dot_band(const Band& band, const float* x, int64_t ldx, float (*sums)[kBandRows]) {
  four_streams(band, [&](const int64_t(&rows)[4], int64_t i) {
    for (int r = 0; r < 4; r += kDotRows) dot_rows<F, kDotRows, T>(band, rows + r, i, x, ldx, sums);
  });
}

/// Floats of a token.
constexpr int64_t dot_pitch(int64_t k) { return (k + kStep - 1) / kStep * kStep; }

/// A block of `count` tokens against a band.
template <WeightFormat F>
void dot_block(const Band& band, const uint8_t* block, int64_t count, BandSums& sums) {
  const int64_t ldx = dot_pitch(band.k);
  const auto* x = reinterpret_cast<const float*>(block);
  int64_t t = 0;
  for (; t + kDotTokens <= count; t += kDotTokens) dot_band<F, kDotTokens>(band, x + t * ldx, ldx, sums + t);
  for (; t < count; ++t) dot_band<F, 1>(band, x + t * ldx, ldx, sums + t);
}

/// A token's k values as floats, in steps as load_step orders them.
template <WeightFormat F, class T>
void prepare_dot(const T* x, int64_t k, float* to) {
  for (int64_t at = 0; at < k; at += kStep, to += kStep) {
    const f32x16 low = load(x + at, k - at), high = k - at > 16 ? load(x + at + 16, k - at - 16) : zero();
    if constexpr (F == WeightFormat::bf16) {
      float line[kStep];
      store(line, low);
      store(line + 16, high);
      for (int i = 0; i < 16; ++i) {
        to[i] = line[2 * i];
        to[16 + i] = line[2 * i + 1];
      }
    } else {
      store(to, low);
      store(to + 16, high);
    }
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
