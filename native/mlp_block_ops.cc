// The feed-forward part of one decoder layer on a few tokens in one call: x += FFN(RMSNorm(x)), dense or a mixture of experts
// [TR §2.1.2]. src/infer/compose.ts composes the same of single ops, to the same bits.
//
// Legend: M tokens, D hidden size, I width of an MLP, E routed experts, K experts per token, R = M·K rows after dispatch.
#include "block_tasks.h"
#include "kernels.h"
#include "router.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// One SwiGLU network: gate_up [2I, D] and down [D, I], or groups of them.
struct Mlp {
  const StoredWeight *gate_up, *down;
  int64_t inner() const { return down->k; }
};

/// The group and its first row that this thread will probably take next; no group where there is none.
struct NextRows {
  int64_t group = -1, begin = 0;
};

/// Rows [begin, end) of h = silu(gate)·up of group g for `tokens`; gu [tokens, 2I] and h [tokens, I] of these tokens. As many rows of
/// `next` are fetched.
void swiglu_rows(const Mlp& mlp, int64_t g, int64_t begin, int64_t end, const Tokens& tokens, float* gu, float* h, NextRows next = {}) {
  const int64_t I = mlp.inner();
  fetch_rows(*mlp.gate_up, g, I + begin, I + end);
  project_rows(*mlp.gate_up, g, begin, end, tokens, gu, 2 * I, false);
  if (next.group >= 0) fetch_rows(*mlp.gate_up, next.group, next.begin, std::min(I, next.begin + end - begin));
  project_rows(*mlp.gate_up, g, I + begin, I + end, tokens, gu, 2 * I, false);
  for (int64_t t = 0; t < tokens.count; ++t) {
    swiglu_row(gu + t * 2 * I + begin, gu + (t * 2 + 1) * I + begin, end - begin, h + t * I + begin);
  }
}

/// Cut of the rows of gate and up, which a task takes together.
RowCut inner_cut(const Mlp& mlp) { return {mlp.inner(), 2 * weight_row_bytes(*mlp.gate_up)}; }

void check_mlp(const char* op, const Mlp& mlp, int64_t groups, int64_t D) {
  const StoredWeight &a = *mlp.gate_up, &b = *mlp.down;
  if (a.groups == groups && b.groups == groups && a.k == D && b.n == D && a.n == 2 * b.k) return;
  fail(op, "gateUp " + std::to_string(a.groups) + " x [" + std::to_string(a.n) + ", " + std::to_string(a.k) + "] and down " +
               std::to_string(b.groups) + " x [" + std::to_string(b.n) + ", " + std::to_string(b.k) + "] are no MLPs of width " +
               std::to_string(D));
}

/// x f32 [M, D] += down(silu(gate)·up).
void mlp_block(const Span& x, const Span& norm, const StoredWeight* gate_up, const StoredWeight* down, float eps) {
  const char* op = "mlpBlock";
  const Mlp mlp{gate_up, down};
  const int64_t D = down->n, I = mlp.inner(), M = rows_of(x, D, op, "x");
  check_mlp(op, mlp, 1, D);
  float* rows = x.as<float>(op, "x", M * D);
  const float* weight = norm.as<float>(op, "norm", D);
  float* gu = scratch<float>(kBlockSlot, M * 3 * I);
  float* h = gu + M * 2 * I;
  {
    const OncePerThread once;
    const RowCut cut = inner_cut(mlp);
    parallel_for(cut.tasks, [&](int64_t i) {
      const Tokens& tokens = once.get([&] { return normed_tokens(*gate_up, rows, D, M, weight, D, eps); });
      swiglu_rows(mlp, 0, cut.begin(i), cut.end(i), tokens, gu, h);
    });
  }
  const OncePerThread once;
  const RowCut cut(D, weight_row_bytes(*down));
  parallel_for(cut.tasks, [&](int64_t i) {
    const Tokens& tokens = once.get([&] {
      return prepare_tokens(*down, h, I, nullptr, M, scratch_bytes(kOwnTokensSlot, tokens_bytes(*down, M)));
    });
    project_rows(*down, 0, cut.begin(i), cut.end(i), tokens, rows, D, true);
  });
}

/// The rows of one expert that tokens chose.
struct Chosen {
  int64_t expert, first, count;
  Tokens tokens;
};

struct MoeBlock {
  const StoredWeight* gate;
  Mlp routed, shared;  // shared: null weights where there is none
  const float *norm, *bias;
  Router router;
  int64_t M, D;
  float eps;
  float* x;
  // Intermediate results: normed x [M, D]; logits [M, E]; of the routed experts gu [R, 2I], h [R, I], out [R, D]; of the shared
  // one gu [M, 2I], h [M, I], out [M, D].
  float *u, *logits, *gu, *h, *out, *shared_gu, *shared_h, *shared_out, *weights;
  int32_t *ids, *source, *slot;
  uint8_t *tokens, *shared_tokens;
  std::vector<Chosen> chosen;

  int64_t R() const { return M * router.top_k; }
  int64_t I() const { return routed.inner(); }

  void allocate() {
    BlockMemory memory;
    const int64_t block = tokens_bytes(*routed.gate_up, kTokenBlock), down_block = tokens_bytes(*routed.down, kTokenBlock);
    for (int pass = 0; pass < 2; ++pass) {
      u = memory.take<float>(M * D);
      logits = memory.take<float>(M * router.experts);
      gu = memory.take<float>(R() * 2 * I());
      h = memory.take<float>(R() * I());
      out = memory.take<float>(R() * D);
      shared_gu = memory.take<float>(shared.down ? M * 2 * shared.inner() : 0);
      shared_h = memory.take<float>(shared.down ? M * shared.inner() : 0);
      shared_out = memory.take<float>(shared.down ? M * D : 0);
      weights = memory.take<float>(R());
      ids = memory.take<int32_t>(R());
      source = memory.take<int32_t>(R());
      slot = memory.take<int32_t>(R());
      // Blocks of an expert's tokens begin at multiples of 64 bytes: at most one partial block for each.
      tokens = memory.take<uint8_t>((R() / kTokenBlock + std::min(R(), router.experts)) * std::max(block, down_block) + R() * 64);
      shared_tokens = memory.take<uint8_t>(shared.down ? tokens_bytes(*shared.down, M) : 0);
      if (pass == 0) memory.use(scratch_bytes(kBlockSlot, memory.used()));
    }
  }

  void run() {
    allocate();
    score();
    choose();
    prepare(*routed.gate_up, u, D, true);
    expand();
    prepare(*routed.down, h, I(), false);
    if (shared.down) prepare_tokens(*shared.down, shared_h, shared.inner(), nullptr, M, shared_tokens);
    contract();
  }

  /// Logits of the router; and h of the shared expert, which needs no choice.
  void score() const {
    for (int64_t m = 0; m < M; ++m) rms_norm_row(x + m * D, norm, D, eps, u + m * D);
    const OncePerThread gate_once, shared_once;
    const RowCut gates(router.experts, weight_row_bytes(*gate));
    const int64_t more = shared.down ? inner_cut(shared).tasks : 0;
    parallel_for(gates.tasks + more, [&](int64_t i) {
      if (i >= more) {
        const Tokens& own = gate_once.get([&] {
          return prepare_tokens(*gate, u, D, nullptr, M, scratch_bytes(kOwnTokensSlot, tokens_bytes(*gate, M)));
        });
        return project_rows(*gate, 0, gates.begin(i - more), gates.end(i - more), own, logits, router.experts, false);
      }
      const Tokens& own = shared_once.get([&] {
        return prepare_tokens(*shared.gate_up, u, D, nullptr, M, scratch_bytes(kOwnRowsSlot, tokens_bytes(*shared.gate_up, M)));
      });
      const RowCut cut = inner_cut(shared);
      swiglu_rows(shared, 0, cut.begin(i), cut.end(i), own, shared_gu, shared_h);
    });
  }

  /// Routes the tokens and sorts their rows by expert.
  void choose() {
    const int64_t K = router.top_k;
    for (int64_t m = 0; m < M; ++m) route_token(logits + m * router.experts, bias, router, ids + m * K, weights + m * K);
    std::vector<int32_t> next(router.experts + 1, 0);
    for (int64_t pair = 0; pair < R(); ++pair) ++next[ids[pair] + 1];
    for (int64_t e = 0; e < router.experts; ++e) {
      if (next[e + 1] > 0) chosen.push_back({e, next[e], next[e + 1], {}});
      next[e + 1] += next[e];
    }
    for (int64_t pair = 0; pair < R(); ++pair) {
      const int32_t row = next[ids[pair]]++;
      source[row] = static_cast<int32_t>(pair / K);
      slot[pair] = row;
    }
  }

  /// Tokens of every chosen expert: rows of `from`, by token or by place.
  void prepare(const StoredWeight& w, const float* from, int64_t width, bool by_token) {
    std::vector<uint8_t*> memory(chosen.size(), tokens);
    for (size_t i = 1; i < chosen.size(); ++i) memory[i] = memory[i - 1] + (tokens_bytes(w, chosen[i - 1].count) + 63) / 64 * 64;
    const auto one = [&](int64_t i) {
      Chosen& c = chosen[i];
      const float* rows = by_token ? from : from + c.first * width;
      c.tokens = prepare_tokens(w, rows, width, by_token ? source + c.first : nullptr, c.count, memory[i]);
    };
    const auto count = static_cast<int64_t>(chosen.size());
    if (M == 1 && by_token) {  // all experts see the same token
      one(0);
      for (Chosen& c : chosen) c.tokens = chosen[0].tokens;
      return;
    }
    constexpr int64_t kAloneElements = 1 << 13;  // are prepared sooner than shared out
    if (R() * width > kAloneElements) return parallel_for(count, one);
    for (int64_t i = 0; i < count; ++i) one(i);
  }

  /// h of the chosen experts.
  void expand() const {
    const RowCut cut = inner_cut(routed);
    const auto count = static_cast<int64_t>(chosen.size());
    parallel_for(count * cut.tasks, [&](int64_t i) {
      const Chosen& c = chosen[i / cut.tasks];
      const int64_t part = i % cut.tasks, next = i + threads();
      NextRows ahead;
      if (next < count * cut.tasks) ahead = {chosen[next / cut.tasks].expert, cut.begin(next % cut.tasks)};
      swiglu_rows(routed, c.expert, cut.begin(part), cut.end(part), c.tokens, gu + c.first * 2 * I(), h + c.first * I(), ahead);
    });
  }

  /// Outputs of the shared expert and of the chosen ones, and their sum.
  void contract() const {
    const RowCut cut(D, weight_row_bytes(*routed.down));
    const RowCut shared_cut(shared.down ? D : 0, shared.down ? weight_row_bytes(*shared.down) : 1);
    const auto count = static_cast<int64_t>(chosen.size()) * cut.tasks;
    parallel_for(shared_cut.tasks + count, [&](int64_t i) {
      const int64_t own = i - shared_cut.tasks, next = own + threads();
      if (next >= 0 && next < count) fetch_rows(*routed.down, chosen[next / cut.tasks].expert, cut.begin(next % cut.tasks), cut.end(next % cut.tasks));
      if (own < 0) return project_rows(*shared.down, 0, shared_cut.begin(i), shared_cut.end(i), {M, shared_tokens}, shared_out, D, false);
      const Chosen& c = chosen[own / cut.tasks];
      const int64_t part = own % cut.tasks;
      project_rows(*routed.down, c.expert, cut.begin(part), cut.end(part), c.tokens, out + c.first * D, D, false);
    });
    parallel_rows(M, D, [&](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m) combine(m);
    });
  }

  /// x += Σ_k weight·out of the chosen experts, then the shared one's.
  void combine(int64_t m) const {
    const int64_t K = router.top_k;
    float* to = x + m * D;
    each16(D, [&](int64_t j, auto n) {
      f32x16 sum = load(to + j, n) + weighted_sum(out + j, D, slot + m * K, weights + m * K, K, n);
      if (shared.down) sum += load(shared_out + m * D + j, n);
      store(to + j, sum, n);
    });
  }
};

/// x f32 [M, D] += Σ_shared FFN(u) + Σ_chosen g_i·FFN_i(u), u = RMSNorm(x).
void moe_block(const Span& x, const Span& norm, const StoredWeight* gate, const Span& bias, const StoredWeight* gate_up,
               const StoredWeight* down, OptionalWeight shared_gate_up, OptionalWeight shared_down, float eps,
               int64_t experts, int64_t top_k, int64_t groups, int64_t top_groups, const std::string& scoring,
               const std::string& method, bool normalize, double scaling) {
  const char* op = "moeBlock";
  MoeBlock b{};
  b.router = make_router(op, experts, top_k, groups, top_groups, scoring, method, normalize, scaling);
  b.gate = gate;
  b.routed = {gate_up, down};
  b.shared = {shared_gate_up.weight, shared_down.weight};
  b.D = down->n;
  b.eps = eps;
  b.M = rows_of(x, b.D, op, "x");
  check_mlp(op, b.routed, experts, b.D);
  if (!b.shared.gate_up != !b.shared.down) fail(op, "one of the shared expert's weights is missing");
  if (b.shared.down) check_mlp(op, b.shared, 1, b.D);
  if (gate->groups != 1 || gate->n != experts || gate->k != b.D) fail(op, "gate does not fit");
  b.x = x.as<float>(op, "x", b.M * b.D);
  b.norm = norm.as<float>(op, "norm", b.D);
  b.bias = bias.as<float>(op, "bias", experts);
  b.run();
}

}  // namespace

void register_mlp_block(const Exports& exports) {
  bind(exports, "mlpBlock", mlp_block);
  bind(exports, "moeBlock", moe_block);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
