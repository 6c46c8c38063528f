// Causal attention within segments, forward: tiled with an online softmax, no [T, T] matrix.
#include "attention.h"
#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Queries of one task.
constexpr int64_t kQueryBlock = 64;

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

/// Packs keys `key` .. `key` + kKeyBlock of a unit.
template <class T>
void pack_block(const ForwardCall<T>& call, const PackedUnit<T>& packed, int64_t key) {
  const AttentionDims& d = call.dims;
  const AttentionUnit& unit = packed.unit;
  const int64_t count = std::min(kKeyBlock, unit.length() - key);
  const T* kv = call.kv + (unit.begin + key) * d.kv_stride() + unit.head * d.kv_head();
  T* rows = scratch<T>(9, kKeyBlock * d.depth());
  gather_keys(rows, d.depth(), count, d, kv, call.k_rope + (unit.begin + key) * d.rope, count);
  pack_blocks_nk(packed.keys_from(d, key), rows, count, d.depth(), d.depth());
  pack_blocks_kn(packed.values_from(d, key), kv + d.nope, count, d.v, d.kv_stride());
}

/// o = sums / mass and logSumExp of a finished block of queries from `row`.
template <class T>
void write_block(const ForwardCall<T>& call, const OnlineSoftmax<T>& soft, int64_t head, int64_t row) {
  const AttentionDims& d = call.dims;
  float total[kQueryBlock] = {};
  for (int64_t i = 0; i < soft.rows; ++i) {
    total[i] = soft.total(i);
    const float inverse = 1.0f / total[i];
    T* out = call.o + (row + i) * d.o_stride() + head * d.v;
    each16(d.v, [&](int64_t j, auto n) { store(out + j, load(soft.sums + i * soft.width + j, n) * inverse, n); });
  }
  float* lse = call.log_sum_exp + head * d.tokens + row;
  each16(soft.rows, [&](int64_t i, auto n) { store(lse + i, fma(load(soft.top + i), kLn2, log(load(total + i))), n); });
}

/// Queries `first` .. `first` + kQueryBlock of a unit against all keys up to each.
template <class T>
void query_block(const ForwardCall<T>& call, const PackedUnit<T>& packed, int64_t first) {
  const AttentionDims& d = call.dims;
  const AttentionUnit& unit = packed.unit;
  const int64_t rows = std::min(kQueryBlock, unit.length() - first), depth = d.depth(), stride = round_up(depth, kBlock);
  Workspace memory(9, Workspace::bytes_of<T>(kQueryBlock * stride) + OnlineSoftmax<T>::bytes(kQueryBlock, d.v));
  OnlineSoftmax<T> soft(memory, rows, d.v, d.scale);
  T* queries = memory.take<T>(kQueryBlock * stride);
  const T* q = call.q + (unit.begin + first) * d.q_stride() + unit.head * depth;
  copy_padded(queries, stride, soft.padded_rows, q, d.q_stride(), depth, rows);
  for (int64_t key = 0; key < first + rows; key += kKeyBlock) {
    const int64_t stored = std::min(kKeyBlock, unit.length() - key);
    const int64_t keys = std::min(stored, first + rows - key), padded = round_up(keys, kBlock);
    multiply(soft.padded_rows, padded, depth, queries, stride, packed.keys_from(d, key), panel_elements<T>(depth), soft.scores,
             kKeyBlock, false);
    soft.block(keys, first - key, padded, key == 0);
    multiply(soft.padded_rows, soft.width, std::min(stored, padded), soft.weights, kKeyBlock, packed.values_from(d, key),
             panel_elements<T>(stored), soft.sums, soft.width, key > 0);
  }
  write_block(call, soft, unit.head, unit.begin + first);
}

/// A block of rows of a packed unit.
struct BlockTask {
  int64_t unit, row;
};

/// Blocks of `size` rows of every unit, the last (and for queries the longest) of a unit first.
template <class T>
std::vector<BlockTask> blocks_of(const std::vector<PackedUnit<T>>& wave, int64_t size) {
  std::vector<BlockTask> tasks;
  for (size_t u = 0; u < wave.size(); ++u) {
    for (int64_t row = (wave[u].unit.length() - 1) / size * size; row >= 0; row -= size) {
      tasks.push_back({static_cast<int64_t>(u), row});
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
  const std::vector<BlockTask> keys = blocks_of(wave, kKeyBlock), queries = blocks_of(wave, kQueryBlock);
  parallel_for(static_cast<int64_t>(keys.size()), [&](int64_t i) { pack_block(call, wave[keys[i].unit], keys[i].row); });
  parallel_for(static_cast<int64_t>(queries.size()), [&](int64_t i) { query_block(call, wave[queries[i].unit], queries[i].row); });
}

template <class T>
void attend(const ForwardCall<T>& call, const int32_t* segments, int64_t bounds) {
  clear_outside(call.o, call.dims.o_stride(), segments, bounds, call.dims.tokens);
  const int64_t limit = kWaveBytes * threads() / static_cast<int64_t>(sizeof(T));
  std::vector<PackedUnit<T>> wave;
  int64_t elements = 0;
  for (const AttentionUnit& unit : attention_units(segments, bounds, 0, call.dims.heads)) {
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

/// q [T, H·d], kv [T, H·(nope+v)], kRope [T, rope], segments i32 [S+1] -> o [T, H·v],
/// logSumExp f32 [H, T].
void attention(const Span& q, const Span& kv, const Span& k_rope, const Span& segments, int64_t heads, int64_t nope,
               int64_t rope, int64_t v, float scale, const Span& o, const Span& log_sum_exp) {
  const char* op = "attention";
  if (heads < 1 || nope < 0 || rope < 0) fail(op, "sizes must be positive");
  const AttentionDims dims{rows_of(o, heads * v, op, "o"), heads, nope, rope, v, scale};
  const auto bounds = static_cast<int64_t>(segments.length);
  const int32_t* segment = segments.as<int32_t>(op, "segments", 1);
  check_bounds(segment, bounds, dims.tokens, op, "segments");
  with_float_type(o, op, "o", dims.tokens * dims.o_stride(), [&](auto* out) {
    using T = std::decay_t<decltype(*out)>;
    attend<T>({dims, q.as<T>(op, "q", dims.tokens * dims.q_stride()), kv.as<T>(op, "kv", dims.tokens * dims.kv_stride()),
               k_rope.as<T>(op, "kRope", dims.tokens * rope), out, log_sum_exp.as<float>(op, "logSumExp", heads * dims.tokens)},
              segment, bounds);
  });
}

}  // namespace

void register_attention(const Exports& exports) {
  bind(exports, "attention", attention);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
