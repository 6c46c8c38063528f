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

/// Tokens from which q4 weights are multiplied by the tile unit.
constexpr int64_t kQ4TileTokens = 5;

constexpr bool quantises(WeightFormat format) { return format == WeightFormat::int8 || format == WeightFormat::q4; }

void run_band(const StoredWeight& w, const Band& band, const uint8_t* block, int64_t count, BandSums& sums) {
#if defined(FATHOM_AMX)
  const auto* tokens = reinterpret_cast<const bf16*>(block);
  if (w.format == WeightFormat::int8) return tile_band_int8(band, int_block(block, w.k, count), count, sums);
  if (w.format == WeightFormat::bf16) return tile_band_bf16(band, tokens, count, sums);
  if (w.format == WeightFormat::fp8) return tile_band_fp8(band, tokens, count, sums);
#endif
  switch (w.format) {
    case WeightFormat::fp32: return dot_block<WeightFormat::fp32>(band, block, count, sums);
    case WeightFormat::fp8: return dot_block<WeightFormat::fp8>(band, block, count, sums);
    case WeightFormat::int8: return int8_band(band, int_block(block, w.k, count), count, sums);
    default: return dot_block<WeightFormat::bf16>(band, block, count, sums);
  }
}

/// y[t][0 … rows) (+)= sums[t] from `skip`.
template <class T, int64_t Width>
void put_sums(const float (*sums)[Width], int64_t count, int64_t skip, int64_t rows, T* y, int64_t ldy, bool accumulate) {
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t r = 0; r < rows; r += 16) {
      f32x16 value = load(sums[t] + skip + r, rows - r);
      if (accumulate) value += load(y + t * ldy + r, rows - r);
      store(y + t * ldy + r, value, rows - r);
    }
  }
}

/// The band at row `at` of a matrix; of fp8, within one row of blocks.
Band band_at(const StoredWeight& w, const WeightPiece& piece, int64_t at, int64_t row_end) {
  const int64_t skip = at - piece.begin, pitch = w.row_bytes(), first = piece.first + skip;
  int64_t left = row_end - at;
  const uint8_t* scales = piece.scales;
  if (w.format == WeightFormat::fp8) left = std::min(left, kTile - first % kTile);
  if (w.format == WeightFormat::int8) scales += skip * tiles_of(w.k) * 4;
  const int64_t spacing = std::min(band_spacing(pitch), left / kRowGrain);
  const int64_t rows = spacing > 0 ? spacing * kRowGrain : left;
  return {piece.codes + skip * pitch, scales, pitch, rows, std::max<int64_t>(1, spacing), w.k, first};
}

/// Rows [row, row_end) of one piece.
template <class T>
void project_bands(const StoredWeight& w, const WeightPiece& piece, int64_t row, int64_t row_end, const Tokens& tokens, T* y,
                   int64_t ldy, bool accumulate) {
  alignas(64) BandSums sums;
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

void run_panels(const Panels& panels, const IntBlock& block, int64_t count, PanelSums& sums) {
#if defined(FATHOM_AMX)
  if (count >= kQ4TileTokens) return Q4Tiles(panels, block, count, sums).run();
#endif
  q4_block(panels, block, count, sums);
}

/// The same for panels; of a panel that is wanted in part, the whole is computed.
template <class T>
void project_panels(const StoredWeight& w, const WeightPiece& piece, int64_t row, int64_t row_end, const Tokens& tokens, T* y,
                    int64_t ldy, bool accumulate) {
  alignas(64) PanelSums sums;
  const int64_t pitch = w.row_bytes(), stride = tokens_bytes(w, kTokenBlock);
  const int64_t first = (row - piece.begin) / kRowGrain, end = (row_end - piece.begin + kRowGrain - 1) / kRowGrain;
  const int64_t run = (end - first + kPanelsTogether - 1) / kPanelsTogether;
  for (int64_t i = first; i < first + run; ++i) {
    Panels panels{{}, 0, w.k};
    for (int64_t panel = i; panel < end; panel += run) panels.data[panels.count++] = piece.codes + panel * pitch;
    for (int64_t token = 0; token < tokens.count; token += kTokenBlock) {
      const int64_t count = std::min(kTokenBlock, tokens.count - token);
      run_panels(panels, int_block(tokens.blocks + token / kTokenBlock * stride, w.k, count), count, sums);
      for (int64_t p = 0; p < panels.count; ++p) {
        const int64_t at = piece.begin + (i + p * run) * kRowGrain, skip = std::max<int64_t>(0, row - at);
        const int64_t rows = std::min(kRowGrain, row_end - at) - skip;
        put_sums(sums[p], count, skip, rows, y + token * ldy + at + skip, ldy, accumulate);
      }
    }
  }
}

/// Tokens quantised, and turned for the tile unit where it takes them.
template <class T>
void prepare_int_block(const StoredWeight& w, const T* const* x, int64_t count, uint8_t* memory) {
#if defined(FATHOM_AMX)
  const bool turned = w.format == WeightFormat::int8;
#else
  constexpr bool turned = false;
#endif
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
  if (w.format == WeightFormat::fp8) return prepare_fp8_block(x, count, w.k, reinterpret_cast<bf16*>(memory));
  if (w.format == WeightFormat::bf16) return prepare_tile_block(x, count, w.k, reinterpret_cast<bf16*>(memory));
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
  if (w.format == WeightFormat::fp8) return count * code_pitch(w.k) * 2;
  if (w.format == WeightFormat::bf16) return count * tile_pitch(w.k) * 2;
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

namespace {

/// Fetches `bytes` from `from`.
void fetch_run(const uint8_t* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) fetch(from + at);
}

/// The beginnings of the streams that a band is read as, and its scales.
void fetch_band(const StoredWeight& w, const Band& band) {
#if defined(FATHOM_AMX)
  const bool tiles = w.format != WeightFormat::fp32;
#else
  constexpr bool tiles = false;
#endif
  const int64_t streams = tiles ? kRowGrain : 4, ahead = tiles ? kFetchAhead : kFetchAheadOfFour, run = (band.rows + streams - 1) / streams;
  for (int64_t row = 0; row < band.rows; row += run) fetch_run(band.codes + row * band.pitch, std::min(ahead, run * band.pitch));
  if (w.format == WeightFormat::int8) fetch_run(band.scales, band.rows * tiles_of(w.k) * 4);
}

/// The beginnings of the panel rows that are read side by side.
void fetch_panels(const StoredWeight& w, const WeightPiece& piece, int64_t row, int64_t row_end) {
  const int64_t first = (row - piece.begin) / kRowGrain, end = (row_end - piece.begin + kRowGrain - 1) / kRowGrain;
  const int64_t run = (end - first + kPanelsTogether - 1) / kPanelsTogether, pitch = w.row_bytes();
  for (int64_t panel = first; panel < end; panel += run) fetch_run(piece.codes + panel * pitch, std::min(kFetchAheadOfFour, pitch));
}

}  // namespace

void fetch_rows(const StoredWeight& w, int64_t group, int64_t row, int64_t row_end) {
  for (int64_t i = w.starts[group]; i < w.starts[group + 1]; ++i) {
    const WeightPiece& piece = w.pieces[i];
    if (row < piece.begin || row >= piece.end) continue;
    const int64_t end = std::min(row_end, piece.end);
    if (w.format == WeightFormat::q4) return fetch_panels(w, piece, row, end);
    return fetch_band(w, band_at(w, piece, row, end));
  }
}

template Tokens prepare_tokens(const StoredWeight&, const float*, int64_t, const int32_t*, int64_t, void*);
template Tokens prepare_tokens(const StoredWeight&, const bf16*, int64_t, const int32_t*, int64_t, void*);
template void project_rows(const StoredWeight&, int64_t, int64_t, int64_t, const Tokens&, float*, int64_t, bool);
template void project_rows(const StoredWeight&, int64_t, int64_t, int64_t, const Tokens&, bf16*, int64_t, bool);

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
