// Decoding on the latent cache with absorbed weights [V2 §2.1.2]: every head attends to the same cache rows, so the
// heads of one token are the rows of a matrix product. Long contexts are cut into parts that are combined in order.
#include "attention.h"
#include "kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// A context is cut into at most kParts parts of at least kPartKeys positions: enough for a few threads at one sequence.
/// The cut depends on nothing but the context, so a sequence decodes alike in every batch.
constexpr int64_t kContextParts = 16, kPartKeys = 256;

struct LatentDims {
  int64_t heads, latent, rope;
  float scale;
  int64_t depth() const { return latent + rope; }
};

template <class T>
struct LatentCall {
  LatentDims dims;
  const T *q, *cache;
  const int32_t* index;
  T* o;
};

/// Positions begin..end of row `row`, and where its unfinished softmax goes: sums [H, latent], top and mass [H].
struct Part {
  int64_t row, begin, end;
  float *sums, *top, *mass;
};

int64_t part_keys(int64_t length) {
  return std::max(kPartKeys, round_up((length + kContextParts - 1) / kContextParts, kKeyBlock));
}

/// The heads of one row against one part of its context.
template <class T>
class LatentPart {
 public:
  LatentPart(const LatentCall<T>& latent_call, const Part& its)
      : call(latent_call), d(latent_call.dims), part(its), depth(d.depth()), stride(round_up(depth, kBlock)),
        heads(round_up(d.heads, kRows)), memory(9, bytes()), soft(memory, heads, d.latent, d.scale) {
    queries = memory.take<T>(block_elements<T>(heads, depth));
    rows = memory.take<T>(kKeyBlock * stride);
    weights = memory.take<T>(kRows * kKeyBlock);
    scores = memory.take<float>(kRows * kKeyBlock);
    transposed = memory.take<float>(kRows * kKeyBlock);
    values = memory.take<T>(block_elements<T>(d.latent, kKeyBlock));
    pack_blocks_nk(queries, call.q + part.row * d.heads * depth, d.heads, depth, depth);
  }

  void run() {
    for (int64_t at = part.begin; at < part.end; at += kKeyBlock) {
      const int64_t count = std::min(kKeyBlock, part.end - at);
      const T* keys = gather(at, count);
      pack_blocks_kn(values, keys, count, d.latent, stride);
      for (int64_t head = 0; head < d.heads; head += kRows) attend(keys, head, count, at > part.begin);
    }
    for (int64_t h = 0; h < d.heads; ++h) {
      std::copy(soft.sums + h * soft.width, soft.sums + h * soft.width + d.latent, part.sums + h * d.latent);
    }
    for (int64_t h = 0; h < d.heads; h += 16) {
      store(part.top + h, load(soft.top + h), d.heads - h);
      store(part.mass + h, soft.totals(h), d.heads - h);
    }
  }

 private:
  size_t bytes() const {
    return OnlineSoftmax<T>::bytes(heads, d.latent) + Workspace::bytes_of<T>(block_elements<T>(heads, depth)) +
           Workspace::bytes_of<T>(kKeyBlock * stride) + Workspace::bytes_of<T>(kRows * kKeyBlock) +
           2 * Workspace::bytes_of<float>(kRows * kKeyBlock) + Workspace::bytes_of<T>(block_elements<T>(d.latent, kKeyBlock));
  }

  /// The cache rows of positions at .. at + count as a matrix [count32, stride]: where they lie, if they do so in one
  /// piece without need of filling up, else copied together.
  const T* gather(int64_t at, int64_t count) const {
    const T* first = call.cache + call.index[at] * depth;
    bool together = count % kBlock == 0 && depth == stride;
    for (int64_t i = 1; i < count && together; ++i) together = call.index[at + i] == call.index[at] + i;
    if (together) return first;
    for (int64_t i = 0; i < count; ++i) copy_padded(rows + i * stride, stride, 1, call.cache + call.index[at + i] * depth, depth, depth, 1);
    clear_rows(rows, stride, count, round_up(count, kBlock));
    return rows;
  }

  /// kRows heads from `head` against `count` positions. Scores are computed as keys·qᵀ, since the queries are packed
  /// once and the keys need no packing then.
  void attend(const T* keys, int64_t head, int64_t count, bool add) {
    const int64_t columns = round_up(count, kBlock), panel = panel_elements<T>(depth);
    multiply(columns, kRows, depth, keys, stride, queries + head / 16 * panel, panel, transposed, kRows, false);
    transpose_matrix(scores, kKeyBlock, transposed, kRows, columns, kRows);
    for (int64_t i = 0; i < kRows; ++i) soft.look(scores + i * kKeyBlock, head + i, count, columns);
    soft.raise(head);
    for (int64_t i = 0; i < kRows; ++i) {
      if (add) soft.rescale(head + i);
      soft.weigh(scores + i * kKeyBlock, weights + i * kKeyBlock, head + i, columns);
    }
    multiply(kRows, soft.width, count, weights, kKeyBlock, values, panel_elements<T>(count), soft.sums + head * soft.width, soft.width, add);
  }

  const LatentCall<T>& call;
  const LatentDims& d;
  const Part& part;
  const int64_t depth, stride, heads;
  Workspace memory;
  OnlineSoftmax<T> soft;
  T *queries, *rows, *weights;
  float *scores, *transposed;
  T* values;
};

/// o of one head of one row from its parts.
template <class T>
void combine(const LatentCall<T>& call, const Part* parts, int64_t count, int64_t head) {
  const int64_t latent = call.dims.latent;
  float top = kMasked, mass = 0;
  for (int64_t i = 0; i < count; ++i) top = std::max(top, parts[i].top[head]);
  float factor[kContextParts];
  for (int64_t i = 0; i < count; ++i) {
    factor[i] = std::exp2(parts[i].top[head] - top);
    mass += factor[i] * parts[i].mass[head];
  }
  T* out = call.o + (parts[0].row * call.dims.heads + head) * latent;
  each16(latent, [&](int64_t j, auto n) {
    f32x16 sum = zero();
    for (int64_t i = 0; i < count; ++i) sum = fma(load(parts[i].sums + head * latent + j, n), factor[i], sum);
    store(out + j, sum / broadcast(mass), n);
  });
}

/// The parts of rows first..last, with memory for their results.
std::vector<Part> make_parts(const LatentDims& d, const int32_t* bounds, int64_t first, int64_t last) {
  std::vector<Part> parts;
  for (int64_t b = first; b < last; ++b) {
    const int64_t step = part_keys(bounds[b + 1] - bounds[b]);
    for (int64_t at = bounds[b]; at < bounds[b + 1]; at += step) {
      parts.push_back({b, at, std::min<int64_t>(at + step, bounds[b + 1]), nullptr, nullptr, nullptr});
    }
  }
  float* memory = scratch<float>(8, static_cast<int64_t>(parts.size()) * d.heads * (d.latent + 2));
  for (Part& part : parts) {
    part.sums = memory;
    part.top = memory + d.heads * d.latent;
    part.mass = part.top + d.heads;
    memory = part.mass + d.heads;
  }
  return parts;
}

template <class T>
void attend_rows(const LatentCall<T>& call, const int32_t* bounds, int64_t first, int64_t last) {
  const LatentDims& d = call.dims;
  const std::vector<Part> parts = make_parts(d, bounds, first, last);
  parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t i) { LatentPart<T>(call, parts[i]).run(); });
  std::vector<int64_t> start(last - first + 1, 0);
  for (const Part& part : parts) ++start[part.row - first + 1];
  for (int64_t b = first; b < last; ++b) start[b - first + 1] += start[b - first];
  parallel_for((last - first) * d.heads, [&](int64_t i) {
    const int64_t row = i / d.heads, count = start[row + 1] - start[row];
    if (count == 0) return clear_rows(call.o + i * d.latent, d.latent, first * d.heads, first * d.heads + 1);
    combine(call, parts.data() + start[row], count, i % d.heads);
  });
}

/// q [B, H·(latent+rope)], cache [capacity, latent+rope], index i32 (cache rows), bounds i32 [B+1] -> o [B, H·latent].
void latent_attention(const Span& q, const Span& cache, const Span& index, const Span& bounds, int64_t heads, int64_t latent,
                      int64_t rope, float scale, const Span& o) {
  constexpr int64_t kRowsAtOnce = 16;
  const char* op = "latentAttention";
  const LatentDims d{heads, latent, rope, scale};
  const auto batch = static_cast<int64_t>(bounds.length) - 1;
  const int32_t* bound = bounds.as<int32_t>(op, "bounds", 1);
  const int32_t* rows = index.as<int32_t>(op, "index", 0);
  check_bounds(bound, batch + 1, static_cast<int64_t>(index.length), op, "bounds");
  const int64_t capacity = rows_of(cache, d.depth(), op, "cache");
  check_indices(rows + bound[0], bound[batch] - bound[0], 0, capacity, op, "index");
  with_float_type(o, op, "o", batch * heads * latent, [&](auto* out) {
    using T = std::decay_t<decltype(*out)>;
    const LatentCall<T> call{d, q.as<T>(op, "q", batch * heads * d.depth()), cache.as<T>(op, "cache", capacity * d.depth()), rows, out};
    for (int64_t b = 0; b < batch; b += kRowsAtOnce) attend_rows(call, bound, b, std::min(b + kRowsAtOnce, batch));
  });
}

}  // namespace

void register_latent_attention(const Exports& exports) { bind(exports, "latentAttention", latent_attention); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
