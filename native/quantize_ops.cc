// Online quantisation of activations and weights [TR §3.3.2], and the way back.
//
// Activations [M, K]: one scale per 1 x 128 tile along K, or the same for all tiles (kPerTensor). Floor: read 4 or 2 and write 1 byte an element.
// Weights [N, K]: one scale per 128 x 128 block, or per matrix; the codes go, widened to BF16, into the packed layout of gemm.h.
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "kernels.h"
#include "memory.h"
#include "operands.h"
#include "pool.h"
#include "tile_codec.h"
#include "turn.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr int kBlockSlot = 2;
/// Rows that one task quantises.
constexpr int64_t kRowGrain = 16;

/// Row m of x [M, K] in tiles.
template <int F, class Src>
void quantize_row(const Src* x, int64_t m, int64_t M, int64_t K, const ScaleRule& rule, void* codes, float* scales) {
  for (int64_t k = 0; k < K; k += kTile) {
    const float scale = K - k >= kTile ? quantize_tile<F>(x, m * K + k, kTile, rule, !scales, codes)
                                       : quantize_tile<F>(x, m * K + k, K - k, rule, !scales, codes);
    if (scales) scales[k / kTile * M + m] = scale;
  }
}

template <class Src>
void quantize_rows(const Src* x, int64_t M, int64_t K, int format, const ScaleRule& rule, void* codes, float* scales) {
  parallel_ranges(M, kRowGrain, [&](int64_t begin, int64_t end) {
    with_narrow(format, [&](auto tag) {
      constexpr int F = decltype(tag)::value;
      for (int64_t m = begin; m < end; ++m) quantize_row<F>(x, m, M, K, rule, codes, scales);
    });
  });
}

/// Elements that one task casts.
constexpr int64_t kCastGrain = 1 << 14;

template <class Dst, class Src>
void cast_all(Dst* dst, const Src* src, int64_t count) {
  parallel_ranges(count, kCastGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 16) store(dst + i, load(src + i, end - i), end - i);
  });
}

/// A float or BF16 matrix [rows, columns] as it lies, from element `first`.
Source plain(const Span& x, int64_t rows, int64_t columns, int64_t first = 0) {
  const bool narrow = x.dtype == DType::bf16;
  return {static_cast<const char*>(x.data) + first * (narrow ? 2 : 4), narrow ? kBf16 : kF32, nullptr, rows, columns, columns, kF32, {}};
}

/// quantize(x, M, K, format, scaleMode, codes, scales|null)
void quantize(Span x, int64_t M, int64_t K, int format, int mode, Span codes, Span scales) {
  constexpr const char* op = "quantize";
  check_format(op, format);
  check_sizes(op, M, K);
  codes.require(op, "codes", M * K, storage_of(format));
  float* scale_data = is_narrow(format) ? scales.optional<float>(op, "scales", (K + kTile - 1) / kTile * M) : nullptr;
  if (is_narrow(format) && !scale_data && (format != kE5m6 || !(mode & kScalePow2))) {
    fail(op, "scales may be left out only for e5m6 with power-of-two scales");
  }
  with_float_type(x, op, "x", M * K, [&](const auto* data) {
    if (is_narrow(format)) quantize_rows(data, M, K, format, rule_of(mode, plain(x, M, K)), codes.data, scale_data);
    else if (format == kBf16) cast_all(static_cast<bf16*>(codes.data), data, M * K);
    else cast_all(static_cast<float*>(codes.data), data, M * K);
  });
}

template <int F, class Dst>
void dequantize_rows(const void* codes, const float* scales, int64_t M, int64_t K, Dst* out) {
  parallel_ranges(M, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      for (int64_t k = 0; k < K; k += 16) {
        const float scale = scales ? scales[k / kTile * M + m] : 1.0f;
        store(out + m * K + k, load_codes<F>(codes, m * K + k, K - k) * scale, K - k);
      }
    }
  });
}

/// dequantize(codes, format, scales|null, out, M, K)
void dequantize(Span codes, int format, Span scales, Span out, int64_t M, int64_t K) {
  constexpr const char* op = "dequantize";
  check_format(op, format);
  check_sizes(op, M, K);
  codes.require(op, "codes", M * K, storage_of(format));
  const float* scale_data = scales.optional<float>(op, "scales", (K + kTile - 1) / kTile * M);
  if (is_byte(format) && !scale_data) fail(op, "8-bit codes need scales");
  with_float_type(out, op, "out", M * K, [&](auto* to) {
    with_format(format, [&](auto tag) { dequantize_rows<decltype(tag)::value>(codes.data, scale_data, M, K, to); });
  });
}

/// One row of x [.., K] in tiles of format F and back.
template <int F, class T>
void round_row(const T* x, T* out, int64_t K) {
  alignas(64) bf16 codes[kTile];  // E5M6 takes two bytes, the others one
  for (int64_t k = 0; k < K; k += kTile) {
    const int64_t count = std::min(kTile, K - k);
    const float scale = quantize_tile<F>(x + k, 0, count, ScaleRule{kScaleF32}, false, codes);
    for (int64_t i = 0; i < count; i += 16) store(out + k + i, load_codes<F>(codes, i, count - i) * scale, count - i);
  }
}

/// throughTiles(x, M, K, format, out): x rounded to a narrow format with an FP32 scale per 1 x 128 tile; both of one type
void through_tiles(Span x, int64_t M, int64_t K, int format, Span out) {
  constexpr const char* op = "throughTiles";
  check_format(op, format);
  check_sizes(op, M, K);
  if (!is_narrow(format)) fail(op, "only narrow formats have tiles");
  with_float_type(x, op, "x", M * K, [&](auto* from) {
    auto* to = out.as<std::remove_pointer_t<decltype(from)>>(op, "out", M * K);
    parallel_ranges(M, kRowGrain, [&](int64_t begin, int64_t end) {
      with_narrow(format, [&](auto tag) {
        for (int64_t m = begin; m < end; ++m) round_row<decltype(tag)::value>(from + m * K, to + m * K, K);
      });
    });
  });
}

// ---- Weights ------------------------------------------------------------------------------------------------

/// w [N, K] of one group, packed for contraction over K, or over N if `transpose`.
template <class Src>
struct Weight {
  const Src* data;
  int64_t N, K;
  bool transpose;
  int format;
  ScaleRule rule;

  int64_t columns() const { return transpose ? K : N; }
  int64_t depth() const { return transpose ? N : K; }
};

/// The block of w that starts at (n, k), rounded to format F and widened, to `block` [128][128]. Returns the scale.
template <int F, class Src>
float round_block(const Weight<Src>& w, int64_t n, int64_t k, int64_t rows, int64_t count, bool fold, bf16* block) {
  i32x16 largest = broadcast_int(0);
  for (int64_t r = 0; r < rows; ++r) largest = max(largest, magnitudes(w.data + (n + r) * w.K + k, count));
  const float scale = w.rule.scale(largest, F);
  const Divider divide(scale);
  for (int64_t r = 0; r < rows; ++r) {
    const Src* row = w.data + (n + r) * w.K + k;
    for (int64_t i = 0; i < count; i += 16) {
      const f32x16 grid = snap<F>(divide(load(row + i, count - i)));
      store(block + r * kTile + i, fold ? grid * scale : grid);
    }
  }
  return scale;
}

/// Packs the part of w that starts at (n, k), up to 128 x 128 and read from `src` with pitch `ld`.
template <class Dst, class Src, class From>
void pack_part(const Weight<Src>& w, int64_t n, int64_t k, int64_t rows, int64_t count, const From* src, int64_t ld, Dst* dst) {
  const int64_t column = w.transpose ? k : n, depth = w.transpose ? n : k;
  const int64_t columns = w.transpose ? count : rows, length = w.transpose ? rows : count;
  for (int64_t c = 0; c < columns; c += 16) {
    Dst* panel = dst + (column + c) / 16 * panel_elements<Dst>(w.depth()) + depth * 16;
    const int64_t width = std::min<int64_t>(16, columns - c);
    if (w.transpose) pack_panel_kn(panel, src + c, width, length, ld);
    else pack_panel_nk(panel, src + c * ld, width, length, ld);
  }
}

/// One 128 x 128 block of w to its place in the packed weight; scales [kblocks][round_up(columns, 16)].
template <class Src>
void pack_block(const Weight<Src>& w, int64_t n, int64_t k, void* dst, float* scales) {
  const int64_t rows = std::min(kTile, w.N - n), count = std::min(kTile, w.K - k);
  const Src* from = w.data + n * w.K + k;
  if (w.format == kF32) return pack_part(w, n, k, rows, count, from, w.K, static_cast<float*>(dst));
  if (w.format == kBf16) return pack_part(w, n, k, rows, count, from, w.K, static_cast<bf16*>(dst));
  bf16* block = scratch<bf16>(kBlockSlot, kTile * kTile);
  float scale = 1;
  with_narrow(w.format, [&](auto tag) { scale = round_block<decltype(tag)::value>(w, n, k, rows, count, !scales, block); });
  pack_part(w, n, k, rows, count, static_cast<const bf16*>(block), kTile, static_cast<bf16*>(dst));
  if (!scales) return;
  const int64_t column = w.transpose ? k : n, depth = w.transpose ? n : k;
  const int64_t padded = round_up(w.columns(), 16);
  float* to = scales + depth / kTile * padded + column;
  std::fill(to, to + std::min(kTile, padded - column), scale);
}

/// Elements of one group's packed weight: BF16, or float for f32.
int64_t packed_size(int64_t columns, int64_t depth, int format) {
  return format == kF32 ? packed_elements<float>(columns, depth) : packed_elements<bf16>(columns, depth);
}

/// packedBytes(columns, depth, format): bytes of one group's packed weight
double packed_bytes(int64_t columns, int64_t depth, int format) {
  check_format("packedBytes", format);
  check_sizes("packedBytes", columns, depth);
  return static_cast<double>(packed_size(columns, depth, format) * (format == kF32 ? 4 : 2));
}

/// packWeight(w, G, N, K, transpose, format, scaleMode, dst, scales|null)
void pack_weight(Span w, int64_t G, int64_t N, int64_t K, bool transpose, int format, int mode, Span dst, Span scales) {
  constexpr const char* op = "packWeight";
  check_format(op, format);
  check_sizes(op, N, K);
  const int64_t columns = transpose ? K : N, depth = transpose ? N : K;
  const int64_t group_elements = packed_size(columns, depth, format);
  const int64_t group_scales = (depth + kTile - 1) / kTile * round_up(columns, 16);
  dst.require(op, "dst", G * group_elements, format == kF32 ? DType::f32 : DType::bf16);
  float* scale_data = is_narrow(format) ? scales.optional<float>(op, "scales", G * group_scales) : nullptr;
  if (is_narrow(format) && !scale_data && !(mode & kScalePow2)) fail(op, "scales may be left out only where they are powers of two");
  const int64_t across = (K + kTile - 1) / kTile, blocks = (N + kTile - 1) / kTile * across;
  w.require(op, "w", G * N * K);
  std::vector<ScaleRule> rules;
  for (int64_t g = 0; g < G; ++g) rules.push_back(rule_of(is_narrow(format) ? mode : kScaleF32, plain(w, N, K, g * N * K)));
  with_float_type(w, op, "w", G * N * K, [&](const auto* data) {
    parallel_for(G * blocks, [&](int64_t index) {
      const int64_t g = index / blocks, block = index % blocks;
      const Weight<std::remove_cv_t<std::remove_pointer_t<decltype(data)>>> weight{data + g * N * K, N, K, transpose, format, rules[static_cast<size_t>(g)]};
      char* to = static_cast<char*>(dst.data) + g * group_elements * (format == kF32 ? 4 : 2);
      pack_block(weight, block / across * kTile, block % across * kTile, to, scale_data ? scale_data + g * group_scales : nullptr);
    });
  });
}

}  // namespace

void register_quantize(const Exports& exports) {
  bind(exports, "quantize", quantize);
  bind(exports, "dequantize", dequantize);
  bind(exports, "throughTiles", through_tiles);
  bind(exports, "packedBytes", packed_bytes);
  bind(exports, "packWeight", pack_weight);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
