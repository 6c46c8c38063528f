// Attention on the latent cache with absorbed weights [V2 §2.1.2], inside one task or as a whole op.
//
// All heads attend to the same cache rows, so that the heads of a sequence's rows are the columns of matrix products:
// scores = keys · queriesᵀ and sums = weights · keys[:latent]. A context is cut into parts of kPartKeys at fixed positions,
// a part goes in steps of kStepKeys with an online softmax [arXiv 2205.14135], and the parts are put together in order: what a
// row gives depends on its own query and context alone, to the bit.
//
// Legend: H heads; a column is one head of one row; kColumns columns make a group, the unit of all products; C is the type
// that is multiplied: float for an FP32 cache, else bf16.
#pragma once

#include <vector>

#include "latent_pages.h"
#include "latent_products.h"

namespace fathom {
namespace FATHOM_ISA_NS {

constexpr int64_t kPartKeys = 512;

/// Rows of S sequences on their caches.
struct LatentRows {
  int64_t sequences;
  const int32_t *bounds, *lengths;      // rows of each sequence [S+1]; tokens before its first row [S]
  const int32_t *pages, *page_bounds;   // pages of all sequences; bounds therein [S+1]
};

/// The rows as JavaScript passes them, checked: every sequence has the pages that its tokens need (latent_attention_ops.cc).
LatentRows latent_rows(const Span& bounds, const Span& lengths, const Span& pages, const Span& page_bounds, int64_t page_count,
                       const char* op);

/// One part of one sequence's context for some of its groups.
struct LatentTask {
  int64_t sequence, begin, end;  // keys
  int64_t first_group, groups;
  float* partial;                // unfinished results of the groups, LatentState::floats() each; null: the only part
};

/// The unfinished softmax of one group: sums in panels [latent/16][column][16], largest scaled score, mass.
struct LatentState {
  float *sums, *top, *mass;
  static int64_t floats(int64_t latent) { return round_up(latent, 16) * kColumns + 2 * kColumns; }
  static LatentState at(float* memory, int64_t latent) {
    float* top = memory + round_up(latent, 16) * kColumns;
    return {memory, top, top + kColumns};
  }
};

// ---- One task -----------------------------------------------------------------------------------------------------

/// Attention of rows q [B, H·(latent+rope)] -> o [B, H·latent]. Q is the type of activations.
template <class Q>
struct LatentCall {
  LatentPages pages;
  LatentRows rows;
  int64_t heads;
  float scale;
  const Q* q;
  Q* o;

  int64_t depth() const { return pages.latent + pages.rope; }
  int64_t columns(int64_t s) const { return (rows.bounds[s + 1] - rows.bounds[s]) * heads; }
  int64_t groups(int64_t s) const { return (columns(s) + kColumns - 1) / kColumns; }
  /// Tokens that the last row of a sequence sees.
  int64_t length(int64_t s) const { return rows.lengths[s] + rows.bounds[s + 1] - rows.bounds[s]; }
  int64_t first_column(int64_t s) const { return rows.bounds[s] * heads; }
};

/// Writes o of a group of which `columns` exist: sums / mass.
template <class C, class Q>
void write_group(Q* o, int64_t latent, const LatentState& state, int64_t columns) {
  float inverse[16];
  store(inverse, 1.0f / load(state.mass));
  for (int64_t column = 0; column < columns; ++column, o += latent) {
    const float* row = state.sums + column * 16;
    write_panels<C>(o, latent, [&](int64_t i) { return load(row + i * 256) * inverse[column]; });
  }
}

/// Keys of one part against some groups of a sequence.
template <class C, class Q>
class LatentPart {
 public:
  LatentPart(const LatentCall<Q>& latent_call, const LatentTask& its)
      : call(latent_call), task(its), latent(call.pages.latent), rope(call.pages.rope),
        query_elements((filled<C>(latent) + filled<C>(rope)) * kColumns), state_floats(LatentState::floats(latent)), memory(9, bytes()) {
    queries = memory.take<C>(task.groups * query_elements);
    weights = memory.take<C>(task.groups * kColumns * kStepKeys);
    scores = memory.take<float>(kStepKeys * kColumns);
    values = memory.take<C>(kValueColumns / 16 * value_panel<C>());
    copies = memory.take<C>(kStepKeys * copied_width());
    states = memory.take<float>(task.groups * state_floats);
    begin_products();
    for (int64_t g = 0; g < task.groups; ++g) begin_group(g);
  }

  void run() {
    for (int64_t at = task.begin; at < task.end; at += kStepKeys) step(at, std::min(kStepKeys, task.end - at));
    for (int64_t g = 0; g < task.groups; ++g) end_group(g);
  }

 private:
  int64_t copied_width() const { return filled<C>(latent) + filled<C>(rope); }
  size_t bytes() const {
    return Workspace::bytes_of<C>(task.groups * query_elements) + Workspace::bytes_of<C>(task.groups * kColumns * kStepKeys) +
           Workspace::bytes_of<float>(kStepKeys * kColumns) + Workspace::bytes_of<C>(kValueColumns / 16 * value_panel<C>()) +
           Workspace::bytes_of<C>(kStepKeys * copied_width()) + Workspace::bytes_of<float>(task.groups * state_floats);
  }
  LatentState state(int64_t g) const { return LatentState::at(states + g * state_floats, latent); }
  int64_t columns(int64_t g) const { return std::min(kColumns, call.columns(task.sequence) - (task.first_group + g) * kColumns); }

  void begin_group(int64_t g) {
    const Q* from = call.q + (call.first_column(task.sequence) + (task.first_group + g) * kColumns) * call.depth();
    C* to = queries + g * query_elements;
    pack_queries(to, from, columns(g), latent);
    pack_queries(to + filled<C>(latent) * kColumns, from + latent, columns(g), rope);
    const LatentState s = state(g);
    std::fill(s.sums, s.top, 0.0f);
    std::fill(s.top, s.top + kColumns, kMasked);
    std::fill(s.mass, s.mass + kColumns, 0.0f);
  }
  void pack_queries(C* to, const Q* from, int64_t count, int64_t width) const {
    if constexpr (std::is_same_v<C, float> && std::is_same_v<Q, bf16>) {
      for (int64_t k = 0; k < width; ++k) {
        for (int64_t i = 0; i < kColumns; ++i) to[k * kColumns + i] = i < count ? to_f32(from[i * call.depth() + k]) : 0;
      }
    } else {
      pack_panel_nk(to, from, count, width, call.depth());
    }
  }

  void step(int64_t at, int64_t count) {
    const KeyRows<C> keys = find_keys(at, count);
    const int64_t padded = round_up(count, 32);
    for (int64_t g = 0; g < task.groups; ++g) weigh(keys, at, count, padded, g);
    for (int64_t column = 0; column < latent; column += kValueColumns) {
      const int64_t width = std::min(kValueColumns, latent - column);
      pack_values(values, keys, padded, column, width);
      for (int64_t g = 0; g < task.groups; ++g) {
        add_values(weights + g * kColumns * kStepKeys, values, padded, (width + 15) / 16, state(g).sums + column * kColumns);
      }
    }
  }

  void weigh(const KeyRows<C>& keys, int64_t at, int64_t count, int64_t padded, int64_t g) {
    const LatentState s = state(g);
    const float c = call.scale * kLog2E;
    score_keys(keys, padded / 16, latent, rope, queries + g * query_elements, scores);
    const i32x16 limit = visible(g);
    if (count < padded || at + count > smallest(limit)) mask_scores(scores, padded, at, limit);
    const f32x16 shrink = raise_top(scores, padded, c, s.top);
    shrink_sums(s.sums, latent, shrink);
    weigh_keys(scores, padded, c, s.top, shrink, s.mass, weights + g * kColumns * kStepKeys);
  }

  /// Tokens that each column of a group sees; columns that do not exist see as many as the last.
  i32x16 visible(int64_t g) const {
    int32_t limit[16];
    const int64_t first = (task.first_group + g) * kColumns, last = call.columns(task.sequence) - 1;
    for (int64_t i = 0; i < kColumns; ++i) {
      limit[i] = static_cast<int32_t>(call.rows.lengths[task.sequence] + std::min(first + i, last) / call.heads + 1);
    }
    return load(limit);
  }
  static int32_t smallest(i32x16 x) {
    int32_t lane[16];
    store(lane, x);
    return *std::min_element(lane, lane + 16);
  }

  /// The keys at .. at + count, where they lie or as copies: of C, filled up with zeros to whole blocks of 32 keys.
  KeyRows<C> find_keys(int64_t at, int64_t count) const {
    KeyRows<C> rows{{}, {}, latent, rope};
    const bool stored_so = call.pages.format == (std::is_same_v<C, float> ? kCacheF32 : kCacheBf16);
    const bool in_place = stored_so && filled<C>(latent) == latent && filled<C>(rope) == rope && count % 32 == 0;
    if (!in_place) rows.latent_stride = rows.rope_stride = copied_width();
    const int32_t* pages = call.rows.pages + call.rows.page_bounds[task.sequence];
    for (int64_t k = 0; k < round_up(count, 64); k += 16) {
      const int64_t key = std::min(at + k, at + count - 1) / 16 * 16;
      const int64_t slot = pages[key / kPageTokens] * kPageTokens + key % kPageTokens;
      if (in_place) {
        rows.latent[k / 16] = reinterpret_cast<const C*>(call.pages.latents(slot));
        rows.rope[k / 16] = reinterpret_cast<const C*>(call.pages.k_rope(slot));
      } else {
        C* to = copies + k * copied_width();
        copy_keys(to, slot, std::min<int64_t>(16, count - k));
        rows.latent[k / 16] = to;
        rows.rope[k / 16] = to + filled<C>(latent);
      }
    }
    return rows;
  }

  void copy_keys(C* to, int64_t slot, int64_t count) const {
    const int64_t width = filled<C>(latent);
    for (int64_t i = 0; i < 16; ++i, to += copied_width()) {
      if (i >= count) {
        clear_rows(to, copied_width(), 0, 1);
        continue;
      }
      read_latent(call.pages, slot + i, to);
      clear_rows(to, 1, latent, width);
      read_rope(call.pages, slot + i, to + width);
      clear_rows(to, 1, width + rope, copied_width());
    }
  }

  void end_group(int64_t g) {
    if (!task.partial) {
      Q* o = call.o + (call.first_column(task.sequence) + (task.first_group + g) * kColumns) * latent;
      return write_group<C>(o, latent, state(g), columns(g));
    }
    const float* from = states + g * state_floats;
    std::copy(from, from + state_floats, task.partial + g * state_floats);
  }

  const LatentCall<Q>& call;
  const LatentTask& task;
  const int64_t latent, rope, query_elements, state_floats;
  Workspace memory;
  C *queries, *weights, *values, *copies;
  float *scores, *states;
};

/// How the parts of one group are put together: what the sums of each are multiplied by, and what all are at the end.
struct MergeFactors {
  MergeFactors(const float* const* partials, int64_t parts, int64_t latent) : factor(parts * kColumns) {
    const auto part = [&](int64_t i) { return LatentState::at(const_cast<float*>(partials[i]), latent); };
    f32x16 top = load(part(0).top), mass = zero();
    for (int64_t i = 1; i < parts; ++i) top = max(top, load(part(i).top));
    for (int64_t i = 0; i < parts; ++i) {
      const f32x16 shrink = exp2<float>(load(part(i).top) - top);
      mass = fma(load(part(i).mass), shrink, mass);
      store(factor.data() + i * kColumns, shrink);
    }
    store(inverse, 1.0f / mass);
  }
  std::vector<float> factor;  // [parts][kColumns]
  float inverse[kColumns];
};

/// o [latent] of one column of a group from its parts, in order.
template <class C, class Q>
void merge_column(const float* const* partials, int64_t parts, int64_t latent, const MergeFactors& by, int64_t column, Q* o) {
  write_panels<C>(o, latent, [&](int64_t i) {
    f32x16 sum = zero();
    for (int64_t p = 0; p < parts; ++p) {
      sum = fma(load(partials[p] + i * 256 + column * 16), by.factor[p * kColumns + column], sum);
    }
    return sum * by.inverse[column];
  });
}

// ---- The whole ----------------------------------------------------------------------------------------------------

/// The tasks of a call, and what is left to do after them.
template <class Q>
class LatentJob {
 public:
  /// @param memory scratch slot of the calling thread for unfinished parts
  explicit LatentJob(const LatentCall<Q>& latent_call, int slot = 8) : call(latent_call) {
    const int64_t sequences = call.rows.sequences;
    int64_t parts = 0;
    for (int64_t s = 0; s < sequences; ++s) parts += parts_of(s);
    for (int64_t s = 0; s < sequences; ++s) add_tasks(s, parts);
    float* memory = scratch<float>(slot, partial_floats);
    for (LatentTask& task : tasks) {
      if (parts_of(task.sequence) == 1) continue;
      task.partial = memory;
      memory += task.groups * LatentState::floats(call.pages.latent);
    }
  }

  int64_t count() const { return static_cast<int64_t>(tasks.size()); }
  void run(int64_t i) const {
    if (call.pages.format == kCacheF32) LatentPart<float, Q>(call, tasks[i]).run();
    else LatentPart<bf16, Q>(call, tasks[i]).run();
  }

  /// Groups whose parts are to be put together after all tasks have run.
  int64_t merges() const { return static_cast<int64_t>(merged.size()); }
  void merge(int64_t i) const {
    const auto [s, group] = merged[i];
    const std::vector<const float*> partials = partials_of(s, group);
    const MergeFactors by(partials.data(), parts_of(s), call.pages.latent);
    const int64_t first = group * kColumns, count = std::min(kColumns, call.columns(s) - first);
    for (int64_t c = 0; c < count; ++c) merge_into(s, partials, by, first + c);
  }

  /// The same for one column of a sequence at a time; does nothing where the only task has written its o.
  void merge_one(int64_t s, int64_t column) const {
    if (parts_of(s) < 2) return;
    const std::vector<const float*> partials = partials_of(s, column / kColumns);
    merge_into(s, partials, MergeFactors(partials.data(), parts_of(s), call.pages.latent), column);
  }

 private:
  /// The first task of a sequence, tasks from part to part, and groups of a task.
  struct Cut {
    int64_t first, stride, chunk;
  };
  struct Merge {
    int64_t sequence, group;
  };

  int64_t parts_of(int64_t s) const { return call.columns(s) == 0 ? 0 : (call.length(s) + kPartKeys - 1) / kPartKeys; }

  /// Groups share what a task reads; with few parts they are split over tasks. Results do not depend on it.
  void add_tasks(int64_t s, int64_t all_parts) {
    constexpr int64_t kMostGroups = 16;
    const int64_t groups = call.groups(s), parts = parts_of(s);
    const int64_t chunks_wanted = std::max<int64_t>(1, 2 * threads() / std::max<int64_t>(1, all_parts));
    const int64_t chunk = std::max<int64_t>(1, std::min(kMostGroups, (groups + chunks_wanted - 1) / chunks_wanted));
    cuts.push_back({count(), (groups + chunk - 1) / chunk, chunk});
    for (int64_t at = 0; at < parts * kPartKeys; at += kPartKeys) {
      for (int64_t g = 0; g < groups; g += chunk) {
        const int64_t own = std::min(chunk, groups - g);
        tasks.push_back({s, at, std::min(at + kPartKeys, call.length(s)), g, own, nullptr});
        if (parts > 1) partial_floats += own * LatentState::floats(call.pages.latent);
      }
    }
    for (int64_t g = 0; g < groups && parts > 1; ++g) merged.push_back({s, g});
  }

  std::vector<const float*> partials_of(int64_t s, int64_t group) const {
    const Cut& cut = cuts[s];
    std::vector<const float*> partials(parts_of(s));
    for (size_t p = 0; p < partials.size(); ++p) {
      const LatentTask& task = tasks[cut.first + group / cut.chunk + static_cast<int64_t>(p) * cut.stride];
      partials[p] = task.partial + group % cut.chunk * LatentState::floats(call.pages.latent);
    }
    return partials;
  }

  void merge_into(int64_t s, const std::vector<const float*>& partials, const MergeFactors& by, int64_t column) const {
    const int64_t latent = call.pages.latent;
    Q* o = call.o + (call.first_column(s) + column) * latent;
    const auto parts = static_cast<int64_t>(partials.size());
    if (call.pages.format == kCacheF32) merge_column<float>(partials.data(), parts, latent, by, column % kColumns, o);
    else merge_column<bf16>(partials.data(), parts, latent, by, column % kColumns, o);
  }

  const LatentCall<Q>& call;
  std::vector<LatentTask> tasks;
  std::vector<Cut> cuts;
  std::vector<Merge> merged;
  int64_t partial_floats = 0;
};

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
