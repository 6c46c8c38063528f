// y = x · Wᵀ on stored weights: cuts a request into bands of 16 rows and blocks of 16 tokens, and picks their kernel.
//
// Decoding reads every byte of the weights once and does 2 M operations a weight: its floor is bytes over memory read. Rows
// are visited in order, so that the hardware prefetcher sees few streams.
#include <algorithm>

#include "memory.h"
#include "project_dot.h"
#include "project_tiles.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Whether a format's tokens are blocks of BF16 for the tile unit.
constexpr bool uses_tiles([[maybe_unused]] WeightFormat format) {
#if defined(FATHOM_AMX)
  return format == WeightFormat::bf16;
#else
  return false;
#endif
}

void run_band(const StoredWeight& w, const Band& band, const uint8_t* block, int64_t count, BandSums sums) {
#if defined(FATHOM_AMX)
  if (w.format == WeightFormat::bf16) return tile_band_bf16(band, reinterpret_cast<const bf16*>(block), count, sums);
#endif
  switch (w.format) {
    case WeightFormat::fp32: return dot_block<WeightFormat::fp32>(band, block, count, sums);
    case WeightFormat::fp8: return dot_block<WeightFormat::fp8>(band, block, count, sums);
    default: return dot_block<WeightFormat::bf16>(band, block, count, sums);
  }
}

/// y[t][0 … rows) (+)= sums[t].
template <class T>
void put_sums(const BandSums sums, int64_t count, int64_t rows, T* y, int64_t ldy, bool accumulate) {
  for (int64_t t = 0; t < count; ++t) {
    f32x16 value = load(sums[t]);
    if (accumulate) value += load(y + t * ldy, rows);
    store(y + t * ldy, value, rows);
  }
}

/// Rows [row, row_end) of one piece.
template <class T>
void project_piece(const StoredWeight& w, const WeightPiece& piece, int64_t row, int64_t row_end, const Tokens& tokens, T* y,
                   int64_t ldy, bool accumulate) {
  alignas(64) float sums[kTokenBlock][kRowGrain];
  const int64_t pitch = w.row_bytes(), stride = tokens_bytes(w, kTokenBlock);
  for (int64_t token = 0; token < tokens.count; token += kTokenBlock) {
    const int64_t count = std::min(kTokenBlock, tokens.count - token);
    const uint8_t* block = tokens.blocks + token / kTokenBlock * stride;
    for (int64_t at = row; at < row_end; at += kRowGrain) {
      const int64_t skip = at - piece.begin;
      const Band band{piece.codes + skip * pitch, piece.scales, pitch, std::min(kRowGrain, row_end - at), w.k, piece.first + skip};
      run_band(w, band, block, count, sums);
      put_sums(sums, count, band.rows, y + token * ldy + at, ldy, accumulate);
    }
  }
}

/// One block of `count` tokens.
template <class T>
void prepare_block(const StoredWeight& w, const T* const* x, int64_t count, void* memory) {
#if defined(FATHOM_AMX)
  if (uses_tiles(w.format)) return prepare_tile_block(x, count, w.k, static_cast<bf16*>(memory));
#endif
  for (int64_t t = 0; t < count; ++t) {
    float* to = static_cast<float*>(memory) + t * dot_pitch(w.k);
    if (w.format == WeightFormat::bf16) prepare_dot<WeightFormat::bf16>(x[t], w.k, to);
    else prepare_dot<WeightFormat::fp32>(x[t], w.k, to);
  }
}

}  // namespace

int64_t tokens_bytes(const StoredWeight& w, int64_t count) {
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
    if (begin < end) project_piece(w, piece, begin, end, tokens, y, ldy, accumulate);
  }
}

template Tokens prepare_tokens(const StoredWeight&, const float*, int64_t, const int32_t*, int64_t, void*);
template Tokens prepare_tokens(const StoredWeight&, const bf16*, int64_t, const int32_t*, int64_t, void*);
template void project_rows(const StoredWeight&, int64_t, int64_t, int64_t, const Tokens&, float*, int64_t, bool);
template void project_rows(const StoredWeight&, int64_t, int64_t, int64_t, const Tokens&, bf16*, int64_t, bool);

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
