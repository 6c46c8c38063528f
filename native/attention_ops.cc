// Causal attention within segments, forward: tiled with an online softmax, no [T, T] matrix.
#include "attention.h"
#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Queries of one task, and keys that they go through before the next: K and V of kKeySpan keys at DeepSeek-V3's head
/// sizes are 640 KB, so that they stay in L2 while the task's queries take turns.
constexpr int64_t kQueryBlock = 128, kKeySpan = 1024;

/// Packed keys and values that exist at one time, per thread: what stays in a core's L2 cache.
constexpr int64_t kWaveBytes = int64_t{1} << 20;

template <class T>
struct ForwardCall {
  AttentionDims dims;
  const T *q, *kv, *k_rope;
  T* o;
  float* log_sum_exp;
};

/// One unit's keys, packed for q·kᵀ in panels of 16 keys, and its values, packed in blocks of kKeyBlock keys.
template <class T>
struct PackedUnit {
  AttentionUnit unit;
  T *keys, *values;

  static int64_t key_elements(const AttentionDims& d, int64_t length) { return block_elements<T>(length, d.depth()); }
  static int64_t value_elements(const AttentionDims& d, int64_t length) {
    return round_up(length, kKeyBlock) / kKeyBlock * block_elements<T>(d.v, kKeyBlock);
  }
  static int64_t elements(const AttentionDims& d, int64_t length) {
    return round_up(key_elements(d, length) + value_elements(d, length), 32);
  }
  T* keys_from(const AttentionDims& d, int64_t key) const { return keys + key / 16 * panel_elements<T>(d.depth()); }
  T* values_from(const AttentionDims& d, int64_t key) const {
    return values + key / kKeyBlock * block_elements<T>(d.v, kKeyBlock);
  }
};

/// Packs rows of keys [k_nope | k_rope], side by side where the pairs of the packed layout allow it.
template <class T>
void pack_keys(const AttentionDims& d, const T* kv, const T* k_rope, int64_t count, T* out) {
  if (d.nope % kBlock == 0) {
    for (int64_t key = 0; key < count; key += 16, out += panel_elements<T>(d.depth())) {
      const int64_t columns = std::min<int64_t>(16, count - key);
      pack_panel_nk(out, kv + key * d.kv_stride(), columns, d.nope, d.kv_stride());
      pack_panel_nk(out + d.nope * 16, k_rope + key * d.rope, columns, d.rope, d.rope);
    }
    return;
  }
  T* rows = scratch<T>(9, kKeyBlock * d.depth());
  gather_keys(rows, d.depth(), count, d, kv, k_rope, count);
  pack_nk(out, rows, count, d.depth(), d.depth());
}

/// Packs keys `key` .. `key` + kKeyBlock of a unit.
template <class T>
void pack_block(const ForwardCall<T>& call, const PackedUnit<T>& packed, int64_t key) {
  const AttentionDims& d = call.dims;
  const AttentionUnit& unit = packed.unit;
  const int64_t count = std::min(kKeyBlock, unit.length() - key);
  const T* kv = call.kv + (unit.begin + key) * d.kv_stride() + unit.head * d.kv_head();
  pack_keys(d, kv, call.k_rope + (unit.begin + key) * d.rope, count, packed.keys_from(d, key));
  clear_last_panel(packed.keys_from(d, key), count, d.depth());
  pack_blocks_kn(packed.values_from(d, key), kv + d.nope, count, d.v, d.kv_stride());
}

/// The queries of one task on their way through the keys, kRows of them at a time.
template <class T>
class QueryBlock {
 public:
  QueryBlock(const ForwardCall<T>& forward, const PackedUnit<T>& unit_keys, int64_t first_row)
      : call(forward), d(forward.dims), packed(unit_keys), length(unit_keys.unit.length()), first(first_row),
        count(std::min(kQueryBlock, length - first_row)), stride(round_up(d.depth(), kBlock)), memory(9, bytes()),
        soft(memory, count, d.v, d.scale) {
    queries = memory.take<T>(kQueryBlock * stride);
    weights = memory.take<T>(kRows * kKeyBlock);
    for (float*& buffer : scores) buffer = memory.take<float>(kRows * kKeyBlock);
    const T* q = call.q + (packed.unit.query + first - packed.unit.skip) * d.q_stride() + packed.unit.head * d.depth();
    copy_padded(queries, stride, soft.rows, q, d.q_stride(), d.depth(), count);
  }

  /// The scores of a step are computed while the weights of the one before are, and its maxima while these meet their
  /// values.
  void run() {
    const std::vector<Step> steps = list_steps();
    score(steps[0], NoSideWork{});
    for (int64_t part = 0; part < kRows / kLookRows; ++part) look(steps[0], part);
    for (size_t i = 0; i + 1 < steps.size(); ++i) {
      const Step &now = steps[i], &next = steps[i + 1];
      prepare(now);
      const auto weigh_part = [&](int64_t part) { weigh(now, part); };
      Beside weighing(weigh_parts(now), weigh_part);
      score(next, weighing);
      weighing.finish();
      const auto look_part = [&](int64_t part) { look(next, part); };
      Beside looking(kRows / kLookRows, look_part);
      add_values(now, looking);
      looking.finish();
    }
    const Step& last = steps.back();
    prepare(last);
    for (int64_t part = 0; part < weigh_parts(last); ++part) weigh(last, part);
    add_values(last, NoSideWork{});
    write();
  }

 private:
  size_t bytes() const {
    return OnlineSoftmax<T>::bytes(kQueryBlock, d.v) + Workspace::bytes_of<T>(kQueryBlock * stride) +
           Workspace::bytes_of<T>(kRows * kKeyBlock) + 2 * Workspace::bytes_of<float>(kRows * kKeyBlock);
  }

  /// A step: kRows queries from `row` against the keys from `key`.
  struct Step {
    int64_t row, key;
    /// Keys of the block that exist, and columns up to the last that a query sees, filled up to a multiple of 32.
    int64_t stored, columns;
    float* scores;
  };

  std::vector<Step> list_steps() const {
    std::vector<Step> steps;
    for (int64_t span = 0; span < first + count; span += kKeySpan) {
      for (int64_t row = 0; row < count; row += kRows) {
        const int64_t end = first + row + kRows;
        for (int64_t key = span; key < std::min({span + kKeySpan, end, length}); key += kKeyBlock) {
          const int64_t columns = round_up(std::min(kKeyBlock, std::min(end, length) - key), kBlock);
          steps.push_back({row, key, std::min(kKeyBlock, length - key), columns, scores[steps.size() % 2]});
        }
      }
    }
    return steps;
  }

  template <class Side>
  void score(const Step& s, Side&& side) {
    const auto range = [&](int64_t, int64_t) { return Range{0, d.depth()}; };
    multiply(kRows, s.columns, queries + s.row * stride, stride, packed.keys_from(d, s.key), panel_elements<T>(d.depth()),
             s.scores, kKeyBlock, false, range, side);
  }

  /// Rows that are looked at, and scores that are weighed, in one portion beside the tile products.
  static constexpr int64_t kLookRows = 4, kWeighColumns = 64;

  void look(const Step& s, int64_t part) {
    for (int64_t i = part * kLookRows; i < (part + 1) * kLookRows; ++i) {
      const int64_t visible = std::min(s.stored, first + s.row + i + 1 - s.key);
      soft.look(s.scores + i * kKeyBlock, s.row + i, visible, s.columns);
    }
  }

  void prepare(const Step& s) {
    soft.raise(s.row);
    for (int64_t i = s.row; i < s.row + kRows && s.key > 0; ++i) soft.rescale(i);
  }

  static int64_t weigh_parts(const Step& s) { return kRows * round_up(s.columns, kWeighColumns) / kWeighColumns; }
  void weigh(const Step& s, int64_t part) {
    const int64_t parts = round_up(s.columns, kWeighColumns) / kWeighColumns, i = part / parts, j = part % parts * kWeighColumns;
    soft.weigh(s.scores + i * kKeyBlock + j, weights + i * kKeyBlock + j, s.row + i, std::min(kWeighColumns, s.columns - j));
  }

  template <class Side>
  void add_values(const Step& s, Side&& side) {
    const auto range = [&](int64_t, int64_t) { return Range{0, std::min(s.stored, s.columns)}; };
    multiply(kRows, soft.width, weights, kKeyBlock, packed.values_from(d, s.key), panel_elements<T>(s.stored),
             soft.sums + s.row * soft.width, soft.width, s.key > 0, range, side);
  }

  /// o = sums / mass, and logSumExp.
  void write() {
    const int64_t row = packed.unit.query + first - packed.unit.skip, head = packed.unit.head;
    float inverse[kQueryBlock];
    for (int64_t i = 0; i < count; i += 16) {
      const f32x16 total = soft.totals(i);
      store(inverse + i, 1.0f / total);
      store(call.log_sum_exp + head * d.tokens + row + i, fma(load(soft.top + i), kLn2, log(total)), count - i);
    }
    for (int64_t i = 0; i < count; ++i) {
      const f32x16 factor = broadcast(inverse[i]);
      write_row(call.o + (row + i) * d.o_stride() + head * d.v, soft.sums + i * soft.width, d.v, [=](f32x16 x) { return x * factor; });
    }
  }

  const ForwardCall<T>& call;
  const AttentionDims& d;
  const PackedUnit<T>& packed;
  const int64_t length, first, count, stride;
  Workspace memory;
  OnlineSoftmax<T> soft;
  T *queries, *weights;
  float* scores[2];
};

/// A block of rows of a packed unit.
struct BlockTask {
  int64_t unit, row;
};

/// Blocks of `size` rows of every unit, the last (and for queries the longest) of a unit first; of queries, those that
/// there are.
template <class T>
std::vector<BlockTask> blocks_of(const std::vector<PackedUnit<T>>& wave, int64_t size, bool queries) {
  std::vector<BlockTask> tasks;
  for (size_t u = 0; u < wave.size(); ++u) {
    const int64_t from = queries ? wave[u].unit.skip : 0;
    for (int64_t row = (wave[u].unit.length() - from - 1) / size * size; row >= 0; row -= size) {
      tasks.push_back({static_cast<int64_t>(u), from + row});
    }
  }
  return tasks;
}

/// Packs and attends the units of one wave.
template <class T>
void run_wave(const ForwardCall<T>& call, std::vector<PackedUnit<T>>& wave, int64_t elements) {
  T* memory = scratch<T>(8, elements);
  for (PackedUnit<T>& packed : wave) {
    packed.keys = memory;
    packed.values = memory + PackedUnit<T>::key_elements(call.dims, packed.unit.length());
    memory += PackedUnit<T>::elements(call.dims, packed.unit.length());
  }
  const std::vector<BlockTask> keys = blocks_of(wave, kKeyBlock, false), queries = blocks_of(wave, kQueryBlock, true);
  parallel_for(static_cast<int64_t>(keys.size()), [&](int64_t i) { pack_block(call, wave[keys[i].unit], keys[i].row); });
  parallel_for(static_cast<int64_t>(queries.size()), [&](int64_t i) {
    QueryBlock<T>(call, wave[queries[i].unit], queries[i].row).run();
  });
}

/// Rows of keys and values, and of queries, of each segment.
struct Segments {
  const int32_t *keys, *queries;
  int64_t bounds;
};

/// Every head of every segment that has queries.
std::vector<AttentionUnit> units_of(const Segments& segments, int64_t heads) {
  std::vector<AttentionUnit> units = attention_units(segments.keys, segments.bounds, 0, heads);
  if (segments.queries == segments.keys) return units;
  units.clear();
  for (int64_t s = 0; s + 1 < segments.bounds; ++s) {
    const int64_t begin = segments.keys[s], end = segments.keys[s + 1], query = segments.queries[s];
    const int64_t skip = end - begin - (segments.queries[s + 1] - query);
    for (int64_t h = 0; h < heads && skip < end - begin; ++h) units.push_back({begin, end, h, skip, query});
  }
  return units;
}

template <class T>
void attend(const ForwardCall<T>& call, const Segments& segments) {
  clear_outside(call.o, call.dims.o_stride(), segments.queries, segments.bounds, call.dims.tokens);
  const int64_t limit = kWaveBytes * threads() / static_cast<int64_t>(sizeof(T));
  std::vector<PackedUnit<T>> wave;
  int64_t elements = 0;
  for (const AttentionUnit& unit : units_of(segments, call.dims.heads)) {
    const int64_t more = PackedUnit<T>::elements(call.dims, unit.length());
    if (!wave.empty() && elements + more > limit) {
      run_wave(call, wave, elements);
      wave.clear();
      elements = 0;
    }
    wave.push_back({unit, nullptr, nullptr});
    elements += more;
  }
  if (!wave.empty()) run_wave(call, wave, elements);
}

/// The segments as JavaScript passes them, checked: no more queries than keys.
Segments read_segments(const Span& keys, const Span& queries, int64_t key_rows, int64_t query_rows, const char* op) {
  const auto bounds = static_cast<int64_t>(keys.length);
  const int32_t* key = keys.as<int32_t>(op, "segments", 1);
  check_bounds(key, bounds, key_rows, op, "segments");
  if (!queries) return {key, key, bounds};
  const int32_t* query = queries.as<int32_t>(op, "queries", bounds);
  check_bounds(query, bounds, query_rows, op, "queries");
  for (int64_t s = 0; s + 1 < bounds; ++s) {
    const int own = query[s + 1] - query[s], seen = key[s + 1] - key[s];
    if (own > seen) fail(op, "segment " + std::to_string(s) + " has " + std::to_string(own) + " queries but " + std::to_string(seen) + " keys");
  }
  return {key, query, bounds};
}

/// q [T, H·d], kv [S, H·(nope+v)], kRope [S, rope], segments i32 of keys, queries i32 or null (as the keys) -> o [T, H·v],
/// logSumExp f32 [H, T].
void attention(const Span& q, const Span& kv, const Span& k_rope, const Span& segments, const Span& queries, int64_t heads,
               int64_t nope, int64_t rope, int64_t v, float scale, const Span& o, const Span& log_sum_exp) {
  const char* op = "attention";
  if (heads < 1 || nope < 0 || rope < 0) fail(op, "sizes must be positive");
  const AttentionDims dims{rows_of(o, heads * v, op, "o"), heads, nope, rope, v, scale};
  const int64_t keys = queries ? rows_of(kv, dims.kv_stride(), op, "kv") : dims.tokens;
  const Segments bounds = read_segments(segments, queries, keys, dims.tokens, op);
  with_float_type(o, op, "o", dims.tokens * dims.o_stride(), [&](auto* out) {
    using T = std::decay_t<decltype(*out)>;
    attend<T>({dims, q.as<T>(op, "q", dims.tokens * dims.q_stride()), kv.as<T>(op, "kv", keys * dims.kv_stride()),
               k_rope.as<T>(op, "kRope", keys * rope), out, log_sum_exp.as<float>(op, "logSumExp", heads * dims.tokens)},
              bounds);
  });
}

}  // namespace

void register_attention(const Exports& exports) {
  bind(exports, "attention", attention);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
