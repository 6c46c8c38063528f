// Causal attention within segments, backward [arXiv 2205.14135, app. B.2]. Weights are computed again from logSumExp.
//
// A task is one head of one segment. Its loops keep a block of keys and go over the blocks of queries that see it, on
// transposed tiles [keys, queries]: Pᵀ and dSᵀ are then the left sides of dV += Pᵀ·dO and dK += dSᵀ·Q as they
// come, and dSᵀ is written once more in the packed layout for dQᵀ += Kᵀ·dSᵀ. A tile is worked on in steps of 32 keys,
// whose intermediate results fit the L1 cache.
#include "attention.h"
#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Rows of keys or queries of one tile, and keys that take a step together.
constexpr int64_t kTile = 128, kStep = 32;

/// Elements between panels of packed dSᵀ.
constexpr int64_t kPanel = kTile * 16;

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

/// Memory of one unit of S rows. A block is kTile rows; d, v and rows are filled up with zeros to multiples of 32.
template <class T>
struct UnitMemory {
  /// Queries and dO, packed for ·Qᵀ and ·dOᵀ in panels of 16 rows.
  T *q_rows, *do_rows;
  /// Queries and dO, packed per block for dSᵀ·Q and Pᵀ·dO.
  T *q_blocks, *do_blocks;
  /// K [S, d] and V [S, v], and per block Kᵀ [d, kTile].
  T *k, *v, *kt;
  /// [blocks, d, kTile]: dQᵀ.
  float* dq;
  /// [S]: logSumExp·log2(e) and rowsum(dO·o)·scale.
  float *lse, *delta;
  /// Of the current block of keys: dK [kTile, d], dV [kTile, v].
  float *dk, *dv;
  /// Of the current step [kStep keys, kTile queries]: scores and dPᵀ; Pᵀ and dSᵀ.
  float *scores, *dp;
  T *p, *ds;
  /// Of the current tile: dSᵀ packed for Kᵀ·dSᵀ.
  T* ds_packed;

  template <class Take>
  void lay_out(const AttentionDims& d, int64_t length, const Take& take) {
    const int64_t blocks = round_up(length, kTile) / kTile;
    const int64_t depth = round_up(d.depth(), kBlock), width = round_up(d.v, kBlock);
    take(q_rows, block_elements<T>(length, d.depth()));
    take(do_rows, block_elements<T>(length, d.v));
    take(q_blocks, blocks * block_elements<T>(d.depth(), kTile));
    take(do_blocks, blocks * block_elements<T>(d.v, kTile));
    take(k, blocks * kTile * depth);
    take(v, blocks * kTile * width);
    take(kt, blocks * kTile * depth);
    take(dq, blocks * kTile * depth);
    take(lse, blocks * kTile);
    take(delta, blocks * kTile);
    take(dk, kTile * depth);
    take(dv, kTile * width);
    take(scores, kStep * kTile);
    take(dp, kStep * kTile);
    take(p, kStep * kTile);
    take(ds, kStep * kTile);
    take(ds_packed, kTile / 16 * kPanel);
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

/// Two rows of 16 values as T: a at p and b at p + stride; where there is a panel, also to its pair of rows.
FATHOM_INLINE void store_rows(float* p, int64_t stride, float* panel, f32x16 a, f32x16 b) {
  store(p, a);
  store(p + stride, b);
  if (!panel) return;
  store(panel, a);
  store(panel + 16, b);
}
FATHOM_INLINE void store_rows(bf16* p, int64_t stride, bf16* panel, f32x16 a, f32x16 b) {
#if defined(__AVX512BF16__)
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b.p[0], (__m512)a.p[0]);
  _mm256_storeu_si256((__m256i*)p, _mm512_castsi512_si256(both));
  _mm256_storeu_si256((__m256i*)(p + stride), _mm512_extracti64x4_epi64(both, 1));
  if (!panel) return;
  alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  _mm512_storeu_si512(panel, _mm512_permutexvar_epi16(_mm512_load_si512(order), both));
#else
  store(p, a);
  store(p + stride, b);
  if (panel) store(reinterpret_cast<int32_t*>(panel), bf16_pairs(a, b));
#endif
}

template <class T>
class BackwardUnit {
 public:
  BackwardUnit(const BackwardCall<T>& backward, const AttentionUnit& its, int64_t head_in_wave)
      : call(backward), d(backward.dims), unit(its), wave_head(head_in_wave), length(its.length()),
        depth(round_up(d.depth(), kBlock)), width(round_up(d.v, kBlock)), m(d, length) {}

  void run() {
    prepare_queries();
    prepare_keys();
    for (int64_t key = 0; key < length; key += kTile) {
      for (int64_t query = key; query < length; query += kTile) tile(key, query);
      write_keys(key, std::min(kTile, length - key));
    }
    write_queries();
  }

 private:
  /// Keys `key` + `sub` .. + kStep against those queries of the block from `query` that see any of them.
  struct Step {
    int64_t key, sub, query;
    /// First query, and queries from there: existing, and filled up to a multiple of 32.
    int64_t from, queries, columns;

    bool diagonal() const { return from == key + sub; }
    bool first_query() const { return query == key; }
  };

  const T* q_at(int64_t row) const { return call.q + (unit.begin + row) * d.q_stride() + unit.head * d.depth(); }
  const T* do_at(int64_t row) const { return call.d_o + (unit.begin + row) * d.o_stride() + unit.head * d.v; }
  const T* kv_at(int64_t row) const { return call.kv + (unit.begin + row) * d.kv_stride() + unit.head * d.kv_head(); }
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

  void prepare_keys() {
    const int64_t rows = round_up(length, kBlock);
    gather_keys(m.k, depth, rows, d, kv_at(0), call.k_rope + unit.begin * d.rope, length);
    copy_padded(m.v, width, rows, kv_at(0) + d.nope, d.kv_stride(), d.v, length);
    for (int64_t row = 0; row < rows; row += kTile) {
      transpose_blocks(m.kt + row * depth, kTile, m.k + row * depth, depth, std::min(kTile, rows - row), depth);
    }
  }

  /// One tile of keys and queries: dK and dV of its keys, step by step, then dQᵀ += Kᵀ·dSᵀ, where on the diagonal
  /// queries have no part in keys that come after them.
  void tile(int64_t key, int64_t query) {
    const int64_t keys = std::min(kTile, length - key), end = std::min(query + kTile, length);
    for (int64_t sub = 0; sub < keys; sub += kStep) {
      const int64_t from = std::max(query, key + sub);
      const Step step{key, sub, query, from, end - from, round_up(end - from, kBlock)};
      scores(step);
      weigh(step);
      gradients(step);
    }
    const auto seen = [&](int64_t, int64_t n) {
      return Range{0, std::min(round_up(keys, kStep), key == query ? n + kBlock : kTile)};
    };
    multiply(depth, round_up(end - query, kBlock), m.kt + key * depth, kTile, m.ds_packed, kPanel, m.dq + query * depth, kTile,
             key > 0, seen, NoSideWork{});
  }

  /// scores = K·Qᵀ and dPᵀ = V·dOᵀ.
  void scores(const Step& s) {
    const int64_t row = s.key + s.sub, q_panel = panel_elements<T>(d.depth()), do_panel = panel_elements<T>(d.v);
    multiply(kStep, s.columns, d.depth(), m.k + row * depth, depth, m.q_rows + s.from / 16 * q_panel, q_panel, m.scores, kTile, false);
    multiply(kStep, s.columns, d.v, m.v + row * width, width, m.do_rows + s.from / 16 * do_panel, do_panel, m.dp, kTile, false);
  }

  /// dV += Pᵀ·dO and dK += dSᵀ·Q.
  void gradients(const Step& s) {
    const int64_t panel = panel_elements<T>(std::min(kTile, length - s.query)), skipped = (s.from - s.query) * 16;
    multiply(kStep, width, s.queries, m.p, kTile, do_block(s.query) + skipped, panel, m.dv + s.sub * width, width, !s.first_query());
    multiply(kStep, depth, s.queries, m.ds, kTile, q_block(s.query) + skipped, panel, m.dk + s.sub * depth, depth, !s.first_query());
  }

  /// Pᵀ = 2^(c·scores − lse) and dSᵀ = Pᵀ·(dPᵀ − delta)·scale.
  void weigh(const Step& s) {
    for (int64_t k = 0; k < kStep; k += 2) {
      const int64_t existing = length - s.key - s.sub - k;
      const int64_t masked = existing < 2 ? s.columns : s.diagonal() ? kBlock : 0;
      for (int64_t j = 0; j < masked; j += 16) weigh_pair<true>(s, k, j, existing);
      for (int64_t j = masked; j < s.columns; j += 16) weigh_pair<false>(s, k, j, 2);
    }
  }

  /// Keys k and k + 1 and sixteen queries from j. `masked`: only `existing` of the two keys exist, and on the diagonal a
  /// key is seen by the queries from its own on.
  template <bool masked>
  FATHOM_INLINE void weigh_pair(const Step& s, int64_t k, int64_t j, int64_t existing) {
    static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const f32x16 c = broadcast(d.scale * kLog2E), scale = broadcast(d.scale);
    const float *score = m.scores + k * kTile + j, *dp = m.dp + k * kTile + j;
    const f32x16 lse = -load(m.lse + s.from + j), delta = -load(m.delta + s.from + j);
    f32x16 p0 = exp2<T>(fma(load(score), c, lse)), p1 = exp2<T>(fma(load(score + kTile), c, lse));
    if constexpr (masked) {
      const i32x16 lane = load(lanes) + static_cast<int32_t>(j);
      const auto seen_from = [&](int64_t i) { return existing > i ? static_cast<int32_t>(s.diagonal() ? k + i : 0) : kNever; };
      p0 = select(lane >= broadcast_int(seen_from(0)), p0, zero());
      p1 = select(lane >= broadcast_int(seen_from(1)), p1, zero());
    }
    const f32x16 ds0 = p0 * fma(load(dp), scale, delta), ds1 = p1 * fma(load(dp + kTile), scale, delta);
    T* panel = m.ds_packed + (s.from - s.query + j) / 16 * kPanel + (s.sub + k) * 16;
    store_rows(m.p + k * kTile + j, kTile, static_cast<T*>(nullptr), p0, p1);
    store_rows(m.ds + k * kTile + j, kTile, panel, ds0, ds1);
  }
  static constexpr int32_t kNever = INT32_MAX;

  /// Writes the finished gradients of a block of keys.
  void write_keys(int64_t key, int64_t keys) {
    const auto same = [](f32x16 x) { return x; };
    for (int64_t i = 0; i < keys; ++i) {
      T* out = call.dkv + (unit.begin + key + i) * d.kv_stride() + unit.head * d.kv_head();
      write_row(out, m.dk + i * depth, d.nope, same);
      write_row(out + d.nope, m.dv + i * width, d.v, same);
      copy_row(call.dk_rope + (wave_head * d.tokens + unit.begin + key + i) * d.rope, m.dk + i * depth + d.nope, d.rope);
    }
  }

  void write_queries() {
    for (int64_t row = 0; row < length; row += kTile) {
      T* to = call.dq + (unit.begin + row) * d.q_stride() + unit.head * d.depth();
      transpose_matrix(to, d.q_stride(), m.dq + row * depth, kTile, d.depth(), std::min(kTile, length - row));
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
