// The optimizer and the norm that clipping needs.
#include "kernels.h"
#include "memory.h"
#include "rows.h"
#include "simd.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

typedef float f32x8 __attribute__((vector_size(32)));
typedef double f64x8 __attribute__((vector_size(64)));

/// Elements of one partial sum: fixed, so that the order of additions is.
constexpr int64_t kSumChunk = int64_t{1} << 15;

/// Σ x² of up to kSumChunk elements, in f64.
template <class T>
double square_sum(const T* x, int64_t count) {
  f64x8 low = {}, high = {};
  each16(count, [&](int64_t i, auto n) {
    const f32x16 v = load(x + i, n);
    f32x8 halves[2];
    std::memcpy(halves, &v, sizeof(halves));
    const f64x8 a = __builtin_convertvector(halves[0], f64x8), b = __builtin_convertvector(halves[1], f64x8);
    low += a * a;
    high += b * b;
  });
  double sum = 0;
  for (int i = 0; i < 8; ++i) sum += low[i] + high[i];
  return sum;
}

/// out f32 [1] = Σ x²: partial sums of kSumChunk elements, added in order.
void sum_of_squares(const Span& x, const Span& out) {
  const auto count = static_cast<int64_t>(x.length);
  const int64_t chunks = (count + kSumChunk - 1) / kSumChunk;
  float* result = out.as<float>("sumOfSquares", "out", 1);
  double* partial = scratch<double>(8, chunks);
  with_float_type(x, "sumOfSquares", "x", count, [&](auto* data) {
    parallel_ranges(count, kSumChunk, [=](int64_t begin, int64_t end) {
      partial[begin / kSumChunk] = square_sum(data + begin, end - begin);
    });
  });
  double sum = 0;
  for (int64_t i = 0; i < chunks; ++i) sum += partial[i];
  *result = static_cast<float>(sum);
}

/// The step's constants as the inner loop wants them.
struct AdamW {
  float gradient_scale, beta1, beta2, rest1, rest2, epsilon;
  /// 1 / (1 − β1^t) and 1 / (1 − β2^t).
  float unbias1, unbias2;
  /// −lr and λ.
  float rate, decay;
};

template <class M>
void adamw_range(float* parameter, const float* gradient, M* m, M* v, const AdamW& s, int64_t count) {
  each16(count, [&](int64_t i, auto n) {
    const f32x16 g = load(gradient + i, n) * s.gradient_scale;
    const f32x16 mean = fma(load(m + i, n), s.beta1, g * s.rest1);
    const f32x16 square = fma(load(v + i, n), s.beta2, g * g * s.rest2);
    const f32x16 update = (mean * s.unbias1) / (sqrt(square * s.unbias2) + s.epsilon);
    store(m + i, mean, n);
    store(v + i, square, n);
    const f32x16 theta = load(parameter + i, n);
    store(parameter + i, fma(fma(theta, s.decay, update), s.rate, theta), n);
  });
}

/// parameter, gradient f32; m, v f32 or bf16. The update uses the moments before they are rounded for storage.
void adamw(const Span& parameter, const Span& gradient, const Span& m, const Span& v, double learning_rate, double beta1,
           double beta2, double epsilon, double weight_decay, double gradient_scale, double correction1, double correction2) {
  const char* op = "adamw";
  const auto count = static_cast<int64_t>(parameter.length);
  float* theta = parameter.as<float>(op, "parameter", count);
  const float* slope = gradient.as<float>(op, "gradient", count);
  const auto f = [](double x) { return static_cast<float>(x); };
  const AdamW step{f(gradient_scale), f(beta1), f(beta2), f(1 - beta1), f(1 - beta2), f(epsilon),
                   f(1 / correction1), f(1 / correction2), f(-learning_rate), f(weight_decay)};
  with_float_type(m, op, "m", count, [&](auto* first) {
    using M = std::decay_t<decltype(*first)>;
    M* second = v.as<M>(op, "v", count);
    parallel_ranges(count, kTaskElements, [=](int64_t begin, int64_t end) {
      adamw_range(theta + begin, slope + begin, first + begin, second + begin, step, end - begin);
    });
  });
}

}  // namespace

void register_optimizer(const Exports& exports) {
  bind(exports, "sumOfSquares", sum_of_squares);
  bind(exports, "adamw", adamw);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
