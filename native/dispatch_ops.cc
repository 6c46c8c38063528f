// Moving tokens to experts and back. Legend: T tokens, D hidden size, E experts, K experts per token, R = T·K rows.
#include <algorithm>

#include "kernels.h"
#include "memory.h"
#include "row_kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Token ranges that are counted and placed apart; the result does not depend on their number.
constexpr int64_t kPlanChunks = 16;

/// counts [kPlanChunks, E] -> the first row of each chunk's share of each expert, and offsets [E + 1].
void place_chunks(int32_t* counts, int64_t experts, int32_t* offsets) {
  int32_t row = 0;
  for (int64_t e = 0; e < experts; ++e) {
    offsets[e] = row;
    for (int64_t chunk = 0; chunk < kPlanChunks; ++chunk) {
      const int32_t count = counts[chunk * experts + e];
      counts[chunk * experts + e] = row;
      row += count;
    }
  }
  offsets[experts] = row;
}

/// ids [T, K] -> rows sorted by expert, within an expert by token: a counting sort.
/// offsets [E+1]; source [R] token of each row; slot [T, K] row of each pair.
void dispatch_plan(const Span& ids, const Span& offsets, const Span& source, const Span& slot, int64_t top_k) {
  const char* op = "dispatchPlan";
  const auto experts = static_cast<int64_t>(offsets.length) - 1;
  const int64_t pairs = rows_of(ids, top_k, op, "ids") * top_k;
  const int32_t* id = ids.as<int32_t>(op, "ids", pairs);
  int32_t* bounds = offsets.as<int32_t>(op, "offsets", 1);
  int32_t* token = source.as<int32_t>(op, "source", pairs);
  int32_t* row = slot.as<int32_t>(op, "slot", pairs);
  check_indices(id, pairs, 0, experts, op, "ids");
  int32_t* next = scratch<int32_t>(8, kPlanChunks * experts);
  const auto first = [=](int64_t chunk) { return pairs * chunk / kPlanChunks; };
  parallel_for(kPlanChunks, [=](int64_t chunk) {
    int32_t* count = next + chunk * experts;
    std::fill(count, count + experts, 0);
    for (int64_t pair = first(chunk); pair < first(chunk + 1); ++pair) ++count[id[pair]];
  });
  place_chunks(next, experts, bounds);
  parallel_for(kPlanChunks, [=](int64_t chunk) {
    for (int64_t pair = first(chunk); pair < first(chunk + 1); ++pair) {
      const int32_t place = next[chunk * experts + id[pair]]++;
      token[place] = static_cast<int32_t>(pair / top_k);
      row[pair] = place;
    }
  });
}

/// x [T, D] -> out [R, D]: out[r] = x[source[r]].
void permute(const Span& x, const Span& source, const Span& out, int64_t width) {
  const char* op = "permute";
  const int64_t tokens = rows_of(x, width, op, "x");
  const int64_t rows = rows_of(out, width, op, "out");
  const int32_t* from = source.as<int32_t>(op, "source", rows);
  check_indices(from, rows, 0, tokens, op, "source");
  with_float_type(x, op, "x", tokens * width, [&](auto* in) {
    using T = std::decay_t<decltype(*in)>;
    T* to = out.as<T>(op, "out", rows * width);
    parallel_rows(rows, width, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) std::memcpy(to + r * width, in + from[r] * width, static_cast<size_t>(width) * sizeof(T));
    });
  });
}

/// y[t] = Σ_k weights[t,k]·x[slot[t,k]]; x [R, D], y [T, D], weights f32 [T, K] or all 1.
void unpermute(const Span& x, const Span& slot, const Span& weights, const Span& y, int64_t width) {
  const char* op = "unpermute";
  const int64_t rows = rows_of(x, width, op, "x");
  const int64_t tokens = rows_of(y, width, op, "y");
  const int64_t top_k = tokens ? static_cast<int64_t>(slot.length) / tokens : 0;
  const int32_t* place = slot.as<int32_t>(op, "slot", tokens * top_k);
  const float* weight = weights.optional<float>(op, "weights", tokens * top_k);
  check_indices(place, tokens * top_k, 0, rows, op, "slot");
  with_float_type(x, op, "x", rows * width, [&](auto* in) {
    using T = std::decay_t<decltype(*in)>;
    T* out = y.as<T>(op, "y", tokens * width);
    parallel_rows(tokens, width * (top_k + 1), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* own = weight ? weight + t * top_k : nullptr;
        write_mapped(out + t * width, width, [=](int64_t i, auto n) {
          return weighted_sum(in + i, width, place + t * top_k, own, top_k, n);
        });
      }
    });
  });
}

/// One pair: dx = weight·dy; returns dy·x.
template <class T>
float unpermute_pair(const T* dy, const T* x, float weight, int64_t width, T* dx) {
  f32x16 sum = zero();
  write_mapped(dx, width, [&](int64_t i, auto n) {
    const f32x16 d = load(dy + i, n);
    sum = fma(d, load(x + i, n), sum);
    return d * weight;
  });
  return hsum(sum);
}

/// dy [T, D] -> dx[slot[t,k]] = weights[t,k]·dy[t] [R, D]; dweights[t,k] = dy[t]·x[slot[t,k]].
void unpermute_backward(const Span& dy, const Span& x, const Span& slot, const Span& weights, const Span& dx,
                        const Span& dweights, int64_t width) {
  const char* op = "unpermuteBackward";
  const int64_t tokens = rows_of(dy, width, op, "dy");
  const int64_t rows = rows_of(x, width, op, "x");
  const auto pairs = static_cast<int64_t>(slot.length);
  const int64_t top_k = tokens ? pairs / tokens : 0;
  const int32_t* place = slot.as<int32_t>(op, "slot", pairs);
  const float* weight = weights.as<float>(op, "weights", pairs);
  float* dweight = dweights.as<float>(op, "dweights", pairs);
  check_indices(place, pairs, 0, rows, op, "slot");
  with_float_type(x, op, "x", rows * width, [&](auto* in) {
    using T = std::decay_t<decltype(*in)>;
    const T* upstream = dy.as<T>(op, "dy", tokens * width);
    T* out = dx.as<T>(op, "dx", rows * width);
    parallel_rows(tokens * top_k, width, [=](int64_t begin, int64_t end) {
      for (int64_t pair = begin; pair < end; ++pair) {
        const int64_t at = place[pair] * width;
        dweight[pair] = unpermute_pair(upstream + pair / top_k * width, in + at, weight[pair], width, out + at);
      }
    });
  });
}

}  // namespace

void register_dispatch(const Exports& exports) {
  bind(exports, "dispatchPlan", dispatch_plan);
  bind(exports, "permute", permute);
  bind(exports, "unpermute", unpermute);
  bind(exports, "unpermuteBackward", unpermute_backward);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
