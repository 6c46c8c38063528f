// Causal attention within segments, backward [arXiv 2205.14135, app. B.2]. Weights are computed again from logSumExp.
//
// A task is one head of one segment. Its loops keep a block of keys and go over the blocks of queries that see it, on
// transposed tiles [keys, queries]: Pᵀ and dSᵀ are then the left sides of dV += Pᵀ·dO and dK += dSᵀ·Q as they
// come, and dSᵀ is written once more in the packed layout for dQᵀ += Kᵀ·dSᵀ.
#include "attention.h"
#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Keys and queries of one tile.
constexpr int64_t kTile = 128;

/// Heads whose gradients of the shared rotary key exist at one time.
constexpr int64_t kHeadsPerWave = 16;

template <class T>
struct BackwardCall {
  AttentionDims dims;
  const T *d_o, *q, *kv, *k_rope, *o;
  const float* log_sum_exp;
  T *dq, *dkv;
  /// f32 [heads of a wave, T, rope].
  float* dk_rope;
};

/// Memory of one unit of S rows; a block is kTile rows; d and v filled up to multiples of 32.
template <class T>
struct UnitMemory {
  /// Queries and dO, packed for ·Qᵀ and ·dOᵀ in panels of 16 rows.
  T *q_rows, *do_rows;
  /// Queries and dO, packed per block for dSᵀ·Q and Pᵀ·dO.
  T *q_blocks, *do_blocks;
  /// [blocks, d, kTile]: dQᵀ.
  float* dq;
  /// [S16]: logSumExp·log2(e) and rowsum(dO·o)·scale.
  float *lse, *delta;
  /// Of the current block of keys: K [kTile, d], V [kTile, v], Kᵀ [d, kTile]; their gradients.
  T *k, *v, *kt;
  float *dk, *dv;
  /// Of the current tile [keys, queries]: scores and dPᵀ; Pᵀ, dSᵀ, and dSᵀ packed.
  float *scores, *dp;
  T *p, *ds, *ds_packed;

  template <class Take>
  void lay_out(const AttentionDims& d, int64_t length, const Take& take) {
    const int64_t blocks = round_up(length, kTile) / kTile;
    const int64_t depth = round_up(d.depth(), kBlock), width = round_up(d.v, kBlock);
    take(q_rows, block_elements<T>(length, d.depth()));
    take(do_rows, block_elements<T>(length, d.v));
    take(q_blocks, blocks * block_elements<T>(d.depth(), kTile));
    take(do_blocks, blocks * block_elements<T>(d.v, kTile));
    take(dq, blocks * depth * kTile);
    take(lse, blocks * kTile);
    take(delta, blocks * kTile);
    take(k, kTile * depth);
    take(v, kTile * width);
    take(kt, kTile * depth);
    take(dk, kTile * depth);
    take(dv, kTile * width);
    take(scores, kTile * kTile);
    take(dp, kTile * kTile);
    take(p, kTile * kTile);
    take(ds, kTile * kTile);
    take(ds_packed, packed_elements<T>(kTile, kTile));
  }

  UnitMemory(const AttentionDims& d, int64_t length) {
    size_t bytes = 0;
    lay_out(d, length, [&](auto*& array, int64_t count) {
      bytes += Workspace::bytes_of<std::decay_t<decltype(*array)>>(count);
    });
    Workspace memory(9, bytes);
    lay_out(d, length, [&](auto*& array, int64_t count) { array = memory.take<std::decay_t<decltype(*array)>>(count); });
  }
};

/// Σ a·b of one row.
template <class T>
float dot_row(const T* a, const T* b, int64_t count) {
  f32x16 sum = zero();
  each16(count, [&](int64_t i, auto n) { sum = fma(load(a + i, n), load(b + i, n), sum); });
  return hsum(sum);
}

template <class T>
class BackwardUnit {
 public:
  BackwardUnit(const BackwardCall<T>& backward, const AttentionUnit& its, int64_t head_in_wave)
      : call(backward), d(backward.dims), unit(its), wave_head(head_in_wave), length(its.length()),
        depth(round_up(d.depth(), kBlock)), width(round_up(d.v, kBlock)), m(d, length) {}

  void run() {
    prepare_queries();
    for (int64_t key = 0; key < length; key += kTile) key_block(key, std::min(kTile, length - key));
    for (int64_t row = 0; row < length; row += kTile) {
      T* to = call.dq + (unit.begin + row) * d.q_stride() + unit.head * d.depth();
      transpose_matrix(to, d.q_stride(), dq_block(row), kTile, d.depth(), std::min(kTile, length - row));
    }
  }

 private:
  const T* q_at(int64_t row) const { return call.q + (unit.begin + row) * d.q_stride() + unit.head * d.depth(); }
  const T* do_at(int64_t row) const { return call.d_o + (unit.begin + row) * d.o_stride() + unit.head * d.v; }
  const T* kv_at(int64_t row) const { return call.kv + (unit.begin + row) * d.kv_stride() + unit.head * d.kv_head(); }
  float* dq_block(int64_t row) const { return m.dq + row * depth; }
  T* q_block(int64_t row) const { return m.q_blocks + row / kTile * block_elements<T>(d.depth(), kTile); }
  T* do_block(int64_t row) const { return m.do_blocks + row / kTile * block_elements<T>(d.v, kTile); }

  /// Packs queries and dO, and fills lse and delta. Rows that only fill up get a weight of 0.
  void prepare_queries() {
    pack_blocks_nk(m.q_rows, q_at(0), length, d.depth(), d.q_stride());
    pack_blocks_nk(m.do_rows, do_at(0), length, d.v, d.o_stride());
    for (int64_t row = 0; row < length; row += kTile) {
      const int64_t count = std::min(kTile, length - row);
      pack_blocks_kn(q_block(row), q_at(row), count, d.depth(), d.q_stride());
      pack_blocks_kn(do_block(row), do_at(row), count, d.v, d.o_stride());
    }
    const float* lse = call.log_sum_exp + unit.head * d.tokens + unit.begin;
    for (int64_t i = 0; i < length; ++i) {
      m.lse[i] = lse[i] * kLog2E;
      m.delta[i] = d.scale * dot_row(do_at(i), call.o + (unit.begin + i) * d.o_stride() + unit.head * d.v, d.v);
    }
    const int64_t end = round_up(length, kBlock);
    std::fill(m.lse + length, m.lse + end, -kMasked);
    std::fill(m.delta + length, m.delta + end, 0.0f);
  }

  /// Keys `key` .. `key` + `keys`: all their gradients, and their part of every dQ.
  void key_block(int64_t key, int64_t keys) {
    const int64_t rows = round_up(keys, kBlock);
    gather_keys(m.k, depth, rows, d, kv_at(key), call.k_rope + (unit.begin + key) * d.rope, keys);
    copy_padded(m.v, width, rows, kv_at(key) + d.nope, d.kv_stride(), d.v, keys);
    transpose_matrix(m.kt, kTile, m.k, depth, rows, depth);
    for (int64_t query = key; query < length; query += kTile) tile(key, keys, query, std::min(kTile, length - query));
    write_keys(key, keys);
  }

  /// One tile of keys and queries.
  void tile(int64_t key, int64_t keys, int64_t query, int64_t queries) {
    const int64_t rows = round_up(keys, kBlock), columns = round_up(queries, kBlock);
    const int64_t q_panel = panel_elements<T>(d.depth()), do_panel = panel_elements<T>(d.v);
    multiply(rows, columns, d.depth(), m.k, depth, m.q_rows + query / 16 * q_panel, q_panel, m.scores, kTile, false);
    multiply(rows, columns, d.v, m.v, width, m.do_rows + query / 16 * do_panel, do_panel, m.dp, kTile, false);
    if (key == query) weigh<true>(keys, query, columns);
    else weigh<false>(keys, query, columns);
    const bool add = query > key;
    const int64_t by_query = panel_elements<T>(queries), by_key = panel_elements<T>(keys);
    multiply(rows, width, queries, m.p, kTile, do_block(query), by_query, m.dv, width, add);
    multiply(rows, depth, queries, m.ds, kTile, q_block(query), by_query, m.dk, depth, add);
    multiply(depth, columns, keys, m.kt, kTile, m.ds_packed, by_key, dq_block(query), kTile, key > 0);
  }

  /// Pᵀ = 2^(c·scores − lse) and dSᵀ = Pᵀ·(dPᵀ − delta)·scale, two keys at a time. On the diagonal a key is seen by the
  /// queries from its own index on.
  template <bool diagonal>
  void weigh(int64_t keys, int64_t query, int64_t queries) {
    static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const f32x16 c = broadcast(d.scale * kLog2E), scale = broadcast(d.scale);
    const int64_t panel = panel_elements<T>(keys);
    for (int64_t k = 0; k < keys; k += 2) {
      const int64_t next = std::min(k + 1, keys - 1);
      for (int64_t j = 0; j < queries; j += 16) {
        const f32x16 lse = -load(m.lse + query + j), delta = -load(m.delta + query + j);
        f32x16 p0 = exp2<T>(fma(load(m.scores + k * kTile + j), c, lse));
        f32x16 p1 = exp2<T>(fma(load(m.scores + next * kTile + j), c, lse));
        if constexpr (diagonal) {
          const i32x16 lane = load(lanes) + static_cast<int32_t>(j - k);
          p0 = select(lane >= broadcast_int(0), p0, zero());
          p1 = select(lane >= broadcast_int(1), p1, zero());
        }
        if (next == k) p1 = zero();
        const f32x16 ds0 = p0 * fma(load(m.dp + k * kTile + j), scale, delta);
        const f32x16 ds1 = p1 * fma(load(m.dp + next * kTile + j), scale, delta);
        store_rows(m.p + k * kTile + j, p0, p1);
        store_rows(m.ds + k * kTile + j, ds0, ds1);
        store_packed(m.ds_packed + j / 16 * panel, k, ds0, ds1, next > k);
      }
    }
    const int64_t even = round_up(keys, 2), used = std::min(panel, even * 16);
    clear_rows(m.p, kTile, even, round_up(keys, kBlock));
    clear_rows(m.ds, kTile, even, round_up(keys, kBlock));
    for (int64_t j = 0; j < queries; j += 16) clear_rows(m.ds_packed + j / 16 * panel, 1, used, panel);
  }

  /// a at p, b one row further.
  static FATHOM_INLINE void store_rows(T* p, f32x16 a, f32x16 b) {
    store(p, a);
    store(p + kTile, b);
  }

  /// Keys k and k + 1 of one panel of packed dSᵀ.
  static FATHOM_INLINE void store_packed(float* panel, int64_t k, f32x16 a, f32x16 b, bool both) {
    store(panel + k * 16, a);
    if (both) store(panel + (k + 1) * 16, b);
  }
  static FATHOM_INLINE void store_packed(bf16* panel, int64_t k, f32x16 a, f32x16 b, bool) {
    const i32x16 pair = bf16_bits(a) | shift_left(bf16_bits(b), 16);
    store(reinterpret_cast<int32_t*>(panel + k * 16), pair);
  }

  /// Writes the finished gradients of a block of keys.
  void write_keys(int64_t key, int64_t keys) {
    for (int64_t i = 0; i < keys; ++i) {
      T* out = call.dkv + (unit.begin + key + i) * d.kv_stride() + unit.head * d.kv_head();
      each16(d.nope, [&](int64_t j, auto n) { store(out + j, load(m.dk + i * depth + j, n), n); });
      each16(d.v, [&](int64_t j, auto n) { store(out + d.nope + j, load(m.dv + i * width + j, n), n); });
      float* rope = call.dk_rope + (wave_head * d.tokens + unit.begin + key + i) * d.rope;
      std::memcpy(rope, m.dk + i * depth + d.nope, static_cast<size_t>(d.rope) * sizeof(float));
    }
  }

  const BackwardCall<T>& call;
  const AttentionDims& d;
  const AttentionUnit unit;
  const int64_t wave_head, length, depth, width;
  UnitMemory<T> m;
};

/// total [T·rope] += Σ over the heads of a wave, in order, of the rows that segments cover.
void add_heads(const float* partial, int64_t heads, int64_t count, int64_t begin, int64_t end, float* total) {
  parallel_ranges(end - begin, kTaskElements, [=](int64_t from, int64_t to) {
    each16(to - from, [=](int64_t i, auto n) {
      const int64_t at = begin + from + i;
      f32x16 sum = load(total + at, n);
      for (int64_t h = 0; h < heads; ++h) sum += load(partial + h * count + at, n);
      store(total + at, sum, n);
    });
  });
}

template <class T>
void backward(BackwardCall<T> call, const int32_t* segments, int64_t bounds, T* dk_rope) {
  const AttentionDims& d = call.dims;
  const int64_t count = d.tokens * d.rope, heads = std::min(kHeadsPerWave, d.heads);
  clear_outside(call.dq, d.q_stride(), segments, bounds, d.tokens);
  clear_outside(call.dkv, d.kv_stride(), segments, bounds, d.tokens);
  float* total = scratch<float>(10, count);
  std::fill(total, total + count, 0.0f);
  call.dk_rope = scratch<float>(8, heads * count);
  for (int64_t first = 0; first < d.heads; first += heads) {
    const int64_t last = std::min(first + heads, d.heads);
    const std::vector<AttentionUnit> units = attention_units(segments, bounds, first, last);
    parallel_for(static_cast<int64_t>(units.size()), [&](int64_t i) {
      BackwardUnit<T>(call, units[i], units[i].head - first).run();
    });
    add_heads(call.dk_rope, last - first, count, segments[0] * d.rope, segments[bounds - 1] * d.rope, total);
  }
  each16(count, [&](int64_t i, auto n) { store(dk_rope + i, load(total + i, n), n); });
}

/// dO, o [T, H·v], q [T, H·d], kv [T, H·(nope+v)], kRope [T, rope], logSumExp f32 [H, T] -> dq, dkv, dkRope, shaped
/// as q, kv, kRope.
void attention_backward(const Span& d_o, const Span& q, const Span& kv, const Span& k_rope, const Span& o,
                        const Span& log_sum_exp, const Span& segments, int64_t heads, int64_t nope, int64_t rope, int64_t v,
                        float scale, const Span& dq, const Span& dkv, const Span& dk_rope) {
  const char* op = "attentionBackward";
  if (heads < 1 || nope < 0 || rope < 0) fail(op, "sizes must be positive");
  const AttentionDims d{rows_of(d_o, heads * v, op, "dO"), heads, nope, rope, v, scale};
  const auto bounds = static_cast<int64_t>(segments.length);
  const int32_t* segment = segments.as<int32_t>(op, "segments", 1);
  check_bounds(segment, bounds, d.tokens, op, "segments");
  const int64_t q_size = d.tokens * d.q_stride(), kv_size = d.tokens * d.kv_stride(), o_size = d.tokens * d.o_stride();
  with_float_type(d_o, op, "dO", o_size, [&](auto* upstream) {
    using T = std::decay_t<decltype(*upstream)>;
    const BackwardCall<T> call{d, upstream, q.as<T>(op, "q", q_size), kv.as<T>(op, "kv", kv_size),
                               k_rope.as<T>(op, "kRope", d.tokens * rope), o.as<T>(op, "o", o_size),
                               log_sum_exp.as<float>(op, "logSumExp", heads * d.tokens), dq.as<T>(op, "dq", q_size),
                               dkv.as<T>(op, "dkv", kv_size), nullptr};
    backward<T>(call, segment, bounds, dk_rope.as<T>(op, "dkRope", d.tokens * rope));
  });
}

}  // namespace

void register_attention_backward(const Exports& exports) { bind(exports, "attentionBackward", attention_backward); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
