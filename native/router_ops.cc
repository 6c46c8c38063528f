// The gate of DeepSeekMoE. Legend: T tokens, E experts, K experts per token, G groups.
#include <algorithm>

#include "kernels.h"
#include "memory.h"
#include "router.h"
#include "rows.h"
#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

typedef float f32x8 __attribute__((vector_size(32)));
typedef double f64x8 __attribute__((vector_size(64)));
typedef int64_t i64x8 __attribute__((vector_size(64)));

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Keeps the sum of the chosen scores from being zero, as in DeepSeek's published model code.
constexpr double kSumEpsilon = 1e-20;

/// Token ranges that are routed apart, each with its own counts of tokens per expert.
constexpr int64_t kRouteChunks = 64;

/// e^x to about one unit in the last place of binary64 (Cody and Waite reduction, Taylor series of degree 13).
FATHOM_INLINE f64x8 exp64(f64x8 x) {
  const f64x8 low = f64x8{} - 708.0, high = f64x8{} + 708.0;  // within the range of normal results
  x = x < low ? low : x;
  x = x > high ? high : x;
  const f64x8 magic = f64x8{} + 6755399441055744.0;  // 1.5 * 2^52: leaves the nearest integer in the low bits
  const f64x8 shifted = x * 1.4426950408889634 + magic;
  const f64x8 n = shifted - magic;
  const f64x8 r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;  // ln 2 in two parts
  f64x8 y = f64x8{} + 1.0 / 6227020800.0;
  constexpr double inverse_factorials[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                                           1.0 / 5040,      1.0 / 720,      1.0 / 120,     1.0 / 24,     1.0 / 6,
                                           0.5,             1.0,            1.0};
#pragma GCC unroll 13
  for (double coefficient : inverse_factorials) y = y * r + coefficient;
  return (f64x8)((i64x8)y + ((i64x8)shifted << 52));
}

FATHOM_INLINE f64x8 widen(const float* x) {
  f32x8 v;
  std::memcpy(&v, x, sizeof(v));
  return __builtin_convertvector(v, f64x8);
}

FATHOM_INLINE void narrow(float* to, f64x8 x) {
  const f32x8 v = __builtin_convertvector(x, f32x8);
  std::memcpy(to, &v, sizeof(v));
}

/// One token's scores, each the correctly rounded f32 of a computation in f64: near ties must fall as in the
/// reference, and saturated sigmoids must tie. logits and scores are padded to a multiple of 8.
void score(const float* logits, const Router& router, float* scores) {
  const int64_t experts = router.experts;
  if (!router.softmax) {
    for (int64_t e = 0; e < experts; e += 8) {
      const f64x8 x = widen(logits + e);
      narrow(scores + e, x == x ? 1.0 / (1.0 + exp64(-x)) : x);
    }
    return;
  }
  double top = -kInfinity, sum = 0, part[8];
  for (int64_t e = 0; e < experts; ++e) top = logits[e] > top ? logits[e] : top;
  for (int64_t e = 0; e < experts; e += 8) {
    const f64x8 x = widen(logits + e) - top, exponential = x == x ? exp64(x) : x;
    std::memcpy(part, &exponential, sizeof(part));
    for (int64_t i = 0; i < 8 && e + i < experts; ++i) sum += part[i];
  }
  for (int64_t e = 0; e < experts; e += 8) {
    const f64x8 x = widen(logits + e) - top;
    narrow(scores + e, (x == x ? exp64(x) : x) / sum);
  }
}

/// Index of the largest element, the lowest of equal ones; x is padded to a multiple of 16 with −inf.
int64_t argmax(const float* x, int64_t padded) {
  static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  f32x16 best = broadcast(-kInfinity);
  i32x16 where = broadcast_int(0), index = load(lanes);
  for (int64_t i = 0; i < padded; i += 16, index = index + 16) {
    const f32x16 v = load(x + i);
    const i32x16 better = v > best;
    best = select(better, v, best);
    where = select(better, index, where);
  }
  const i32x16 winners = best == broadcast(hmax(best));
  return -hmax(select(winners, broadcast_int(0) - where, broadcast_int(INT32_MIN)));
}

/// One group's score: its best choice, or the sum of its two best.
float group_score(const float* choice, int64_t size, bool pair) {
  float first = -kInfinity, second = -kInfinity;
  for (int64_t i = 0; i < size; ++i) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  return pair && size > 1 ? first + second : first;
}

/// Sets the choices outside the best `top_groups` groups to −inf. groups_scratch [pad16(G)].
void exclude_groups(float* choice, const Router& router, float* group) {
  const int64_t size = router.experts / router.groups, padded = (router.groups + 15) / 16 * 16;
  std::fill(group, group + padded, -kInfinity);
  for (int64_t g = 0; g < router.groups; ++g) group[g] = group_score(choice + g * size, size, router.pair_score);
  for (int64_t i = 0; i < router.top_groups; ++i) {
    const int64_t g = argmax(group, padded);
    group[g] = std::numeric_limits<float>::quiet_NaN();  // marks the chosen; a NaN is never the largest
  }
  for (int64_t g = 0; g < router.groups; ++g) {
    if (group[g] == group[g]) std::fill(choice + g * size, choice + (g + 1) * size, -kInfinity);
  }
}

/// Buffers of one task: logits, scores, choices, group scores, each padded to a multiple of 16.
struct Buffers {
  explicit Buffers(const Router& router) : padded((router.experts + 15) / 16 * 16) {
    logits = scratch<float>(9, 4 * padded);
    scores = logits + padded;
    choices = scores + padded;
    groups = choices + padded;
    std::fill(logits, logits + padded, 0.0f);
  }
  void take(const float* row, const Router& router) {
    std::copy(row, row + router.experts, logits);
    score(logits, router, scores);
  }
  int64_t padded;
  float *logits, *scores, *choices, *groups;
};

/// The choice values of one token. What is not a number counts as the largest, so that it reaches the weights and the
/// bad step is noticed.
void fill_choices(const Buffers& b, const float* bias, const Router& router) {
  std::fill(b.choices, b.choices + b.padded, -kInfinity);
  for (int64_t e = 0; e < router.experts; ++e) {
    const float choice = router.biased ? b.scores[e] + bias[e] : b.scores[e];
    b.choices[e] = choice == choice ? choice : kInfinity;
  }
}

/// What divides the chosen scores: their sum, or 1.
double denominator(const float* scores, const int32_t* ids, const Router& router) {
  if (!router.normalize) return 1;
  double sum = kSumEpsilon;
  for (int64_t k = 0; k < router.top_k; ++k) sum += scores[ids[k]];
  return sum;
}

void route_token_in(const float* logits, const float* bias, const Router& router, Buffers& b, int32_t* ids, float* weights) {
  b.take(logits, router);
  fill_choices(b, bias, router);
  if (router.grouped) exclude_groups(b.choices, router, b.groups);
  for (int64_t k = 0; k < router.top_k; ++k) {
    ids[k] = static_cast<int32_t>(argmax(b.choices, b.padded));
    b.choices[ids[k]] = -kInfinity;
  }
  const double factor = router.scaling / denominator(b.scores, ids, router);
  for (int64_t k = 0; k < router.top_k; ++k) weights[k] = static_cast<float>(b.scores[ids[k]] * factor);
}

/// logits [T, E], bias [E] -> ids [T, K], weights [T, K], load [E].
void route(const Span& logits, const Span& bias, const Span& ids, const Span& weights, const Span& load_per_expert,
           int64_t experts, int64_t top_k, int64_t groups, int64_t top_groups, const std::string& scoring,
           const std::string& method, bool normalize, double scaling) {
  const char* op = "route";
  const Router router = make_router(op, experts, top_k, groups, top_groups, scoring, method, normalize, scaling);
  const int64_t tokens = rows_of(logits, experts, op, "logits");
  const float* x = logits.as<float>(op, "logits", tokens * experts);
  const float* offset = bias.as<float>(op, "bias", experts);
  int32_t* id = ids.as<int32_t>(op, "ids", tokens * top_k);
  float* weight = weights.as<float>(op, "weights", tokens * top_k);
  int32_t* loads = load_per_expert.as<int32_t>(op, "load", experts);
  int32_t* counts = scratch<int32_t>(8, kRouteChunks * experts);
  parallel_for(kRouteChunks, [&](int64_t chunk) {
    Buffers buffers(router);
    int32_t* count = counts + chunk * experts;
    std::fill(count, count + experts, 0);
    for (int64_t t = tokens * chunk / kRouteChunks; t < tokens * (chunk + 1) / kRouteChunks; ++t) {
      route_token_in(x + t * experts, offset, router, buffers, id + t * top_k, weight + t * top_k);
      for (int64_t k = 0; k < top_k; ++k) ++count[id[t * top_k + k]];
    }
  });
  std::fill(loads, loads + experts, 0);
  for (int64_t i = 0; i < kRouteChunks * experts; ++i) loads[i % experts] += counts[i];
}

/// f_e = E / (K·T) · (times e was chosen) of every sequence [TR §2.1.2 eq. 18]. frequency [S, E].
void frequencies(const int32_t* ids, const int32_t* bounds, int64_t sequences, const Router& router, float* frequency) {
  parallel_for(sequences, [=](int64_t s) {
    float* f = frequency + s * router.experts;
    std::fill(f, f + router.experts, 0.0f);
    for (int64_t i = bounds[s] * router.top_k; i < bounds[s + 1] * router.top_k; ++i) f[ids[i]] += 1;  // exact up to 2^24
    const double unit = static_cast<double>(router.experts) / (static_cast<double>(router.top_k) * (bounds[s + 1] - bounds[s]));
    for (int64_t e = 0; e < router.experts; ++e) f[e] = static_cast<float>(f[e] * unit);
  });
}

/// ds += gradient of factor·share·Σ_e f_e·s_e/Σ_j s_j; returns that sum.
double balance_token(const float* s, const float* f, int64_t experts, double factor, float* ds) {
  double sum = 0, weighted = 0;
  for (int64_t e = 0; e < experts; ++e) {
    sum += s[e];
    weighted += static_cast<double>(f[e]) * s[e];
  }
  const double mean = weighted / sum;
  for (int64_t e = 0; e < experts; ++e) ds[e] += static_cast<float>(factor / sum * (f[e] - mean));
  return mean;
}

/// ds += the gradient through w_k = c·s_k/Σ s (normalised) or c·s_k.
void weights_backward(const float* dw, const int32_t* ids, const float* s, const Router& router, float* ds) {
  const double sum = denominator(s, ids, router);
  double mean = 0;
  for (int64_t k = 0; k < router.top_k && router.normalize; ++k) mean += static_cast<double>(dw[k]) * s[ids[k]] / sum;
  for (int64_t k = 0; k < router.top_k; ++k) ds[ids[k]] += static_cast<float>(router.scaling / sum * (dw[k] - mean));
}

/// ds -> dlogits: sigmoid' = s(1 − s); softmax: s_e·(ds_e − Σ_j ds_j s_j).
void scoring_backward(const float* s, const float* ds, const Router& router, float* dlogits) {
  double mean = 0;
  for (int64_t e = 0; e < router.experts && router.softmax; ++e) mean += static_cast<double>(ds[e]) * s[e];
  for (int64_t e = 0; e < router.experts; ++e) {
    dlogits[e] = router.softmax ? s[e] * static_cast<float>(ds[e] - mean) : ds[e] * s[e] * (1.0f - s[e]);
  }
}

/// The sequence of token t at or after `s`, or the number of sequences.
int64_t sequence_of(const int32_t* bounds, int64_t sequences, int64_t s, int64_t t) {
  while (s < sequences && bounds[s + 1] <= t) ++s;
  return s;
}

/// dweights [T, K] -> dlogits [T, E], plus the gradient of the balance loss; balance_loss [1].
void route_backward(const Span& dweights, const Span& logits, const Span& ids, const Span& sequences, const Span& dlogits,
                    const Span& balance_loss, double balance_factor, int64_t experts, int64_t top_k, int64_t groups,
                    int64_t top_groups, const std::string& scoring, const std::string& method, bool normalize,
                    double scaling) {
  const char* op = "routeBackward";
  const Router router = make_router(op, experts, top_k, groups, top_groups, scoring, method, normalize, scaling);
  const int64_t tokens = rows_of(logits, experts, op, "logits");
  const float* x = logits.as<float>(op, "logits", tokens * experts);
  const float* dw = dweights.as<float>(op, "dweights", tokens * top_k);
  const int32_t* id = ids.as<int32_t>(op, "ids", tokens * top_k);
  const int32_t* bounds = sequences.as<int32_t>(op, "sequences", 1);
  const auto count = static_cast<int64_t>(sequences.length) - 1;
  float* out = dlogits.as<float>(op, "dlogits", tokens * experts);
  float* loss = balance_loss.as<float>(op, "balanceLoss", 1);
  check_indices(id, tokens * top_k, 0, experts, op, "ids");
  check_bounds(bounds, count + 1, tokens, op, "sequences");
  float* frequency = scratch<float>(8, count * experts);
  double* token_loss = scratch<double>(10, tokens);
  frequencies(id, bounds, count, router, frequency);
  parallel_rows(tokens, 16 * experts, [&](int64_t begin, int64_t end) {
    Buffers b(router);
    int64_t s = 0;
    for (int64_t t = begin; t < end; ++t) {
      s = sequence_of(bounds, count, s, t);
      b.take(x + t * experts, router);
      float* ds = b.choices;
      std::fill(ds, ds + experts, 0.0f);
      weights_backward(dw + t * top_k, id + t * top_k, b.scores, router, ds);
      token_loss[t] = 0;
      if (s < count && bounds[s] <= t) {
        const double share = 1.0 / (static_cast<double>(bounds[s + 1] - bounds[s]) * static_cast<double>(count));
        token_loss[t] = share * balance_token(b.scores, frequency + s * experts, experts, balance_factor * share, ds);
      }
      scoring_backward(b.scores, ds, router, out + t * experts);
    }
  });
  double total = 0;
  for (int64_t t = 0; t < tokens; ++t) total += token_loss[t];
  *loss = static_cast<float>(total);
}

}  // namespace

Router make_router(const char* op, int64_t experts, int64_t top_k, int64_t groups, int64_t top_groups,
                   const std::string& scoring, const std::string& method, bool normalize, double scaling) {
  const bool noaux = method == "noaux_tc", limited = method == "group_limited_greedy";
  if (!noaux && !limited && method != "greedy") fail(op, "unknown method " + method);
  if (scoring != "sigmoid" && scoring != "softmax") fail(op, "unknown scoring " + scoring);
  const bool grouped = method != "greedy" && top_groups < groups;
  if (groups < 1 || top_groups < 1 || experts % groups != 0) {
    fail(op, std::to_string(experts) + " experts in " + std::to_string(groups) + " groups");
  }
  const int64_t available = grouped ? experts / groups * top_groups : experts;
  if (top_k < 1 || top_k > available) fail(op, "top_k " + std::to_string(top_k) + " of " + std::to_string(available));
  return {experts, top_k, groups, top_groups, scoring == "softmax", noaux, grouped, noaux, normalize, scaling};
}

void route_token(const float* logits, const float* bias, const Router& router, int32_t* ids, float* weights) {
  Buffers buffers(router);
  route_token_in(logits, bias, router, buffers, ids, weights);
}

void register_router(const Exports& exports) {
  bind(exports, "route", route);
  bind(exports, "routeBackward", route_backward);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
