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
#include "stream.h"
#include "wire.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr int64_t kUnit = 4;
constexpr int kRowSlot = 9, kValuesSlot = 10, kSumSlot = 11;

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

/// A row's place while it is made: where it goes, or a core's cache on the way past it.
struct Target {
  bool streams;
  int64_t bytes;

  Target(int64_t rows, int64_t row_bytes) : streams(rows * row_bytes >= kStreamFrom), bytes(row_bytes) {}

  /// Whether a row there is made of whole lines, which may be streamed as they are made.
  bool lines(const void* to) const { return streams && (reinterpret_cast<uintptr_t>(to) | static_cast<uintptr_t>(bytes)) % kLine == 0; }
  template <class T>
  T* begin(void* to) const {
    return static_cast<T*>(streams ? scratch_bytes(kRowSlot, static_cast<size_t>(bytes) + 2 * kLine) : to);
  }
  void end(void* to, const void* made) const {
    if (streams) stream_copy(to, made, bytes);
  }
  /// Copies a row; `next` is the one that is copied then, or null.
  void copy(void* to, const void* from, const void* next) const {
    if (streams) stream_copy(to, from, bytes, next);
    else std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void finish() const {
    if (streams) finish_streams();
  }
};

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
    const Target target(to.count, row.bytes());
    const auto values = [&](int64_t r) { return data + (from ? from[r] : r) * width; };
    parallel_rows(to.count, width, [&](int64_t begin, int64_t end) {
      RowWriter<T> writer(row, pow2);
      for (int64_t r = begin; r < end; ++r) {
        if (row.format == plain_format<T>()) target.copy(to[r], values(r), r + 1 < end ? values(r + 1) : nullptr);
        else writer.write(values(r), to[r]);
      }
      writer.flush();
      target.finish();
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
    const Target target(from.count, width * static_cast<int64_t>(sizeof(T)));
    parallel_rows(from.count, width, [&](int64_t begin, int64_t end) {
      RowReader<T> reader(row);
      for (int64_t r = begin; r < end; ++r) {
        T* values = to + r * width;
        const uint8_t* next = r + 1 < end ? from[r + 1] : nullptr;
        if (format == plain_format<T>()) {
          target.copy(values, from[r], next);
        } else if (row.is_logfmt()) {
          reader.read(from[r], values);
        } else {
          if (next) fetch(next, row.bytes());
          T* made = target.begin<T>(values);
          reader.read(from[r], made);
          target.end(values, made);
        }
      }
      reader.flush();
      target.finish();
    });
  });
}

/// out = Σ weight(j) · row(j) over j of [first, last), in FP32 from zero. Asks for the rows up to `ahead` as it goes.
template <class T, bool Stream = false, class Out, class Row, class Weight>
FATHOM_INLINE void sum_rows(int64_t width, int64_t first, int64_t last, int64_t ahead, const Row& at, const Weight& weight, Out* out) {
  constexpr int64_t kChunk = 64;
  int64_t i = 0;
  for (; i + kChunk <= width; i += kChunk) {
    for (int64_t j = last; j < ahead; ++j) fetch(at(j) + i, kChunk * static_cast<int64_t>(sizeof(T)));
    f32x16 sum[4] = {zero(), zero(), zero(), zero()};
    for (int64_t j = first; j < last; ++j) {
      const T* values = at(j) + i;
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) sum[v] += load(values + 16 * v) * weight(j);
    }
    for (int v = 0; v < 4; v += 2) {
      if constexpr (Stream) stream(out + i + 16 * v, sum[v], sum[v + 1]);
      else store(out + i + 16 * v, sum[v], sum[v + 1]);
    }
  }
  for (; i < width; i += 16) {
    const int64_t n = std::min<int64_t>(16, width - i);
    f32x16 sum = zero();
    for (int64_t j = first; j < last; ++j) sum += load(at(j) + i, n) * weight(j);
    store(out + i, sum, n);
  }
}

/// One list of rows to sum for every output: those from bounds[p] to bounds[p + 1].
struct Summands {
  WireRow row;
  Places places;
  const int32_t* bounds;
  int64_t outputs;

  Summands(const char* op, const Span& base, int format, const Span& limits, const Span& at, int64_t count, int64_t width)
      : row{format, width}, places(op, base, at, row.bytes()), bounds(limits.as<int32_t>(op, "bounds", count + 1)), outputs(count) {
    check_wire(op, row);
    check_bounds(bounds, outputs + 1, places.count, op, "bounds");
  }

  /// The sum of an output's rows alone; `Stream` where it is made of whole lines that go past the caches.
  template <bool Stream = false, class Out>
  void sum(int64_t output, Out* out) const {
    if (row.format == kF32) return sum_plain<float, Stream>(output, out);
    if (row.format == kBf16) return sum_plain<bf16, Stream>(output, out);
    float* sums = scratch<float>(kSumSlot, row.width);
    std::fill_n(sums, row.width, 0.0f);
    add(output, sums);
    each16(row.width, [&](int64_t i, auto n) { store(out + i, load(sums + i, n), n); });
  }

  /// Adds an output's rows, one after the other.
  void add(int64_t output, float* sums) const {
    RowReader<float> reader(row);
    const int64_t batch = kGroup / row.tiles() + 1;
    float* values = scratch<float>(kValuesSlot, batch * row.width);
    for (int64_t j = bounds[output]; j < bounds[output + 1]; j += batch) {
      const int64_t count = std::min<int64_t>(batch, bounds[output + 1] - j);
      for (int64_t r = 0; r < count; ++r) reader.read(places[j + r], values + r * row.width);
      reader.flush();
      for (int64_t r = 0; r < count; ++r) {
        each16(row.width, [&](int64_t i, auto n) { store(sums + i, load(sums + i, n) + load(values + r * row.width + i, n), n); });
      }
    }
  }

 private:
  template <class T, bool Stream, class Out>
  void sum_plain(int64_t output, Out* out) const {
    const auto at = [&](int64_t j) { return reinterpret_cast<const T*>(places[j]); };
    const int64_t ahead = bounds[std::min(output + 2, outputs)];
    sum_rows<T, Stream>(row.width, bounds[output], bounds[output + 1], ahead, at, [](int64_t) { return 1.0f; }, out);
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
  with_float_type(out, op, "out", outputs * width, [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    const Target target(outputs, width * static_cast<int64_t>(sizeof(T)));
    parallel_rows(outputs, width * 4, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        if (lists.size() == 1 && target.lines(to + p * width)) {
          lists[0].sum<true>(p, to + p * width);
          continue;
        }
        T* made = target.begin<T>(to + p * width);
        if (lists.size() == 1) {
          lists[0].sum(p, made);
        } else {
          float* sums = scratch<float>(kSumSlot, width);
          lists[0].sum(p, sums);
          lists[1].add(p, sums);
          each16(width, [&](int64_t i, auto n) { store(made + i, load(sums + i, n), n); });
        }
        target.end(to + p * width, made);
      }
      target.finish();
    });
  });
}

/// wireReturn(base, format, bounds [P+1], places, toFormat, toBase, toPlaces [P], D): sums, coded without a detour through memory
void wire_return(Span base, int format, Span bounds, Span places, int to_format, Span to_base, Span to_places, int64_t width) {
  const char* op = "wireReturn";
  const WireRow row{to_format, width};
  check_wire(op, row);
  const Places to(op, to_base, to_places, row.bytes());
  const Summands list(op, base, format, bounds, places, to.count, width);
  parallel_rows(to.count, width * 4, [&](int64_t begin, int64_t end) {
    RowWriter<float> writer(row, false);
    // As many rows as the writer may still need: those of its last seven tiles.
    const int64_t kept = (kGroup - 1) / row.tiles() + 2;
    float* sums = scratch<float>(kRowSlot, kept * width);
    for (int64_t p = begin; p < end; ++p) {
      float* values = sums + p % kept * width;
      list.sum(p, values);
      writer.write(values, to[p]);
    }
    writer.flush();
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
    const Target target(to.count, width * static_cast<int64_t>(sizeof(T)));
    const auto at = [&](int64_t j) { return data + member[j] * width; };
    const auto weight_of = [&](int64_t j) { return weight ? weight[j] : 1.0f; };
    parallel_rows(to.count, width * 2, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        T* out = reinterpret_cast<T*>(to[p]);
        const int64_t ahead = limit[std::min(p + 2, to.count)];
        if (target.lines(out)) sum_rows<T, true>(width, limit[p], limit[p + 1], ahead, at, weight_of, out);
        else sum_rows<T>(width, limit[p], limit[p + 1], ahead, at, weight_of, out);
      }
      target.finish();
    });
  });
}

}  // namespace

void register_wire(const Exports& exports) {
  bind(exports, "wireEncode", wire_encode);
  bind(exports, "wireDecode", wire_decode);
  bind(exports, "wireSum", wire_sum);
  bind(exports, "wireReturn", wire_return);
  bind(exports, "wirePartial", wire_partial);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
