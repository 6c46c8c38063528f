// Attention on the latent cache as an op of its own.
#include "kernels.h"
#include "latent_attention.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// q [B, H·(latent+rope)] on pages -> o [B, H·latent].
void latent_attention(const Span& q, const Span& data, int format, int64_t latent, int64_t rope, const Span& bounds,
                      const Span& lengths, const Span& pages, const Span& page_bounds, int64_t heads, float scale, const Span& o) {
  const char* op = "latentAttention";
  if (heads < 1) fail(op, "sizes must be positive");
  const LatentPages cache = latent_pages(data, format, latent, rope, op);
  const LatentRows rows = latent_rows(bounds, lengths, pages, page_bounds, cache.count, op);
  const int64_t count = rows.bounds[rows.sequences];
  with_float_type(o, op, "o", count * heads * latent, [&](auto* out) {
    using Q = std::decay_t<decltype(*out)>;
    const LatentCall<Q> call{cache, rows, heads, scale, q.as<Q>(op, "q", count * heads * (latent + rope)), out};
    const LatentJob<Q> job(call);
    parallel_for(job.count(), [&](int64_t i) { job.run(i); });
    parallel_for(job.merges(), [&](int64_t i) { job.merge(i); });
  });
}

}  // namespace

LatentRows latent_rows(const Span& bounds, const Span& lengths, const Span& pages, const Span& page_bounds, int64_t page_count,
                       const char* op) {
  const auto sequences = static_cast<int64_t>(lengths.length);
  const LatentRows rows{sequences, bounds.as<int32_t>(op, "bounds", sequences + 1), lengths.as<int32_t>(op, "lengths", 0),
                        pages.as<int32_t>(op, "pages", 0), page_bounds.as<int32_t>(op, "pageBounds", sequences + 1)};
  check_bounds(rows.bounds, sequences + 1, INT32_MAX - 1, op, "bounds");
  check_bounds(rows.page_bounds, sequences + 1, static_cast<int64_t>(pages.length), op, "pageBounds");
  check_indices(rows.pages, static_cast<int64_t>(pages.length), 0, page_count, op, "pages");
  check_indices(rows.lengths, sequences, 0, INT32_MAX, op, "lengths");
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t tokens = rows.lengths[s] + rows.bounds[s + 1] - rows.bounds[s];
    const int64_t own = rows.page_bounds[s + 1] - rows.page_bounds[s];
    if (rows.bounds[s] < rows.bounds[s + 1] && tokens > own * kPageTokens) {
      fail(op, "sequence " + std::to_string(s) + " has " + std::to_string(tokens) + " tokens but " + std::to_string(own) + " pages");
    }
  }
  return rows;
}

void register_latent_attention(const Exports& exports) { bind(exports, "latentAttention", latent_attention); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
