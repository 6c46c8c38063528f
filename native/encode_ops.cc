// Weights brought into a stored format (stored_weight.h): encodeWeight(format, values f32 [R, K], K, codes, scales|null).
//
// Floor: read 4 bytes a value, write 0.5 to 2. Codes and scales are those of src/numerics/weights.ts and tiles.ts, bit for bit.
#include "formats.h"
#include "kernels.h"
#include "project_int.h"
#include "rows.h"
#include "stored_weight.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// A row to 8-bit codes with a scale per 128 columns.
void encode_int8_row(const float* x, int64_t k, uint8_t* codes, float* scales) {
  for (int64_t at = 0; at < k; at += kTile) {
    int8_t tile[kTile];
    int32_t sums[4];
    const int64_t count = k - at < kTile ? k - at : kTile;
    scales[at / kTile] = quantize_codes(x + at, count, tile, sums);
    std::memcpy(codes + at, tile, static_cast<size_t>(count));
  }
}

/// Bits of the largest magnitude of `count` values.
FATHOM_INLINE int32_t largest_bits(const float* x, int64_t count) {
  i32x16 largest = broadcast_int(0);
  each16(count, [&](int64_t i, auto n) { largest = max(largest, bits_of(load(x + i, n)) & 0x7fffffff); });
  return hmax(largest);
}

/// `rows` <= 128 rows of up to 128 columns to E4M3 with one scale, which is returned.
float encode_fp8_block(const float* x, int64_t rows, int64_t columns, int64_t k, uint8_t* codes) {
  int32_t largest = 0;
  for (int64_t r = 0; r < rows; ++r) largest = std::max(largest, largest_bits(x + r * k, columns));
  const float scale = tile_scale(largest, kE4m3, kScaleF32);
  if (scale != scale) {
    for (int64_t r = 0; r < rows; ++r) std::memset(codes + r * k, kTraits[kE4m3].nan_code, static_cast<size_t>(columns));
    return scale;
  }
  const Divider divide(scale);
  for (int64_t r = 0; r < rows; ++r) {
    each16(columns, [&](int64_t i, auto n) {
      uint8_t sixteen[16];
      const f32x16 value = load(x + r * k + i, n);
      narrow8(sixteen, code_byte<kE4m3>(divide(abs(value)), bits_of(value)));
      std::memcpy(codes + r * k + i, sixteen, static_cast<size_t>(n));
    });
  }
  return scale;
}

/// Scale of up to 32 values: the first of largest magnitude becomes code -8; 1 where that is zero, NaN where a value is not finite.
float q4_scale(const float* x, int64_t count) {
  const int32_t largest = largest_bits(x, count);
  if (largest >= 0x7f800000) return std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 0; i < count; ++i) {
    int32_t bits;
    std::memcpy(&bits, x + i, 4);
    if ((bits & 0x7fffffff) != largest) continue;
    const float scale = to_f32(to_bf16(x[i] / -8.0f));
    return scale == 0 ? 1.0f : scale;
  }
  return 1.0f;
}

/// 32 columns of row `r` of a panel, of which `count` exist; all codes of the panel are 8 before.
void encode_q4_tile(const float* x, int64_t count, int64_t r, int64_t column, uint8_t* panel) {
  const float scale = q4_scale(x, count);
  const bf16 stored = to_bf16(scale);
  std::memcpy(panel + 512 + 32 * (column / 32) + 2 * r, &stored, 2);
  if (scale != scale) return;
  const Divider divide(broadcast(scale));
  each16(count, [&](int64_t i, auto n) {
    int32_t code[16];
    store(code, to_int(min(max(round_small(divide(load(x + i, n))), broadcast(-8.0f)), broadcast(7.0f))));
    for (int64_t j = 0; j < n; ++j) {
      const int64_t at = column + i + j;
      panel[64 * (at / 8) + 4 * r + at % 4] ^= static_cast<uint8_t>((code[j] & 15) << (at % 8 < 4 ? 0 : 4));
    }
  });
}

/// Up to 16 rows of x to a row of panels.
void encode_q4_panels(const float* x, int64_t rows, int64_t k, uint8_t* panels) {
  const int64_t across = (k + 63) / 64;
  std::memset(panels, 0x88, static_cast<size_t>(across * kPanelBytes));
  for (int64_t r = 0; r < kRowGrain; ++r) {
    for (int64_t column = 0; column < across * 64; column += 32) {
      const int64_t left = r < rows ? std::min<int64_t>(32, k - column) : 0;
      encode_q4_tile(x + r * k + column, std::max<int64_t>(left, 0), r, column % 64, panels + column / 64 * kPanelBytes);
    }
  }
}

void encode_weight(int format, const Span& values, int64_t k, const Span& codes, const Span& scales) {
  constexpr const char* op = "encodeWeight";
  const int64_t rows = rows_of(values, k, op, "values"), across = (k + kTile - 1) / kTile;
  const float* x = values.as<float>(op, "values", 0);
  switch (static_cast<WeightFormat>(format)) {
    case WeightFormat::bf16: {
      auto* to = codes.as<bf16>(op, "codes", rows * k);
      return parallel_rows(rows, k, [&](int64_t begin, int64_t end) {
        each16((end - begin) * k, [&](int64_t i, auto n) { store(to + begin * k + i, load(x + begin * k + i, n), n); });
      });
    }
    case WeightFormat::int8: {
      auto* to = codes.as<uint8_t>(op, "codes", rows * k);
      auto* scale = scales.as<float>(op, "scales", rows * across);
      return parallel_rows(rows, k, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) encode_int8_row(x + r * k, k, to + r * k, scale + r * across);
      });
    }
    case WeightFormat::fp8: {
      auto* to = codes.as<uint8_t>(op, "codes", rows * k);
      auto* scale = scales.as<float>(op, "scales", (rows + kTile - 1) / kTile * across);
      return parallel_ranges((rows + kTile - 1) / kTile, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          for (int64_t c = 0; c < across; ++c) {
            const int64_t at = block * kTile * k + c * kTile;
            const int64_t height = std::min<int64_t>(kTile, rows - block * kTile), width = std::min<int64_t>(kTile, k - c * kTile);
            scale[block * across + c] = encode_fp8_block(x + at, height, width, k, to + at);
          }
        }
      });
    }
    case WeightFormat::q4: {
      const int64_t panels = (rows + kRowGrain - 1) / kRowGrain, bytes = (k + 63) / 64 * kPanelBytes;
      auto* to = codes.as<uint8_t>(op, "codes", panels * bytes);
      return parallel_rows(panels, kRowGrain * k, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          encode_q4_panels(x + p * kRowGrain * k, std::min<int64_t>(kRowGrain, rows - p * kRowGrain), k, to + p * bytes);
        }
      });
    }
    default: fail(op, "format code " + std::to_string(format) + " has no encoding");
  }
}

}  // namespace

void register_encode(const Exports& exports) { bind(exports, "encodeWeight", encode_weight); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
