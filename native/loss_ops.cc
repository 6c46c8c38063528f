// Both ends of the network: embedding, cross-entropy, and what choosing the next token begins with.
// Legend: T tokens, R rows of logits, V vocabulary, D hidden size.
#include "fast_math.h"
#include "kernels.h"
#include "rows.h"
#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// ids i32 [T], table f32 [V, D] -> y [T, D].
void embedding(const Span& ids, const Span& table, const Span& y, int64_t width) {
  const char* op = "embedding";
  const int64_t tokens = rows_of(y, width, op, "y");
  const int64_t vocabulary = rows_of(table, width, op, "table");
  const int32_t* id = ids.as<int32_t>(op, "ids", tokens);
  const float* rows = table.as<float>(op, "table", vocabulary * width);
  check_indices(id, tokens, 0, vocabulary, op, "ids");
  with_float_type(y, op, "y", tokens * width, [&](auto* out) {
    parallel_rows(tokens, width, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        each16(width, [&](int64_t i, auto n) { store(out + t * width + i, load(rows + id[t] * width + i, n), n); });
      }
    });
  });
}

/// dtable[ids[t]] += dy[t], in the order of the tokens. Tasks are blocks of columns: a row may occur many times.
void embedding_backward(const Span& ids, const Span& dy, const Span& dtable, int64_t width) {
  constexpr int64_t kColumns = 32;
  const char* op = "embeddingBackward";
  const int64_t tokens = rows_of(dy, width, op, "dy");
  const int64_t vocabulary = rows_of(dtable, width, op, "dtable");
  const int32_t* id = ids.as<int32_t>(op, "ids", tokens);
  float* rows = dtable.as<float>(op, "dtable", vocabulary * width);
  check_indices(id, tokens, 0, vocabulary, op, "ids");
  with_float_type(dy, op, "dy", tokens * width, [&](auto* upstream) {
    parallel_ranges(width, kColumns, [=](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < tokens; ++t) {
        float* row = rows + id[t] * width + begin;
        each16(end - begin, [&](int64_t i, auto n) {
          store(row + i, load(row + i, n) + load(upstream + t * width + begin + i, n), n);
        });
      }
    });
  });
}

constexpr double kLog2E64 = 1.4426950408889634074;

/// Logits that are read from memory once: their maximum and their sum are taken while they are in the L1 cache.
constexpr int64_t kChunk = 4096;

/// Largest of count logits; NaN elements are passed over.
float maximum(const float* x, int64_t count) {
  f32x16 top = broadcast(-std::numeric_limits<float>::infinity());
  each16(count, [&](int64_t i, auto n) {
    if constexpr (std::is_same_v<decltype(n), int64_t>) {
      for (int64_t j = 0; j < n; ++j) top = max(broadcast(x[i + j]), top);
    } else {
      top = max(load(x + i), top);
    }
  });
  return hmax(top);
}

/// Σ 2^(x·log2(e) − shift).
float exponential_sum(const float* x, int64_t count, float shift) {
  const f32x16 less = broadcast(-shift);
  f32x16 sums[2] = {zero(), zero()};
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    for (int64_t j = 0; j < 2; ++j) sums[j] += exp2<float>(fma(load(x + i + 16 * j), kLog2E, less));
  }
  float sum = hsum(sums[0] + sums[1]);
  for (; i < count; ++i) sum += std::exp2(std::fma(x[i], kLog2E, -shift));
  return sum;
}

/// The softmax's denominator of one row in two parts: Σ exp(x) = mass · 2^top.
struct RowMass {
  float top;
  double mass;
};

/// One pass over the row, rescaling the running sum when a chunk raises the maximum. Not a number if any logit is.
RowMass row_mass(const float* x, int64_t count) {
  RowMass row{-std::numeric_limits<float>::infinity(), 0};
  for (int64_t at = 0; at < count; at += kChunk) {
    const int64_t n = count - at < kChunk ? count - at : kChunk;
    const float top = std::fmax(row.top, maximum(x + at, n) * kLog2E);
    const double kept = row.mass == 0 ? 0 : row.mass * std::exp2(static_cast<double>(row.top) - top);
    row = {top, kept + exponential_sum(x + at, n, top)};
  }
  return row;
}

template <class T>
void softmax_gradient(const float* x, int64_t count, const RowMass& row, int64_t target, float scale, T* out) {
  const f32x16 factor = broadcast(static_cast<float>(scale / row.mass)), less = broadcast(-row.top);
  const double wanted = std::exp2(static_cast<double>(x[target]) * kLog2E64 - row.top) / row.mass;
  write_mapped(out, count, [=](int64_t i, auto n) { return exp2<T>(fma(load(x + i, n), kLog2E, less)) * factor; });
  out[target] = from_f32<T>(static_cast<float>((wanted - 1) * scale));
}

template <class T>
void cross_entropy_rows(const float* logits, const int32_t* target, int64_t rows, int64_t width, float* loss, T* gradient,
                        float scale) {
  parallel_rows(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* x = logits + t * width;
      T* out = gradient ? gradient + t * width : nullptr;
      if (target[t] < 0) {
        loss[t] = 0;
        if (out) std::memset(static_cast<void*>(out), 0, static_cast<size_t>(width) * sizeof(T));
        continue;
      }
      const RowMass row = row_mass(x, width);
      loss[t] = static_cast<float>(std::log(row.mass) + row.top / kLog2E64 - x[target[t]]);
      if (out) softmax_gradient(x, width, row, target[t], scale, out);
    }
  });
}

/// logits f32 [T, V], targets i32 [T] (negative: ignored) -> losses f32 [T], dlogits [T, V] where given.
void cross_entropy(const Span& logits, const Span& targets, const Span& losses, const Span& dlogits, int64_t width,
                   float scale) {
  const char* op = "crossEntropy";
  const int64_t rows = rows_of(logits, width, op, "logits");
  const float* x = logits.as<float>(op, "logits", rows * width);
  const int32_t* target = targets.as<int32_t>(op, "targets", rows);
  float* loss = losses.as<float>(op, "losses", rows);
  check_indices(target, rows, INT32_MIN, width, op, "targets");
  if (!dlogits) return cross_entropy_rows<float>(x, target, rows, width, loss, nullptr, scale);
  with_float_type(dlogits, op, "dlogits", rows * width, [&](auto* gradient) {
    cross_entropy_rows(x, target, rows, width, loss, gradient, scale);
  });
}

/// Index of the largest of count logits, the first of several; 0 where all are NaN.
int32_t first_largest(const float* x, int64_t count) {
  float top = -std::numeric_limits<float>::infinity();
  int64_t at = 0;
  for (int64_t chunk = 0; chunk < count; chunk += kChunk) {
    const float here = maximum(x + chunk, std::min(kChunk, count - chunk));
    if (here > top) {
      top = here;
      at = chunk;
    }
  }
  while (at < count && x[at] != top) ++at;
  return static_cast<int32_t>(at < count ? at : 0);
}

/// logits f32 [R, V] -> index i32 [R].
void argmax(const Span& logits, const Span& index) {
  const auto rows = static_cast<int64_t>(index.length);
  const int64_t width = rows > 0 ? static_cast<int64_t>(logits.length) / rows : 0;
  const float* x = logits.as<float>("argmax", "logits", rows * width);
  int32_t* out = index.as<int32_t>("argmax", "index", rows);
  parallel_rows(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) out[r] = first_largest(x + r * width, width);
  });
}

/// out = exp((x − peak) / temperature); returns their sum. Not a number if any logit is, or the peak is infinite.
double softmax_row(const float* x, int64_t count, float peak, double temperature, float* out) {
  const f32x16 factor = broadcast(static_cast<float>(kLog2E64 / temperature)), top = broadcast(peak);
  double total = 0;
  for (int64_t at = 0; at < count; at += kChunk) {
    const int64_t n = std::min(kChunk, count - at);
    write_mapped(out + at, n, [=](int64_t i, auto m) { return exp2<float>((load(x + at + i, m) - top) * factor); });
    f32x16 sum = zero();
    each16(n, [&](int64_t i, auto m) { sum += load(out + at + i, m); });
    total += hsum(sum);
  }
  return total;
}

/// logits f32 [R, V] -> weights f32 [R, V], sums f32 [R, 2]: the largest logit and the sum of the weights.
void softmax_weights(const Span& logits, double temperature, const Span& weights, const Span& sums) {
  const char* op = "softmaxWeights";
  const int64_t rows = rows_of(sums, 2, op, "sums");
  const int64_t width = rows > 0 ? static_cast<int64_t>(logits.length) / rows : 0;
  const float* x = logits.as<float>(op, "logits", rows * width);
  float* y = weights.as<float>(op, "weights", rows * width);
  float* out = sums.as<float>(op, "sums", rows * 2);
  parallel_rows(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      out[2 * r] = maximum(x + r * width, width);
      out[2 * r + 1] = static_cast<float>(softmax_row(x + r * width, width, out[2 * r], temperature, y + r * width));
    }
  });
}

}  // namespace

void register_loss(const Exports& exports) {
  bind(exports, "embedding", embedding);
  bind(exports, "embeddingBackward", embedding_backward);
  bind(exports, "crossEntropy", cross_entropy);
  bind(exports, "argmax", argmax);
  bind(exports, "softmaxWeights", softmax_weights);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
