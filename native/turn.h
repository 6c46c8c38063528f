// Operands of a contraction over rows: a matrix [M, columns] turned into A tiles or B panels, in the format wanted.
//
// The unit is a tile of 128 rows by 32 columns. Narrow formats get one scale per column and tile of rows ("128 x 1",
// [TR §3.3.2]). Tiles at the edges are first copied to a whole one.
#pragma once

#include <algorithm>
#include <vector>

#include "operands.h"
#include "pool.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// A matrix [M, columns] as stored, rows `pitch` elements apart, and the format to bring it to.
struct Source {
  const void* data;
  int stored;           // format of the codes
  const float* scales;  // [ceil(columns / 128)][M] or null
  int64_t M, columns, pitch;
  int format;  // wanted
  ScaleRule rule;

  int64_t element_bytes() const { return stored == kF32 ? 4 : is_byte(stored) ? 1 : 2; }
};

/// Bits of the largest magnitude of a matrix, scales applied; NaN and infinity order above every number.
inline int32_t largest_magnitude(const Source& s) {
  constexpr int64_t kRows = 64;  // of one task
  std::vector<int32_t> parts(static_cast<size_t>((s.M + kRows - 1) / kRows));
  with_format(s.stored, [&](auto tag) {
    parallel_ranges(s.M, kRows, [&](int64_t begin, int64_t end) {
      i32x16 largest = broadcast_int(0);
      for (int64_t m = begin; m < end; ++m) {
        for (int64_t c = 0; c < s.columns; c += 16) {
          f32x16 x = load_codes<decltype(tag)::value>(s.data, m * s.pitch + c, s.columns - c);
          if (s.scales) x *= broadcast(s.scales[c / kTile * s.M + m]);
          largest = max(largest, bits_of(x) & 0x7fffffff);
        }
      }
      parts[static_cast<size_t>(begin / kRows)] = hmax(largest);
    });
  });
  return parts.empty() ? 0 : *std::max_element(parts.begin(), parts.end());
}

/// The rule that a scale mode of JavaScript means for a matrix.
inline ScaleRule rule_of(int mode, const Source& s) {
  return {mode & kScalePow2, mode & kPerTensor ? largest_magnitude(s) : -1};
}

/// Turned operands of one chunk of rows, for products of T.
template <class T>
struct Chunk {
  int64_t rows;
  T* left;              // bf16: tiles [N / 32][rows / 32][2][16][32]; float: [N padded to 32][rows]
  T* right;             // packed [rows, K]
  float* left_scales;   // [tiles][N padded to 32]
  float* right_scales;  // [tiles][K padded to 32]

  int64_t steps() const { return (rows + 31) / 32; }
};

enum class Side { left, right };

/// Where the turned tile goes: `width` <= 32 columns from `column` and `rows` <= 128 rows from m of a side of the chunk.
template <class T>
struct Target {
  const Chunk<T>& chunk;
  Side side;
  int64_t column, width, m, rows;
  float* scales;  // [32], of the columns

  /// Stores 16 pairs of rows by 16 columns: 32 rows from r of half h.
  FATHOM_INLINE void put(int h, int64_t r, i32x16 (&pairs)[16]) const {
    const int64_t c = column + 16 * h;
    bf16* to = chunk.right + c / 16 * panel_elements<bf16>(chunk.rows) + (m + r) * 16;
    if (side == Side::left) {
      transpose16(pairs);
      to = chunk.left + c / 32 * chunk.steps() * 1024 + c / 16 % 2 * 512 + (m + r) / 32 * 1024;
    }
    for (int i = 0; i < 16; ++i) store(reinterpret_cast<int32_t*>(to) + i * 16, pairs[i]);
  }
  /// Stores one row of half h.
  FATHOM_INLINE void put(int h, int64_t r, f32x16 values) const {
    const int64_t c = column + 16 * h;
    if (side == Side::right) return store(chunk.right + c / 16 * panel_elements<float>(chunk.rows) + (m + r) * 16, values);
    float lane[16];
    store(lane, values);
    for (int64_t i = 0; i < 16; ++i) chunk.left[(c + i) * chunk.rows + m + r] = lane[i];
  }
};

/// A whole tile of codes in format F, 128 rows by 32 columns, `pitch` elements from row to row.
template <int F>
struct Tile {
  const void* data;
  int64_t at, pitch;
  const float* scales;  // [128], of the rows, or null

  /// Asks for what the next columns need of row r: rows are too far apart for the hardware to notice.
  FATHOM_INLINE void prefetch(int64_t r) const {
    constexpr int64_t bytes = F == kF32 ? 4 : is_byte(F) ? 1 : 2;
    const auto* next = static_cast<const char*>(data) + (at + r * pitch) * bytes + 64;
    __builtin_prefetch(next);
    if constexpr (F == kF32) __builtin_prefetch(next + 64);
  }

  /// The two halves of row r, scales applied.
  FATHOM_INLINE void row(int64_t r, f32x16 (&half)[2]) const {
    const int64_t first = at + r * pitch;
    if constexpr (is_byte(F)) {
      decode_line<F>(static_cast<const uint8_t*>(data) + first, half);
    } else {
      half[0] = load_codes<F>(data, first, 16);
      half[1] = load_codes<F>(data, first + 16, 16);
    }
    if (!scales) return;
    half[0] *= broadcast(scales[r]);
    half[1] *= broadcast(scales[r]);
  }
};

/// Turns rows that `row(r, half)` gives; `round(x, h)` brings half h to BF16, its bits in the upper halves.
template <class Row, class Round>
FATHOM_INLINE void turn_rows(const Target<bf16>& target, const Row& row, const Round& round) {
  for (int64_t r = 0; r < target.rows; r += 32) {
    i32x16 pairs[2][16];
    for (int64_t i = 0; i < 16; ++i) {
      f32x16 low[2], high[2];
      row(r + 2 * i, low);
      row(r + 2 * i + 1, high);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) pairs[h][i] = shift_right(round(low[h], h), 16) | round(high[h], h);
    }
    target.put(0, r, pairs[0]);
    if (target.width > 16) target.put(1, r, pairs[1]);
  }
}

/// To narrow format W, with scales.
template <int W, int F>
void turn_narrow(const Tile<F>& tile, const Target<bf16>& target, const ScaleRule& rule) {
  alignas(64) float stage[is_byte(F) ? kTile * 32 : 32];  // codes are decoded once
  i32x16 largest[2] = {broadcast_int(0), broadcast_int(0)};
  for (int64_t r = 0; r < kTile; ++r) {
    f32x16 half[2];
    tile.prefetch(r);
    tile.row(r, half);
    for (int h = 0; h < 2; ++h) {
      largest[h] = max(largest[h], bits_of(half[h]) & 0x7fffffff);
      if constexpr (is_byte(F)) store(stage + r * 32 + 16 * h, half[h]);
    }
  }
  const f32x16 scale[2] = {rule.scales(largest[0], W), rule.scales(largest[1], W)};
  store(target.scales, scale[0]);
  store(target.scales + 16, scale[1]);
  const Divider divide[2] = {Divider(scale[0]), Divider(scale[1])};
  const auto row = [&](int64_t r, f32x16(&half)[2]) {
    if constexpr (!is_byte(F)) return tile.row(r, half);
    for (int h = 0; h < 2; ++h) half[h] = load(stage + r * 32 + 16 * h);
  };
  turn_rows(target, row, [&](f32x16 x, int h) { return bits_of(snap<W>(divide[h](x))); });
}

/// To BF16, or narrower.
template <int F>
void turn_tile(const Tile<F>& tile, const Target<bf16>& target, const Source& s) {
  if (s.format == kE4m3) return turn_narrow<kE4m3>(tile, target, s.rule);
  if (s.format == kE5m2) return turn_narrow<kE5m2>(tile, target, s.rule);
  if (s.format == kE5m6) return turn_narrow<kE5m6>(tile, target, s.rule);
  const auto row = [&](int64_t r, f32x16(&half)[2]) {
    tile.prefetch(r);
    tile.row(r, half);
  };
  // BF16 that stays as it is needs no rounding.
  if (F == kBf16 && !tile.scales) return turn_rows(target, row, [](f32x16 x, int) { return bits_of(x); });
  turn_rows(target, row, [](f32x16 x, int) { return shift_left(bf16_bits(x), 16); });
}
template <int F>
void turn_tile(const Tile<F>& tile, const Target<float>& target, const Source&) {
  for (int64_t r = 0; r < target.rows; ++r) {
    f32x16 half[2];
    tile.row(r, half);
    target.put(0, r, half[0]);
    if (target.width > 16) target.put(1, r, half[1]);
  }
}

/// A tile at an edge: its values, scales applied, with zeros where there is nothing. stage [128][32].
template <int F>
Tile<kF32> copy_edge(const Source& s, int64_t m, int64_t c, int64_t rows, int64_t width, float* stage) {
  std::fill(stage, stage + kTile * 32, 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = s.scales ? s.scales[c / kTile * s.M + m + r] : 1.0f;
    for (int64_t i = 0; i < width; i += 16) {
      store(stage + r * 32 + i, load_codes<F>(s.data, (m + r) * s.pitch + c + i, width - i) * scale);
    }
  }
  return {stage, 0, 32, nullptr};
}

/// Turns rows m .. m + rows of a source into a side of the chunk.
template <class T>
void turn(const Source& s, const Chunk<T>& chunk, Side side, int64_t m, int64_t rows) {
  float* scales = side == Side::left ? chunk.left_scales : chunk.right_scales;
  alignas(64) float stage[kTile * 32];
  with_format(s.stored, [&](auto tag) {
    constexpr int F = decltype(tag)::value;
    for (int64_t r = 0; r < rows; r += kTile) {
      for (int64_t c = 0; c < s.columns; c += 32) {
        const int64_t count = std::min(kTile, rows - r), width = std::min<int64_t>(32, s.columns - c);
        const Target<T> target{chunk, side, c, width, r, count, scales + r / kTile * round_up(s.columns, kBlock) + c};
        if (count < kTile || width < 32) {
          turn_tile(copy_edge<F>(s, m + r, c, count, width, stage), target, s);
        } else {
          const float* tile_scales = s.scales ? s.scales + c / kTile * s.M + m + r : nullptr;
          turn_tile(Tile<F>{s.data, (m + r) * s.pitch + c, s.pitch, tile_scales}, target, s);
        }
      }
    }
  });
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
