// Rows of activations as they travel: their layout, and both directions (src/expert/wire/reference.ts is the reference).
//
// A row of D values is one tile of 128 after the other: FP32 and BF16 as they are; E4M3 and E5M2 an FP32 scale, then codes of one
// byte; E5M6 a scale, then packed codes of 12 bits; LogFMT-n as in logfmt.h. A row takes a whole number of four bytes.
#pragma once

#include "kernels.h"
#include "logfmt.h"
#include "rows.h"
#include "tile_codec.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Formats from here on are LogFMT: kLogFmt + n.
constexpr int kLogFmt = 16;
constexpr int kScaleBytes = 4;
constexpr int kWireTile = 128;
/// What packing may write, and unpacking read, beyond a tile.
constexpr int kBeyond = 16;

/// Layout of a row of `width` values.
struct WireRow {
  int format;
  int64_t width;

  bool is_logfmt() const { return format >= kLogFmt; }
  int bits() const { return format - kLogFmt; }
  int64_t tiles() const { return (width + kWireTile - 1) / kWireTile; }
  int64_t count(int64_t tile) const { return std::min<int64_t>(kWireTile, width - tile * kWireTile); }
  int64_t tile_bytes(int64_t count) const {
    if (is_logfmt()) return kLogFmtHeaderBytes + (count * bits() + 7) / 8;
    switch (format) {
      case kF32: return 4 * count;
      case kBf16: return 2 * count;
      case kE5m6: return kScaleBytes + (count * 12 + 7) / 8;
      default: return kScaleBytes + count;
    }
  }
  int64_t tile_start(int64_t tile) const { return tile * tile_bytes(kWireTile); }
  int64_t bytes() const { return (tile_start(tiles() - 1) + tile_bytes(count(tiles() - 1)) + 3) / 4 * 4; }
};

inline void check_wire(const char* op, const WireRow& row) {
  const bool known = row.is_logfmt() ? row.bits() >= 4 && row.bits() <= 16 : row.format >= kF32 && row.format <= kE5m6;
  if (!known) fail(op, "unknown wire format " + std::to_string(row.format));
  if (row.width < 1) fail(op, "rows have no values");
}

// ---- E5M6 on the wire: 12 bits ----------------------------------------------------------------------------------------

/// Code of a BF16 value that lies on E5M6's grid: sign, 5 exponent and 6 mantissa bits; NaN is the code after infinity's.
inline uint16_t e5m6_code(bf16 value) {
  const uint16_t sign = value.bits >> 15 << 11, magnitude = value.bits & 0x7fff;
  if (magnitude > 0x7f80) return sign | 0x7e0;
  constexpr uint16_t smallest_normal = (127 - 14) << 7;
  if (magnitude >= smallest_normal) return sign | static_cast<uint16_t>((magnitude >> 1) - ((127 - 15) << 6));
  return sign | static_cast<uint16_t>(to_f32(bf16{magnitude}) * 0x1p20f);
}

inline float e5m6_value(uint16_t code) {
  const int magnitude = code & 0x7ff;
  float value;
  if (magnitude >= 0x7c0) {
    value = std::numeric_limits<float>::quiet_NaN();
  } else if (magnitude < 64) {
    value = static_cast<float>(magnitude) * 0x1p-20f;
  } else {
    const uint32_t bits = (static_cast<uint32_t>(magnitude) + ((127 - 15) << 6)) << 17;
    std::memcpy(&value, &bits, 4);
  }
  return code & 0x800 ? -value : value;
}

// ---- Encoding ------------------------------------------------------------------------------------------------------------

/// One tile of a format that is not LogFMT.
template <class T>
inline void encode_tile(const T* x, const WireRow& row, bool pow2, int64_t count, uint8_t* to) {
  if (row.format == kF32 || row.format == kBf16) {
    for (int64_t i = 0; i < count; i += 16) {
      if (row.format == kF32) store(reinterpret_cast<float*>(to) + i, load(x + i, count - i), count - i);
      else store(reinterpret_cast<bf16*>(to) + i, load(x + i, count - i), count - i);
    }
    return;
  }
  alignas(64) bf16 codes[kWireTile] = {};
  const ScaleRule rule{pow2 ? kScalePow2 : kScaleF32};
  float scale = 1;
  with_narrow(row.format, [&](auto tag) { scale = quantize_tile<decltype(tag)::value>(x, 0, count, rule, false, codes); });
  std::memcpy(to, &scale, kScaleBytes);
  if (row.format != kE5m6) {
    std::memcpy(to + kScaleBytes, codes, static_cast<size_t>(count));
    return;
  }
  alignas(64) uint16_t narrow[kWireTile];
  alignas(64) uint8_t packed[kWireTile * 12 / 8 + kBeyond];
  for (int i = 0; i < kWireTile; ++i) narrow[i] = e5m6_code(codes[i]);
  pack_tile(narrow, 12, packed);
  std::memcpy(to + kScaleBytes, packed, static_cast<size_t>((count * 12 + 7) / 8));
}

/// Tiles of LogFMT, up to eight side by side. A tile that is not finite gets a header that no encoder writes.
template <class T>
struct LogFmtTiles {
  const WireRow& row;
  const T* from[kGroup];
  uint8_t* to[kGroup];
  int64_t counts[kGroup];
  int held = 0;
  alignas(64) T values[kGroup][kWireTile];
  alignas(64) uint8_t wire[kGroup][kLogFmtHeaderBytes + 2 * kWireTile + kBeyond];

  explicit LogFmtTiles(const WireRow& r) : row(r) {}

  void add(const T* x, int64_t count, uint8_t* out) {
    from[held] = x;
    if (count < kWireTile) {
      std::memset(static_cast<void*>(values[held]), 0, sizeof(values[held]));
      std::memcpy(static_cast<void*>(values[held]), x, static_cast<size_t>(count) * sizeof(T));
      from[held] = values[held];
    }
    counts[held] = count;
    to[held++] = out;
    if (held == kGroup) flush();
  }

  void flush() {
    uint8_t* staged[kGroup];
    for (int i = 0; i < held; ++i) staged[i] = wire[i];
    const LogFmtEncoder<T> encoder{row.bits(), true};
    const bool whole = encoder.group(from, staged, held) < 0;
    for (int i = 0; i < held; ++i) {
      if (!whole && encoder.group(from + i, staged + i, 1) >= 0) std::memset(staged[i], 0xff, sizeof(wire[i]));
      std::memcpy(to[i], staged[i], static_cast<size_t>(row.tile_bytes(counts[i])));
    }
    held = 0;
  }
};

// ---- Decoding ------------------------------------------------------------------------------------------------------------

/// 128 codes of an 8-bit format, times their scale.
template <int F, class T>
FATHOM_INLINE void decode_bytes(const uint8_t* codes, float scale, T* out) {
#pragma GCC unroll 4
  for (int i = 0; i < kWireTile; i += 32) {
    f32x16 values[2];
    decode_line<F>(codes + i, values);
    store(out + i, values[0] * scale, values[1] * scale);
  }
}

/// One tile of a format that is not LogFMT.
template <class T>
inline void decode_tile(const uint8_t* from, const WireRow& row, int64_t count, T* out) {
  if (row.format == kF32 || row.format == kBf16) {
    each16(count, [&](int64_t i, auto n) {
      if (row.format == kF32) store(out + i, load(reinterpret_cast<const float*>(from) + i, n), n);
      else store(out + i, load(reinterpret_cast<const bf16*>(from) + i, n), n);
    });
    return;
  }
  float scale;
  std::memcpy(&scale, from, kScaleBytes);
  const uint8_t* codes = from + kScaleBytes;
  if (row.format != kE5m6) {
    with_narrow(row.format, [&](auto tag) {
      constexpr int F = decltype(tag)::value;
      if constexpr (F != kE5m6) {
        if (count == kWireTile) return decode_bytes<F>(codes, scale, out);
        each16(count, [&](int64_t i, auto n) { store(out + i, load_codes<F>(codes, i, n) * scale, n); });
      }
    });
    return;
  }
  alignas(64) uint8_t packed[kWireTile * 12 / 8 + kBeyond] = {};
  alignas(64) uint16_t narrow[kWireTile];
  std::memcpy(packed, codes, static_cast<size_t>((count * 12 + 7) / 8));
  unpack_tile(packed, 12, narrow);
  for (int64_t i = 0; i < count; ++i) out[i] = from_f32<T>(e5m6_value(narrow[i]) * scale);
}

/// Tiles of LogFMT on their way out, up to eight side by side; a damaged header gives NaN.
template <class T>
struct LogFmtReader {
  const WireRow& row;
  T* to[kGroup];
  int64_t counts[kGroup];
  bool sane[kGroup];
  int held = 0;
  alignas(64) uint8_t wire[kGroup][kLogFmtHeaderBytes + 2 * kWireTile + kBeyond];
  alignas(64) T tails[kGroup][kWireTile];

  explicit LogFmtReader(const WireRow& r) : row(r) {}

  void add(const uint8_t* from, int64_t count, T* out) {
    std::memcpy(wire[held], from, static_cast<size_t>(row.tile_bytes(count)));
    sane[held] = sane_header(wire[held]);
    if (!sane[held]) std::memset(wire[held], 0, kLogFmtHeaderBytes);
    counts[held] = count;
    to[held++] = out;
    if (held == kGroup) flush();
  }

  void flush() {
    const uint8_t* tiles[kGroup];
    T* targets[kGroup];
    for (int i = 0; i < held; ++i) {
      tiles[i] = wire[i];
      targets[i] = counts[i] < kWireTile ? tails[i] : to[i];
    }
    decode_group(tiles, targets, held, row.bits());
    for (int i = 0; i < held; ++i) {
      if (!sane[i]) std::fill_n(to[i], counts[i], from_f32<T>(std::numeric_limits<float>::quiet_NaN()));
      else if (counts[i] < kWireTile) std::copy_n(tails[i], counts[i], to[i]);
    }
    held = 0;
  }
};

/// Rows to values; those of LogFMT are there after `flush`.
template <class T>
struct RowReader {
  WireRow row;
  LogFmtReader<T> logfmt;

  explicit RowReader(const WireRow& r) : row(r), logfmt(row) {}

  void read(const uint8_t* from, T* out) {
    for (int64_t tile = 0; tile < row.tiles(); ++tile) {
      const uint8_t* at = from + row.tile_start(tile);
      T* values = out + tile * kWireTile;
      if (row.is_logfmt()) logfmt.add(at, row.count(tile), values);
      else decode_tile(at, row, row.count(tile), values);
    }
  }

  void flush() {
    if (logfmt.held) logfmt.flush();
  }
};

/// Values to rows; those of LogFMT are there after `flush`, and their values must stay until then.
template <class T>
struct RowWriter {
  WireRow row;
  bool pow2;
  LogFmtTiles<T> logfmt;

  RowWriter(const WireRow& r, bool powers) : row(r), pow2(powers), logfmt(row) {}

  void write(const T* values, uint8_t* to) {
    for (int64_t tile = 0; tile < row.tiles(); ++tile) {
      uint8_t* out = to + row.tile_start(tile);
      const T* from = values + tile * kWireTile;
      if (row.is_logfmt()) logfmt.add(from, row.count(tile), out);
      else encode_tile(from, row, pow2, row.count(tile), out);
    }
  }

  void flush() {
    if (logfmt.held) logfmt.flush();
  }
};

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
