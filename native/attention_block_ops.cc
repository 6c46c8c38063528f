// MLA of one decoder layer on a few tokens, absorbed, in one call: x += W^O attention(RMSNorm(x)), the cache written on the
// way [V2 §2.1.2]. src/infer/compose.ts composes the same of single ops, to the same bits.
//
// Legend: M tokens, D hidden size, H heads; d_c' query latent, d_c latent, d_h / d_h^R / d_v non-rotary, rotary and value head
// sizes.
#include "block_tasks.h"
#include "kernels.h"
#include "latent_attention.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr const char* kOp = "attentionBlock";
/// The latent norms have this epsilon in the published code, whatever rms_norm_eps says.
constexpr float kLatentEps = 1e-6f;

struct AttentionBlock {
  // Weights.
  const float *input_norm, *query_norm, *latent_norm;
  const StoredWeight *down, *query_up, *key_up, *value_up, *output;
  const float* rope_table;
  // Sizes.
  int64_t M, D, heads, nope, rope, v, latent;
  float eps;
  bool interleaved;
  // Rows.
  float* x;
  const int32_t *positions, *slots;
  LatentPages pages;
  LatentRows rows;
  // Intermediate results: [M, …] of the down projection, queries, queries on latents, sums over latents, o.
  float *d, *q, *q_latent, *o_latent, *o;

  int64_t query_width() const { return nope + rope; }
  int64_t depth() const { return latent + rope; }
  /// c^KV and k^R follow the query's part in `d`.
  int64_t latent_column() const { return down->n - depth(); }
  const float* queries() const { return query_up ? q : d; }
  int64_t query_pitch() const { return query_up ? heads * query_width() : down->n; }

  void allocate() {
    BlockMemory memory;
    for (int pass = 0; pass < 2; ++pass) {
      d = memory.take<float>(M * down->n);
      q = memory.take<float>(query_up ? M * heads * query_width() : 0);
      q_latent = memory.take<float>(M * heads * depth());
      o_latent = memory.take<float>(M * heads * latent);
      o = memory.take<float>(M * heads * v);
      if (pass == 0) memory.use(scratch_bytes(kBlockSlot, memory.used()));
    }
  }

  void run() {
    allocate();
    project_down();
    make_queries();
    const LatentCall<float> call{pages, rows, heads, scale, q_latent, o_latent};
    const LatentJob<float> job(call);
    parallel_for(job.count(), [&](int64_t i) { job.run(i); });
    apply_values(job);
    project_output();
  }

  /// d = [W^DQ; W^DKV; W^KR] RMSNorm(x).
  void project_down() const {
    const OncePerThread once;
    const RowCut cut(down->n, weight_row_bytes(*down));
    parallel_for(cut.tasks, [&](int64_t i) {
      const Tokens& u = once.get([&] { return normed_tokens(*down, x, D, M, input_norm, D, eps); });
      project_rows(*down, 0, cut.begin(i), cut.end(i), u, d, down->n, false);
    });
  }

  /// Per head q and its product with W^UK; per token the cache.
  void make_queries() const {
    const OncePerThread once;
    parallel_for(heads + M, [&](int64_t i) {
      if (i >= heads) return write_cache(i - heads);
      if (query_up) {
        const Tokens& c = once.get([&] { return normed_tokens(*query_up, d, down->n, M, query_norm, query_up->k, kLatentEps); });
        project_rows(*query_up, 0, i * query_width(), (i + 1) * query_width(), c, q, query_pitch(), false);
      }
      absorb_head(i);
    });
  }

  void absorb_head(int64_t head) const {
    const float* own = queries() + head * query_width();
    void* memory = scratch_bytes(kOwnHeadSlot, tokens_bytes(*key_up, M));
    const Tokens tokens = prepare_tokens(*key_up, own, query_pitch(), nullptr, M, memory);
    float* to = q_latent + head * depth();
    project_rows(*key_up, head, 0, latent, tokens, to, heads * depth(), false);
    for (int64_t m = 0; m < M; ++m) {
      float* turned = to + m * heads * depth() + latent;
      std::copy(own + m * query_pitch() + nope, own + m * query_pitch() + query_width(), turned);
      turn(turned, m);
    }
  }

  void write_cache(int64_t m) const {
    float* row = scratch<float>(kOwnHeadSlot, depth());
    const float* from = d + m * down->n + latent_column();
    rms_norm_row(from, latent_norm, latent, kLatentEps, row);
    std::copy(from + latent, from + depth(), row + latent);
    turn(row + latent, m);
    write_slot(pages, slots[m], row, row + latent);
  }

  /// The rotation of token m.
  void turn(float* slice, int64_t m) const {
    if (rope == 0) return;
    float* buffer = scratch<float>(kOwnAnglesSlot, 2 * rope);
    const Angles angle{buffer, buffer + rope};
    prepare_angles(rope_table + positions[m] * rope, rope, interleaved, 1.0f, angle);
    rotate(slice, rope, interleaved, angle);
  }

  /// o of each head: W^UV times the sums over latents, whose parts are put together on the way.
  void apply_values(const LatentJob<float>& job) const {
    parallel_for(heads, [&](int64_t head) {
      for (int64_t s = 0; s < rows.sequences; ++s) {
        for (int64_t i = 0; i < rows.bounds[s + 1] - rows.bounds[s]; ++i) job.merge_one(s, i * heads + head);
      }
      void* memory = scratch_bytes(kOwnHeadSlot, tokens_bytes(*value_up, M));
      const Tokens tokens = prepare_tokens(*value_up, o_latent + head * latent, heads * latent, nullptr, M, memory);
      project_rows(*value_up, head, 0, v, tokens, o + head * v, heads * v, false);
    });
  }

  /// x += W^O o.
  void project_output() const {
    const OncePerThread once;
    const RowCut cut(D, weight_row_bytes(*output));
    parallel_for(cut.tasks, [&](int64_t i) {
      const Tokens& tokens = once.get([&] {
        return prepare_tokens(*output, o, heads * v, nullptr, M, scratch_bytes(kOwnTokensSlot, tokens_bytes(*output, M)));
      });
      project_rows(*output, 0, cut.begin(i), cut.end(i), tokens, x, D, true);
    });
  }

  float scale;
  static constexpr int kOwnHeadSlot = 13, kOwnAnglesSlot = 14;
};

void check_weight(const StoredWeight& w, const char* name, int64_t groups, int64_t n, int64_t k) {
  if (w.groups == groups && w.n == n && w.k == k) return;
  fail(kOp, std::string(name) + " is " + std::to_string(w.groups) + " x [" + std::to_string(w.n) + ", " + std::to_string(w.k) +
                "], expected " + std::to_string(groups) + " x [" + std::to_string(n) + ", " + std::to_string(k) + "]");
}

/// x f32 [M, D] (in place); norms f32; `sizes`: heads, nope, rope, v, latent.
void attention_block(const Span& x, const Span& positions, const Span& slots, const Span& data, int format, const Span& bounds,
                     const Span& lengths, const Span& table, const Span& page_bounds, const Span& input_norm,
                     const StoredWeight* down, const Span& query_norm, OptionalWeight query_weight, const Span& latent_norm,
                     const StoredWeight* key_up, const StoredWeight* value_up, const StoredWeight* output,
                     const Span& rope_table, const std::vector<int64_t>& sizes, float eps, float scale, bool interleaved) {
  const StoredWeight* query_up = query_weight.weight;
  if (sizes.size() != 5) fail(kOp, "needs five sizes");
  AttentionBlock b{};
  b.heads = sizes[0];
  b.nope = sizes[1];
  b.rope = sizes[2];
  b.v = sizes[3];
  b.latent = sizes[4];
  b.eps = eps;
  b.scale = scale;
  b.interleaved = interleaved;
  b.M = static_cast<int64_t>(positions.length);
  b.D = down->k;
  b.down = down;
  b.query_up = query_up;
  b.key_up = key_up;
  b.value_up = value_up;
  b.output = output;
  if (b.heads < 1 || b.nope < 1 || b.rope < 0 || b.v < 1 || b.latent < 1) fail(kOp, "sizes must be positive");
  const int64_t query = query_up ? query_up->k : b.heads * b.query_width();
  check_weight(*down, "down", 1, query + b.depth(), b.D);
  if (query_up) check_weight(*query_up, "queryUp", 1, b.heads * b.query_width(), query_up->k);
  check_weight(*key_up, "keyUp", b.heads, b.latent, b.nope);
  check_weight(*value_up, "valueUp", b.heads, b.v, b.latent);
  check_weight(*output, "output", 1, b.D, b.heads * b.v);
  b.x = x.as<float>(kOp, "x", b.M * b.D);
  b.positions = positions.as<int32_t>(kOp, "positions", b.M);
  b.slots = slots.as<int32_t>(kOp, "slots", b.M);
  b.input_norm = input_norm.as<float>(kOp, "inputNorm", b.D);
  b.query_norm = query_up ? query_norm.as<float>(kOp, "queryNorm", query_up->k) : nullptr;
  b.latent_norm = latent_norm.as<float>(kOp, "latentNorm", b.latent);
  b.rope_table = rope_table.as<float>(kOp, "ropeTable", 0);
  b.pages = latent_pages(data, format, b.latent, b.rope, kOp);
  b.rows = latent_rows(bounds, lengths, table, page_bounds, b.pages.count, kOp);
  check_indices(b.slots, b.M, 0, b.pages.count * kPageTokens, kOp, "slots");
  if (b.rope > 0) check_indices(b.positions, b.M, 0, rows_of(rope_table, b.rope, kOp, "ropeTable"), kOp, "positions");
  if (b.rows.bounds[b.rows.sequences] != b.M) fail(kOp, "bounds and positions differ in their number of rows");
  b.run();
}

}  // namespace

void register_attention_block(const Exports& exports) { bind(exports, "attentionBlock", attention_block); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
