// The norm of a few tokens and its product with stored weights in one call: before the output head, and where an MTP module joins an
// embedding and a hidden state, proj [RMSNorm(Emb(t)); RMSNorm(h)] [TR §2.2].
//
// Legend: M tokens, P parts of a token side by side, each with its norm; K = Σ widths of the parts, N outputs.
#include "block_tasks.h"
#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr const char* kOp = "normProject";

/// normed f32 [M, K] = [RMSNorm(x_1); …; RMSNorm(x_P)], x_p f32 [M, width of norm p].
void norm_parts(const std::vector<Span>& parts, const std::vector<Span>& norms, float eps, int64_t M, int64_t K, float* normed) {
  int64_t at = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const auto width = static_cast<int64_t>(norms[p].length);
    const float* x = parts[p].as<float>(kOp, "x", M * width);
    const float* weight = norms[p].as<float>(kOp, "norm", width);
    for (int64_t m = 0; m < M; ++m) rms_norm_row(x + m * width, weight, width, eps, normed + m * K + at);
    at += width;
  }
}

/// y f32 [wanted, N] = normed[wanted] · Wᵀ.
void norm_project(const std::vector<Span>& parts, const std::vector<Span>& norms, float eps, const StoredWeight* w, const Span& normed,
                  const Span& wanted, const Span& y) {
  const int64_t K = w->k, N = w->n, M = rows_of(normed, K, kOp, "normed"), count = static_cast<int64_t>(wanted.length);
  int64_t width = 0;
  for (const Span& norm : norms) width += static_cast<int64_t>(norm.length);
  if (parts.size() != norms.size()) fail(kOp, "every part needs a norm");
  if (w->groups != 1 || width != K) fail(kOp, "norms of " + std::to_string(width) + " values before a weight of " + std::to_string(K));
  const int32_t* rows = wanted.as<int32_t>(kOp, "wanted", 0);
  check_indices(rows, count, 0, M, kOp, "wanted");
  float* to = y.as<float>(kOp, "y", count * N);
  float* all = normed.as<float>(kOp, "normed", M * K);
  norm_parts(parts, norms, eps, M, K, all);
  if (count == 0) return;
  const OncePerThread once;
  const RowCut cut(N, weight_row_bytes(*w));
  parallel_for(cut.tasks, [&](int64_t i) {
    const Tokens& tokens =
        once.get([&] { return prepare_tokens(*w, all, K, rows, count, scratch_bytes(kOwnTokensSlot, tokens_bytes(*w, count))); });
    project_rows(*w, 0, cut.begin(i), cut.end(i), tokens, to, N, false);
  });
}

}  // namespace

void register_norm_project(const Exports& exports) { bind(exports, "normProject", norm_project); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
