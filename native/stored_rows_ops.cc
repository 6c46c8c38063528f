// Rows of stored weights as numbers: the lookup in an embedding's table.
#include "formats.h"
#include "kernels.h"
#include "rows.h"
#include "stored_weight.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Element `i` of a table of floats that may lie unaligned.
float float_at(const uint8_t* table, int64_t i) {
  float value;
  std::memcpy(&value, table + 4 * i, 4);
  return value;
}

/// Sixteen codes of which n exist, as floats without their scale.
template <WeightFormat F>
FATHOM_INLINE f32x16 load_codes(const uint8_t* row, int64_t i, int64_t n) {
  if constexpr (F == WeightFormat::fp32) return load(reinterpret_cast<const float*>(row) + i, n);
  if constexpr (F == WeightFormat::bf16) return load(reinterpret_cast<const bf16*>(row) + i, n);
  uint8_t sixteen[16] = {};
  std::memcpy(sixteen, row + i, static_cast<size_t>(n));
  const i32x16 code = widen8(sixteen);
  if constexpr (F == WeightFormat::fp8) return decode<kE4m3>(code);
  return to_float((code ^ 0x80) - 0x80);
}

/// One row; scales, where there are any, one per 128 columns.
template <WeightFormat F>
void decode_row(const uint8_t* row, const uint8_t* scales, int64_t k, float* out) {
  each16(k, [&](int64_t i, auto n) {
    f32x16 value = load_codes<F>(row, i, n);
    if (F == WeightFormat::fp8 || F == WeightFormat::int8) value *= float_at(scales, i / kTile);
    store(out + i, value, n);
  });
}

/// Row r of the q4 panels of a piece (stored_weight.h has their layout).
void decode_q4_row(const uint8_t* panels, int64_t r, int64_t k, float* out) {
  const int64_t across = (k + 63) / 64;
  for (int64_t i = 0; i < k; ++i) {
    const uint8_t* panel = panels + (r / kRowGrain * across + i / 64) * kPanelBytes;
    const int64_t row = r % kRowGrain, column = i % 64, within = column % 8;
    const int code = panel[64 * (column / 8) + 4 * row + within % 4] >> (within < 4 ? 0 : 4) & 15;
    bf16 scale;
    std::memcpy(&scale, panel + 512 + 32 * (column / 32) + 2 * row, 2);
    out[i] = static_cast<float>(code - 8) * to_f32(scale);
  }
}

void decode_stored_row(const StoredWeight& w, int64_t row, float* out) {
  const WeightPiece* piece = &w.pieces[0];
  while (row >= piece->end) ++piece;
  const int64_t r = row - piece->begin, across = (w.k + kTile - 1) / kTile;
  const uint8_t* codes = piece->codes + r * w.row_bytes();
  switch (w.format) {
    case WeightFormat::fp32: return decode_row<WeightFormat::fp32>(codes, nullptr, w.k, out);
    case WeightFormat::bf16: return decode_row<WeightFormat::bf16>(codes, nullptr, w.k, out);
    case WeightFormat::fp8: {
      const uint8_t* scales = piece->scales + (piece->first + r) / kTile * across * 4;
      return decode_row<WeightFormat::fp8>(codes, scales, w.k, out);
    }
    case WeightFormat::int8: return decode_row<WeightFormat::int8>(codes, piece->scales + r * across * 4, w.k, out);
    case WeightFormat::q4: return decode_q4_row(piece->codes, r, w.k, out);
  }
}

/// Rows ids i32 [M] of a weight [N, K] of one group -> out f32 [M, K].
void read_rows(const StoredWeight* w, const Span& ids, const Span& out) {
  const char* op = "readRows";
  const auto count = static_cast<int64_t>(ids.length);
  const int32_t* id = ids.as<int32_t>(op, "ids", 0);
  float* to = out.as<float>(op, "out", count * w->k);
  if (w->groups != 1) fail(op, "the weight has " + std::to_string(w->groups) + " groups");
  check_indices(id, count, 0, w->n, op, "ids");
  parallel_rows(count, 4 * w->k, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) decode_stored_row(*w, id[i], to + i * w->k);
  });
}

}  // namespace

void register_stored_rows(const Exports& exports) { bind(exports, "readRows", read_rows); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
