// RMSNorm and rotary position embedding. Legend: T tokens, D width of a row.
#include "kernels.h"
#include "memory.h"
#include "row_kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// Row ranges whose weight gradients are summed apart and then added in order: a fixed number, so that the sum does
/// not depend on the threads; enough for 64 of them.
constexpr int64_t kWeightChunks = 64;

/// x, y [T, D], weight f32 [D] -> y = x·r·weight, inverse f32 [T] = r.
void rms_norm(const Span& x, const Span& weight, float eps, const Span& y, const Span& inverse) {
  const char* op = "rmsNorm";
  const auto width = static_cast<int64_t>(weight.length);
  const int64_t rows = rows_of(x, width, op, "x");
  const float* gain = weight.as<float>(op, "weight", width);
  float* r = inverse.as<float>(op, "inverseRms", rows);
  with_float_type(x, op, "x", rows * width, [&](auto* in) {
    using T = std::decay_t<decltype(*in)>;
    T* out = y.as<T>(op, "y", rows * width);
    parallel_rows(rows, width, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        r[t] = rms_norm_row(in + t * width, gain, width, eps, out + t * width);
      }
    });
  });
}

/// One row: dx, and dweight += dy·x·r.
template <class T>
void rms_norm_backward_row(const T* dy, const T* x, const float* gain, float r, int64_t width, T* dx, float* dweight) {
  f32x16 sum = zero();
  each16(width, [&](int64_t i, auto n) {
    const f32x16 dy_hat = load(dy + i, n) * (load(x + i, n) * r);
    store(dweight + i, load(dweight + i, n) + dy_hat, n);
    sum = fma(dy_hat, load(gain + i, n), sum);
  });
  const float mean = hsum(sum) / static_cast<float>(width);
  write_mapped(dx, width, [=](int64_t i, auto n) {
    return r * (load(dy + i, n) * load(gain + i, n) - load(x + i, n) * (r * mean));
  });
}

/// dweight [D] += Σ partial [kWeightChunks, D], in order.
void add_chunks(const float* partial, int64_t width, float* dweight) {
  parallel_ranges(width, 1024, [=](int64_t begin, int64_t end) {
    each16(end - begin, [=](int64_t i, auto n) {
      f32x16 sum = zero();
      for (int64_t chunk = 0; chunk < kWeightChunks; ++chunk) sum += load(partial + chunk * width + begin + i, n);
      store(dweight + begin + i, load(dweight + begin + i, n) + sum, n);
    });
  });
}

/// With x̂ = x·r and g = dy·weight: dx = r·(g − x̂·mean(g·x̂)), dweight += Σ dy·x̂.
void rms_norm_backward(const Span& dy, const Span& x, const Span& weight, const Span& inverse, const Span& dx,
                       const Span& dweight) {
  const char* op = "rmsNormBackward";
  const auto width = static_cast<int64_t>(weight.length);
  const int64_t rows = rows_of(x, width, op, "x");
  const float* gain = weight.as<float>(op, "weight", width);
  const float* r = inverse.as<float>(op, "inverseRms", rows);
  float* total = dweight.as<float>(op, "dweight", width);
  with_float_type(x, op, "x", rows * width, [&](auto* in) {
    using T = std::decay_t<decltype(*in)>;
    const T* upstream = dy.as<T>(op, "dy", rows * width);
    T* out = dx.as<T>(op, "dx", rows * width);
    float* partial = scratch<float>(8, kWeightChunks * width);
    parallel_for(kWeightChunks, [=](int64_t chunk) {
      float* mine = partial + chunk * width;
      std::memset(mine, 0, static_cast<size_t>(width) * sizeof(float));
      for (int64_t t = rows * chunk / kWeightChunks; t < rows * (chunk + 1) / kWeightChunks; ++t) {
        const int64_t at = t * width;
        rms_norm_backward_row(upstream + at, in + at, gain, r[t], width, out + at, mine);
      }
    });
    add_chunks(partial, width, total);
  });
}

/// x [T, cols]: `heads` slices of `rope` values, `stride` apart, from `offset`, turned in place.
void rope(const Span& x, int64_t cols, const Span& table, const Span& positions, int64_t heads, int64_t stride,
          int64_t offset, int64_t width, bool interleaved, bool inverse) {
  const char* op = "rope";
  const int64_t rows = rows_of(x, cols, op, "x");
  const int32_t* position = positions.as<int32_t>(op, "positions", rows);
  const float* angles = table.as<float>(op, "table", 0);
  if (width < 2 || width % 2 != 0) fail(op, "rope must be even and positive, got " + std::to_string(width));
  if (heads < 1 || offset < 0 || stride < 0 || offset + (heads - 1) * stride + width > cols) fail(op, "slices leave the row");
  check_indices(position, rows, 0, rows_of(table, width, op, "table"), op, "positions");
  with_float_type(x, op, "x", rows * cols, [&](auto* data) {
    parallel_rows(rows, heads * width, [=](int64_t begin, int64_t end) {
      float* buffer = scratch<float>(9, 2 * width);
      const Angles angle{buffer, buffer + width};
      for (int64_t t = begin; t < end; ++t) {
        prepare_angles(angles + position[t] * width, width, interleaved, inverse ? -1.0f : 1.0f, angle);
        for (int64_t h = 0; h < heads; ++h) rotate(data + t * cols + offset + h * stride, width, interleaved, angle);
      }
    });
  });
}

}  // namespace

void register_norm(const Exports& exports) {
  bind(exports, "rmsNorm", rms_norm);
  bind(exports, "rmsNormBackward", rms_norm_backward);
  bind(exports, "rope", rope);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
