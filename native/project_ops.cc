// The op `project` on stored weights: tokens prepared once, rows of all groups in use shared out among the threads.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "operands.h"
#include "pool.h"
#include "stored_weight.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr const char* kOp = "project";
constexpr int kTokensSlot = 6;

/// Bytes of weights of one task: small enough to share out, large enough that a thread reads long runs.
constexpr int64_t kTaskBytes = 1 << 18;
/// Elements of tokens that one thread prepares sooner than it can share them out.
constexpr int64_t kAloneElements = 1 << 14;
/// Tasks that a call has at least, where it has the rows for it.
constexpr int64_t kTasksPerThread = 2;

/// Rows [row, row_end) of a group whose tokens are [token, token + count) of the call.
struct ProjectTask {
  int64_t group, row, row_end, token, count;
  const uint8_t* blocks;
};

/// The groups in use as tasks, `blocks` of their tokens one after the other.
struct ProjectPlan {
  std::vector<ProjectTask> groups, tasks;
};

/// Bytes of the prepared tokens of all groups: a group's last block may take more than its share of a whole one.
int64_t prepared_bytes(const StoredWeight& w, const int32_t* offsets, int64_t tokens) {
  if (!offsets) return tokens_bytes(w, tokens);
  int64_t bytes = 0;
  for (int64_t g = 0; g < w.groups; ++g) bytes += round_up(tokens_bytes(w, offsets[g + 1] - offsets[g]), 64);
  return bytes;
}

ProjectPlan plan_project(const StoredWeight& w, const int32_t* offsets, int64_t tokens, uint8_t* memory) {
  ProjectPlan plan;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t begin = offsets ? offsets[g] : 0, end = offsets ? offsets[g + 1] : tokens;
    if (begin == end) continue;
    plan.groups.push_back({g, 0, w.n, begin, end - begin, memory});
    memory += round_up(tokens_bytes(w, end - begin), 64);
  }
  const int64_t row_bytes = w.format == WeightFormat::q4 ? w.row_bytes() / kRowGrain : w.row_bytes();
  const int64_t rows = static_cast<int64_t>(plan.groups.size()) * w.n;
  const int64_t fair = round_up((rows + kTasksPerThread * threads() - 1) / (kTasksPerThread * threads()), kRowGrain);
  const int64_t step = std::min(fair, std::max(kRowGrain, kTaskBytes / row_bytes / kRowGrain * kRowGrain));
  for (const ProjectTask& group : plan.groups) {
    for (int64_t row = 0; row < w.n; row += step) {
      plan.tasks.push_back({group.group, row, std::min(w.n, row + step), group.token, group.count, group.blocks});
    }
  }
  return plan;
}

/// Prepares the tokens of every group in use, 16 at a time.
template <class X>
void prepare_groups(const StoredWeight& w, const std::vector<ProjectTask>& groups, const X* x) {
  struct Part {
    const ProjectTask* group;
    int64_t token;
  };
  std::vector<Part> parts;
  for (const ProjectTask& group : groups) {
    for (int64_t token = 0; token < group.count; token += kTokenBlock) parts.push_back({&group, token});
  }
  const auto prepare = [&](int64_t i) {
    const auto& [group, token] = parts[i];
    uint8_t* to = const_cast<uint8_t*>(group->blocks) + token / kTokenBlock * tokens_bytes(w, kTokenBlock);
    prepare_tokens(w, x + (group->token + token) * w.k, w.k, nullptr, std::min(kTokenBlock, group->count - token), to);
  };
  const auto count = static_cast<int64_t>(parts.size());
  int64_t tokens = 0;
  for (const ProjectTask& group : groups) tokens += group.count;
  if (tokens * w.k > kAloneElements) return parallel_for(count, prepare);
  for (int64_t i = 0; i < count; ++i) prepare(i);
}

/// project(w, x, M, y, offsets|null, accumulate): y [M, N] (+)= x [M, K] · W_gᵀ for the rows of each group.
void project(const StoredWeight* w, Span x, int64_t M, Span y, Span offsets, bool accumulate) {
  if (M < 0) fail(kOp, "M is negative: " + std::to_string(M));
  const int32_t* bounds = checked_offsets(kOp, offsets, M);
  if (bounds ? static_cast<int64_t>(offsets.length) != w->groups + 1 : w->groups != 1) {
    fail(kOp, "a weight of " + std::to_string(w->groups) + " groups needs as many offsets and one, got " + std::to_string(offsets.length));
  }
  const ProjectPlan plan = plan_project(*w, bounds, M, scratch<uint8_t>(kTokensSlot, prepared_bytes(*w, bounds, M)));
  with_float_type(x, kOp, "x", M * w->k, [&](const auto* from) { prepare_groups(*w, plan.groups, from); });
  with_float_type(y, kOp, "y", M * w->n, [&](auto* to) {
    parallel_for(static_cast<int64_t>(plan.tasks.size()), [&](int64_t i) {
      const ProjectTask& task = plan.tasks[i];
      project_rows(*w, task.group, task.row, task.row_end, {task.count, task.blocks}, to + task.token * w->n, w->n, accumulate);
    });
  });
}

}  // namespace

void register_project(const Exports& exports) { bind(exports, "project", project); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
