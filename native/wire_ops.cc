// Tokens on their way to experts and back, coded while they are copied (wire.h). `base` is memory that ranks share or a message;
// places are in units of four bytes from its start.
//
// No product may be fused with a sum here, as in logfmt_ops.cc.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include <vector>

#include "memory.h"
#include "wire.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr int64_t kUnit = 4;
constexpr int kSumSlot = 11;

/// Rows on the wire: where each begins, checked against the end of the memory.
struct Places {
  uint8_t* base;
  const int32_t* at;
  int64_t count;

  Places(const char* op, const Span& memory, const Span& places, int64_t row_bytes) {
    base = memory.as<uint8_t>(op, "base", 0);
    count = static_cast<int64_t>(places.length);
    at = places.as<int32_t>(op, "places", count);
    const int64_t last = (static_cast<int64_t>(memory.length) - row_bytes) / kUnit;
    if (count > 0 && static_cast<int64_t>(memory.length) < row_bytes) fail(op, "base is smaller than a row");
    check_indices(at, count, 0, std::min<int64_t>(last + 1, INT32_MAX), op, "places");
  }

  uint8_t* operator[](int64_t row) const { return base + at[row] * kUnit; }
};

/// The wire format of values as they lie in memory.
template <class T>
constexpr int plain_format() {
  return std::is_same_v<T, bf16> ? kBf16 : kF32;
}

/// wireEncode(x [T, D], D, source i32 [R]|null, format, pow2, base, places [R])
void wire_encode(Span x, int64_t width, Span source, int format, bool pow2, Span base, Span places) {
  const char* op = "wireEncode";
  const WireRow row{format, width};
  check_wire(op, row);
  const Places to(op, base, places, row.bytes());
  const int64_t tokens = rows_of(x, width, op, "x");
  const int32_t* from = source.optional<int32_t>(op, "source", to.count);
  if (from) check_indices(from, to.count, 0, tokens, op, "source");
  with_float_type(x, op, "x", from ? tokens * width : to.count * width, [&](const auto* data) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(data)>>;
    parallel_rows(to.count, width, [&](int64_t begin, int64_t end) {
      LogFmtTiles<T> logfmt(row);
      for (int64_t r = begin; r < end; ++r) {
        const T* values = data + (from ? from[r] : r) * width;
        if (row.format == plain_format<T>()) {
          std::memcpy(to[r], values, static_cast<size_t>(width) * sizeof(T));
          continue;
        }
        for (int64_t tile = 0; tile < row.tiles(); ++tile) {
          uint8_t* out = to[r] + row.tile_start(tile);
          if (row.is_logfmt()) logfmt.add(values + tile * kWireTile, row.count(tile), out);
          else encode_tile(values + tile * kWireTile, row, pow2, row.count(tile), out);
        }
      }
      if (logfmt.held) logfmt.flush();
    });
  });
}

/// wireDecode(base, places [R], format, out [R, D], D)
void wire_decode(Span base, Span places, int format, Span out, int64_t width) {
  const char* op = "wireDecode";
  const WireRow row{format, width};
  check_wire(op, row);
  const Places from(op, base, places, row.bytes());
  with_float_type(out, op, "out", from.count * width, [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    parallel_rows(from.count, width, [&](int64_t begin, int64_t end) {
      if (format == plain_format<T>()) {
        for (int64_t r = begin; r < end; ++r) std::memcpy(static_cast<void*>(to + r * width), from[r], static_cast<size_t>(width) * sizeof(T));
        return;
      }
      std::vector<const uint8_t*> at;
      for (int64_t r = begin; r < end; ++r) at.push_back(from[r]);
      decode_rows(at.data(), end - begin, row, [&](int64_t r, int64_t column, const float* values, int64_t count) {
        auto* target = to + (begin + r) * width + column;
        for (int64_t i = 0; i < count; i += 16) store(target + i, load(values + i), count - i);
      });
    });
  });
}

/// One list of rows to sum for every output: those from bounds[p] to bounds[p + 1].
struct Summands {
  WireRow row;
  Places places;
  const int32_t* bounds;

  Summands(const char* op, const Span& base, int format, const Span& limits, const Span& at, int64_t outputs, int64_t width)
      : row{format, width}, places(op, base, at, row.bytes()), bounds(limits.as<int32_t>(op, "bounds", outputs + 1)) {
    check_wire(op, row);
    check_bounds(bounds, outputs + 1, places.count, op, "bounds");
  }

  void add(int64_t output, float* sum) const {
    if (row.format == kF32) return add_plain<float>(output, sum);
    if (row.format == kBf16) return add_plain<bf16>(output, sum);
    std::vector<const uint8_t*> at;
    for (int64_t j = bounds[output]; j < bounds[output + 1]; ++j) at.push_back(places[j]);
    decode_rows(at.data(), static_cast<int64_t>(at.size()), row, [&](int64_t, int64_t column, const float* values, int64_t count) {
      for (int64_t i = 0; i < count; i += 16) store(sum + column + i, load(sum + column + i) + load(values + i));
    });
  }

  /// The sum alone, of rows in the type of `out`: nothing is stored in between.
  template <class T>
  void write_plain(int64_t output, T* out) const {
    const int64_t first = bounds[output], last = bounds[output + 1];
    each16(row.width, [&](int64_t i, auto n) {
      f32x16 sum = zero();
      for (int64_t j = first; j < last; ++j) sum += load(reinterpret_cast<const T*>(places[j]) + i, n);
      store(out + i, sum, n);
    });
  }

  /// Values as they lie in memory need no tile of their own.
  template <class T>
  void add_plain(int64_t output, float* sum) const {
    for (int64_t j = bounds[output]; j < bounds[output + 1]; ++j) {
      const T* values = reinterpret_cast<const T*>(places[j]);
      each16(row.width, [&](int64_t i, auto n) { store(sum + i, load(sum + i, n) + load(values + i, n), n); });
    }
  }
};

/// wireSum(base, format, bounds [P+1], places, otherBase|null, otherFormat, otherBounds, otherPlaces, out [P, D], D)
void wire_sum(Span base, int format, Span bounds, Span places, Span other_base, int other_format, Span other_bounds, Span other_places,
              Span out, int64_t width) {
  const char* op = "wireSum";
  const int64_t outputs = rows_of(out, width, op, "out");
  std::vector<Summands> lists;
  lists.emplace_back(op, base, format, bounds, places, outputs, width);
  if (other_base) lists.emplace_back(op, other_base, other_format, other_bounds, other_places, outputs, width);
  const int64_t padded = (width + kWireTile - 1) / kWireTile * kWireTile;
  with_float_type(out, op, "out", outputs * width, [&](auto* to) {
    parallel_rows(outputs, width * 4, [&](int64_t begin, int64_t end) {
      float* sum = scratch<float>(kSumSlot, padded);
      for (int64_t p = begin; p < end; ++p) {
        if (lists.size() == 1 && lists[0].row.format == plain_format<std::remove_pointer_t<decltype(to)>>()) {
          lists[0].write_plain(p, to + p * width);
          continue;
        }
        std::fill_n(sum, padded, 0.0f);
        for (const Summands& list : lists) list.add(p, sum);
        each16(width, [&](int64_t i, auto n) { store(to + p * width + i, load(sum + i, n), n); });
      }
    });
  });
}

/// wirePartial(rows [R, D], D, members, weights f32|null, bounds [P+1], base, places [P]): Σ weight·row, in the rows' type
void wire_partial(Span rows, int64_t width, Span members, Span weights, Span bounds, Span base, Span places) {
  const char* op = "wirePartial";
  const int64_t count = rows_of(rows, width, op, "rows"), total = static_cast<int64_t>(members.length);
  const int32_t* member = members.as<int32_t>(op, "members", total);
  check_indices(member, total, 0, count, op, "members");
  const float* weight = weights.optional<float>(op, "weights", total);
  with_float_type(rows, op, "rows", count * width, [&](const auto* data) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(data)>>;
    const Places to(op, base, places, width * static_cast<int64_t>(sizeof(T)));
    const int32_t* limit = bounds.as<int32_t>(op, "bounds", to.count + 1);
    check_bounds(limit, to.count + 1, total, op, "bounds");
    parallel_rows(to.count, width * 2, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        auto* out = reinterpret_cast<T*>(to[p]);
        each16(width, [&](int64_t i, auto n) {
          f32x16 sum = zero();
          for (int64_t j = limit[p]; j < limit[p + 1]; ++j) {
            sum += load(data + member[j] * width + i, n) * (weight ? weight[j] : 1.0f);
          }
          store(out + i, sum, n);
        });
      }
    });
  });
}

}  // namespace

void register_wire(const Exports& exports) {
  bind(exports, "wireEncode", wire_encode);
  bind(exports, "wireDecode", wire_decode);
  bind(exports, "wireSum", wire_sum);
  bind(exports, "wirePartial", wire_partial);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
