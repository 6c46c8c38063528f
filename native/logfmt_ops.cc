// The LogFMT-n codec as JavaScript sees it: rows of values <-> tiles on the wire (src/numerics/logfmt.ts).
//
// No product may be fused with a sum here: both sides of the codec promise the reference's bits.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include <atomic>

#include "kernels.h"
#include "logfmt.h"
#include "pool.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Tiles of one task: 128 KiB of FP32.
constexpr int64_t kTaskTiles = 256;

/// Where the tiles of [rows, cols] values lie.
struct TileLayout {
  int64_t rows, cols, tiles_per_row, row_bytes;
  int bits;

  TileLayout(const Span& values, int64_t columns, int bits_per_value, const char* op) : cols(columns), bits(bits_per_value) {
    if (bits < 4 || bits > 16) fail(op, "needs 4 to 16 bits per value, got " + std::to_string(bits));
    const auto length = static_cast<int64_t>(values.length);
    if (cols < 1 || length % cols != 0) {
      fail(op, std::to_string(length) + " values are no rows of " + std::to_string(cols));
    }
    rows = length / cols;
    tiles_per_row = (cols + kLogFmtTile - 1) / kLogFmtTile;
    row_bytes = cols / kLogFmtTile * tile_bytes(kLogFmtTile) + (cols % kLogFmtTile ? tile_bytes(cols % kLogFmtTile) : 0);
  }

  int64_t tile_bytes(int64_t count) const { return kLogFmtHeaderBytes + (count * bits + 7) / 8; }
  int64_t tiles() const { return rows * tiles_per_row; }
  int64_t bytes() const { return rows * row_bytes; }
  int64_t count(int64_t tile) const { return std::min<int64_t>(kLogFmtTile, cols - tile % tiles_per_row * kLogFmtTile); }
  int64_t value(int64_t tile) const { return tile / tiles_per_row * cols + tile % tiles_per_row * kLogFmtTile; }
  int64_t byte(int64_t tile) const {
    return tile / tiles_per_row * row_bytes + tile % tiles_per_row * tile_bytes(kLogFmtTile);
  }
};

/// A whole tile's worth of memory for those that cannot be worked on in place.
template <class T>
struct Staging {
  alignas(64) T values[kGroup][kLogFmtTile];
  alignas(64) uint8_t wire[kGroup][kLogFmtHeaderBytes + 2 * kLogFmtTile + 16];
};

/// Lowers `first` to `tile`.
void note_first(std::atomic<int64_t>& first, int64_t tile) {
  int64_t seen = first.load();
  while (tile < seen && !first.compare_exchange_weak(seen, tile)) {
  }
}

/// Tiles [begin, begin + count) to the wire; returns the first that is not finite, or INT64_MAX.
template <class T>
int64_t encode_tiles(const TileLayout& layout, const T* values, uint8_t* wire, int64_t begin, int count, bool linear,
                     Staging<T>& staging) {
  const T* from[kGroup];
  uint8_t* to[kGroup];
  for (int i = 0; i < count; ++i) {
    const int64_t length = layout.count(begin + i);
    from[i] = values + layout.value(begin + i);
    to[i] = wire + layout.byte(begin + i);
    if (length == kLogFmtTile) continue;
    std::memset(static_cast<void*>(staging.values[i]), 0, sizeof(staging.values[i]));
    std::memcpy(static_cast<void*>(staging.values[i]), from[i], static_cast<size_t>(length) * sizeof(T));
    from[i] = staging.values[i];
    to[i] = staging.wire[i];
  }
  const int bad = LogFmtEncoder<T>{layout.bits, linear}.group(from, to, count);
  if (bad >= 0) return begin + bad;
  for (int i = 0; i < count; ++i) {
    if (to[i] != staging.wire[i]) continue;
    const int64_t bytes = layout.tile_bytes(layout.count(begin + i));
    std::memcpy(wire + layout.byte(begin + i), to[i], static_cast<size_t>(bytes));
  }
  return INT64_MAX;
}

/// Tiles [begin, begin + count) from the wire; returns the first whose header is damaged, or INT64_MAX.
template <class T>
int64_t decode_tiles(const TileLayout& layout, const uint8_t* wire, T* values, int64_t begin, int count,
                     Staging<T>& staging) {
  const uint8_t* from[kGroup];
  T* to[kGroup];
  for (int i = 0; i < count; ++i) {
    const int64_t length = layout.count(begin + i), bytes = layout.tile_bytes(length);
    from[i] = wire + layout.byte(begin + i);
    to[i] = length == kLogFmtTile ? values + layout.value(begin + i) : staging.values[i];
    if (!sane_header(from[i])) return begin + i;
    // Unpacking reads up to 16 bytes beyond the tile.
    if (length == kLogFmtTile && from[i] + bytes + 16 <= wire + layout.bytes()) continue;
    std::memset(staging.wire[i], 0, sizeof(staging.wire[i]));
    std::memcpy(staging.wire[i], from[i], static_cast<size_t>(bytes));
    from[i] = staging.wire[i];
  }
  decode_group(from, to, count, layout.bits);
  for (int i = 0; i < count; ++i) {
    if (to[i] != staging.values[i]) continue;
    const int64_t length = layout.count(begin + i);
    std::memcpy(static_cast<void*>(values + layout.value(begin + i)), to[i], static_cast<size_t>(length) * sizeof(T));
  }
  return INT64_MAX;
}

/// Runs work(first tile, number of tiles) on groups of all tiles; returns the lowest tile that it complains about, or -1.
template <class Work>
int64_t for_groups(int64_t tiles, const Work& work) {
  std::atomic<int64_t> first{INT64_MAX};
  parallel_ranges(tiles, kTaskTiles, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; tile += kGroup) {
      const int64_t bad = work(tile, static_cast<int>(std::min<int64_t>(kGroup, end - tile)));
      if (bad != INT64_MAX) note_first(first, bad);
    }
  });
  return first == INT64_MAX ? -1 : first.load();
}

/// values f32|bf16 [rows, cols] -> wire; returns the first tile that holds NaN or infinity, or -1.
int64_t logfmt_encode(const Span& values, int64_t cols, int bits, bool linear, const Span& wire) {
  const TileLayout layout(values, cols, bits, "logfmtEncode");
  auto* to = wire.as<uint8_t>("logfmtEncode", "wire", layout.bytes());
  return with_float_type(values, "logfmtEncode", "values", layout.rows * cols, [&](auto* from) {
    using T = std::decay_t<decltype(*from)>;
    return for_groups(layout.tiles(), [=, &layout](int64_t tile, int count) {
      Staging<T> staging;
      return encode_tiles<T>(layout, from, to, tile, count, linear, staging);
    });
  });
}

/// wire -> values f32|bf16 [rows, cols]; returns the first tile whose min or step no encoder writes, or -1.
int64_t logfmt_decode(const Span& wire, int64_t cols, int bits, const Span& values) {
  const TileLayout layout(values, cols, bits, "logfmtDecode");
  const auto* from = wire.as<uint8_t>("logfmtDecode", "wire", layout.bytes());
  return with_float_type(values, "logfmtDecode", "values", layout.rows * cols, [&](auto* to) {
    using T = std::decay_t<decltype(*to)>;
    return for_groups(layout.tiles(), [=, &layout](int64_t tile, int count) {
      Staging<T> staging;
      return decode_tiles<T>(layout, from, to, tile, count, staging);
    });
  });
}

}  // namespace

void register_logfmt(const Exports& exports) {
  bind(exports, "logfmtEncode", logfmt_encode);
  bind(exports, "logfmtDecode", logfmt_decode);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
