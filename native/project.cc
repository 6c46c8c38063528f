// y = x · Wᵀ on stored weights: cuts a request into bands of 16 rows and blocks of 16 tokens, and picks their kernel.
//
// Decoding reads every byte of the weights once and does 2 M operations a weight: its floor is bytes over memory read. Rows
// are visited in order, so that the hardware prefetcher sees few streams.
#include <algorithm>

#include "memory.h"
#include "project_q4.h"
#include "project_tiles.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr int kRowsSlot = 7;

/// Whether a format's tokens are blocks of BF16 for the tile unit.
constexpr bool uses_tiles([[maybe_unused]] WeightFormat format) {
#if defined(FATHOM_AMX)
  return format == WeightFormat::bf16 || format == WeightFormat::fp8;
#else
  return false;
#endif
}

/// Whether int8 weights take a block of so many tokens through the tile unit.
constexpr bool int8_in_tiles([[maybe_unused]] int64_t count) {
#if defined(FATHOM_AMX)
  return count > 4;
#else
  return false;
#endif
}

constexpr bool quantises(WeightFormat format) { return format == WeightFormat::int8 || format == WeightFormat::q4; }

void run_int8(const Band& band, const IntBlock& block, int64_t count, BandSums sums) {
#if defined(FATHOM_AMX)
  if (int8_in_tiles(count)) return tile_band_int8(band, block, count, sums);
#endif
  int8_band(band, block, count, sums);
}

void run_band(const StoredWeight& w, const Band& band, const uint8_t* block, int64_t count, BandSums sums) {
  if (w.format == WeightFormat::int8) return run_int8(band, int_block(block, w.k, count), count, sums);
#if defined(FATHOM_AMX)
  const auto* tokens = reinterpret_cast<const bf16*>(block);
  if (w.format == WeightFormat::bf16) return tile_band_bf16(band, tokens, count, sums);
  if (w.format == WeightFormat::fp8) return tile_band_fp8(band, tokens, count, sums);
#endif
  switch (w.format) {
    case WeightFormat::fp32: return dot_block<WeightFormat::fp32>(band, block, count, sums);
    case WeightFormat::fp8: return dot_block<WeightFormat::fp8>(band, block, count, sums);
    default: return dot_block<WeightFormat::bf16>(band, block, count, sums);
  }
}

/// y[t][0 … rows) (+)= sums[t] from `skip`.
template <class T>
void put_sums(const BandSums sums, int64_t count, int64_t skip, int64_t rows, T* y, int64_t ldy, bool accumulate) {
  for (int64_t t = 0; t < count; ++t) {
    f32x16 value = load(sums[t] + skip, rows);
    if (accumulate) value += load(y + t * ldy, rows);
    store(y + t * ldy, value, rows);
  }
}

/// The band at row `at` of a matrix; of fp8, within one row of blocks.
Band band_at(const StoredWeight& w, const WeightPiece& piece, int64_t at, int64_t row_end) {
  const int64_t skip = at - piece.begin, pitch = w.row_bytes(), first = piece.first + skip;
  int64_t rows = std::min(kRowGrain, row_end - at);
  const uint8_t* scales = piece.scales;
  if (w.format == WeightFormat::fp8) rows = std::min(rows, kTile - first % kTile);
  if (w.format == WeightFormat::int8) scales += skip * tiles_of(w.k) * 4;
  return {piece.codes + skip * pitch, scales, pitch, rows, w.k, first};
}

/// Rows [row, row_end) of one piece.
template <class T>
void project_bands(const StoredWeight& w, const WeightPiece& piece, int64_t row, int64_t row_end, const Tokens& tokens, T* y,
                   int64_t ldy, bool accumulate) {
  alignas(64) float sums[kTokenBlock][kRowGrain];
  const int64_t stride = tokens_bytes(w, kTokenBlock);
  for (int64_t token = 0; token < tokens.count; token += kTokenBlock) {
    const int64_t count = std::min(kTokenBlock, tokens.count - token);
    const uint8_t* block = tokens.blocks + token / kTokenBlock * stride;
    for (int64_t at = row; at < row_end;) {
      const Band band = band_at(w, piece, at, row_end);
      run_band(w, band, block, count, sums);
      put_sums(sums, count, 0, band.rows, y + token * ldy + at, ldy, accumulate);
      at += band.rows;
    }
  }
}

/// The same for panels; of a panel that is wanted in part, the whole is computed.
template <class T>
void project_panels(const StoredWeight& w, const WeightPiece& piece, int64_t row, int64_t row_end, const Tokens& tokens, T* y,
                    int64_t ldy, bool accumulate) {
  alignas(64) float sums[kPanelsTogether][kTokenBlock][kRowGrain];
  const int64_t pitch = w.row_bytes(), stride = tokens_bytes(w, kTokenBlock);
  const int64_t first = (row - piece.begin) / kRowGrain, end = (row_end - piece.begin + kRowGrain - 1) / kRowGrain;
  for (int64_t panel = first; panel < end; panel += kPanelsTogether) {
    const int64_t panels = std::min(kPanelsTogether, end - panel);
    for (int64_t token = 0; token < tokens.count; token += kTokenBlock) {
      const int64_t count = std::min(kTokenBlock, tokens.count - token);
      const IntBlock block = int_block(tokens.blocks + token / kTokenBlock * stride, w.k, count);
      q4_block({piece.codes + panel * pitch, pitch, w.k}, panels, block, count, sums);
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t at = piece.begin + (panel + p) * kRowGrain, skip = std::max<int64_t>(0, row - at);
        const int64_t rows = std::min(kRowGrain, row_end - at) - skip;
        put_sums(sums[p], count, skip, rows, y + token * ldy + at + skip, ldy, accumulate);
      }
    }
  }
}

/// Tokens quantised, and turned for the tile unit where it takes them.
template <class T>
void prepare_int_block(const StoredWeight& w, const T* const* x, int64_t count, uint8_t* memory) {
  const bool turned = w.format == WeightFormat::int8 && int8_in_tiles(count);
  uint8_t* rows = turned ? scratch<uint8_t>(kRowsSlot, int_block_bytes(w.k, count)) : memory;
  const IntBlock plain = int_block(rows, w.k, count);
  for (int64_t t = 0; t < count; ++t) prepare_codes(x[t], w.k, t, w.format == WeightFormat::q4, plain);
#if defined(FATHOM_AMX)
  if (turned) {
    const IntBlock block = int_block(memory, w.k, count);
    turn_codes(plain, w.k, count, block.codes, block.scales);
  }
#endif
}

/// One block of `count` tokens.
template <class T>
void prepare_block(const StoredWeight& w, const T* const* x, int64_t count, uint8_t* memory) {
  if (quantises(w.format)) return prepare_int_block(w, x, count, memory);
#if defined(FATHOM_AMX)
  if (uses_tiles(w.format)) return prepare_tile_block(x, count, w.k, reinterpret_cast<bf16*>(memory));
#endif
  for (int64_t t = 0; t < count; ++t) {
    float* to = reinterpret_cast<float*>(memory) + t * dot_pitch(w.k);
    if (w.format == WeightFormat::bf16) prepare_dot<WeightFormat::bf16>(x[t], w.k, to);
    else prepare_dot<WeightFormat::fp32>(x[t], w.k, to);
  }
}

}  // namespace

int64_t tokens_bytes(const StoredWeight& w, int64_t count) {
  if (quantises(w.format)) {
    const int64_t blocks = count / kTokenBlock, rest = count % kTokenBlock;
    return blocks * int_block_bytes(w.k, kTokenBlock) + (rest > 0 ? int_block_bytes(w.k, rest) : 0);
  }
#if defined(FATHOM_AMX)
  if (uses_tiles(w.format)) return count * tile_pitch(w.k) * 2;
#endif
  return count * dot_pitch(w.k) * 4;
}

template <class T>
Tokens prepare_tokens(const StoredWeight& w, const T* x, int64_t ldx, const int32_t* rows, int64_t count, void* memory) {
  auto* blocks = static_cast<uint8_t*>(memory);
  const int64_t stride = tokens_bytes(w, kTokenBlock);
  for (int64_t token = 0; token < count; token += kTokenBlock) {
    const T* block[kTokenBlock];
    const int64_t these = std::min(kTokenBlock, count - token);
    for (int64_t t = 0; t < these; ++t) block[t] = x + (rows ? rows[token + t] : token + t) * ldx;
    prepare_block(w, block, these, blocks + token / kTokenBlock * stride);
  }
  return {count, blocks};
}

template <class T>
void project_rows(const StoredWeight& w, int64_t group, int64_t row, int64_t row_end, const Tokens& tokens, T* y, int64_t ldy,
                  bool accumulate) {
  for (int64_t i = w.starts[group]; i < w.starts[group + 1]; ++i) {
    const WeightPiece& piece = w.pieces[i];
    const int64_t begin = std::max(row, piece.begin), end = std::min(row_end, piece.end);
    if (begin >= end) continue;
    if (w.format == WeightFormat::q4) project_panels(w, piece, begin, end, tokens, y, ldy, accumulate);
    else project_bands(w, piece, begin, end, tokens, y, ldy, accumulate);
  }
}

template Tokens prepare_tokens(const StoredWeight&, const float*, int64_t, const int32_t*, int64_t, void*);
template Tokens prepare_tokens(const StoredWeight&, const bf16*, int64_t, const int32_t*, int64_t, void*);
template void project_rows(const StoredWeight&, int64_t, int64_t, int64_t, const Tokens&, float*, int64_t, bool);
template void project_rows(const StoredWeight&, int64_t, int64_t, int64_t, const Tokens&, bf16*, int64_t, bool);

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
