// GEMMs with the accumulator of Hopper's tensor core (hopper_gemm.h), for studies of what it costs a model. They take
// the operands of the fast GEMMs and widen them to FP32, a block at a time.
//
// No product may be fused with a sum here.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include <algorithm>
#include <vector>

#include "hopper_gemm.h"
#include "kernels.h"
#include "memory.h"
#include "pool.h"
#include "turn.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

// Scratch slots of this file; 3 to 5 are those of the other weight gradient.
constexpr int kLeftSlot = 3, kRightSlot = 4, kScaleSlot = 5, kRowsSlot = 6, kPanelsSlot = 7;

/// Rows and columns of a task.
constexpr int64_t kTaskRows = 64, kTaskColumns = 128;

/// Scales where there are none.
alignas(64) constexpr float kOnes[kTaskColumns] = {
#define FATHOM_ONES 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
    FATHOM_ONES, FATHOM_ONES, FATHOM_ONES, FATHOM_ONES, FATHOM_ONES, FATHOM_ONES, FATHOM_ONES, FATHOM_ONES
#undef FATHOM_ONES
};

/// An operand widened to FP32.
struct Widened {
  const float* data;
  MagnitudeRange range;
};

/// Panels of 16 columns, packed in BF16 pairs [depth / 2][16][2] each, to [panels][depth][16].
Widened widen_panels(const bf16* packed, int64_t panels, int64_t depth) {
  float* to = scratch<float>(kPanelsSlot, panels * depth * 16);
  Widened result{to, {}};
  for (int64_t i = 0; i < panels * depth / 2; ++i, packed += 32, to += 32) {
    const i32x16 pairs = load(reinterpret_cast<const int32_t*>(packed));
    const f32x16 even = float_of_bits(shift_left(pairs, 16)), odd = float_of_bits(pairs & static_cast<int32_t>(0xffff0000));
    store(to, even);
    store(to + 16, odd);
    result.range.add(even);
    result.range.add(odd);
  }
  return result;
}

/// `rows` rows of codes [.., K] from row `first`, to [rows][depth], zeros beyond K.
Widened widen_rows(const void* codes, int format, int64_t first, int64_t rows, int64_t K, int64_t depth) {
  float* to = scratch<float>(kRowsSlot, rows * depth);
  Widened result{to, {}};
  with_format(format, [&](auto tag) {
    for (int64_t r = 0; r < rows; ++r, to += depth) {
      for (int64_t k = 0; k < depth; k += 16) {
        const f32x16 x = k < K ? load_codes<decltype(tag)::value>(codes, (first + r) * K + k, K - k) : zero();
        store(to + k, x);
        result.range.add(x);
      }
    }
  });
  return result;
}

/// Runs a block and adds its sums to out, or writes them unless `accumulate`; `out` points at the block, rows `ldo` apart.
template <class Out>
void run_block(HopperOperands o, const Widened& a, const Widened& b, int64_t rows, int64_t columns, bool accumulate, Out* out,
               int64_t ldo) {
  o.a = a.data;
  o.b = b.data;
  hopper_block(o, rows, (columns + 15) / 16, a.range.suits(b.range), [&](int64_t row, int64_t panel, const float* sums) {
    Out* to = out + row * ldo + panel * 16;
    const int64_t count = columns - panel * 16;
    store(to, (accumulate ? load(to, count) : zero()) + load(sums), count);
  });
}

// ---- out = a · packed weight ---------------------------------------------------------------------------------

struct Task {
  int64_t group, row, row_end, column;
};

std::vector<Task> tasks_of(int64_t M, int64_t N, const int32_t* offsets, int64_t groups) {
  std::vector<Task> tasks;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = offsets ? offsets[g] : 0, end = offsets ? offsets[g + 1] : M;
    for (int64_t column = 0; column < N; column += kTaskColumns) {
      for (int64_t row = begin; row < end; row += kTaskRows) tasks.push_back({g, row, std::min(end, row + kTaskRows), column});
    }
  }
  return tasks;
}

/// hopperGemm(aCodes, aFormat, aScales|null, M, K, packed, bFormat, bScales|null, N, out, accumulate, offsets|null, whole,
/// promote): as gemm; `whole`: one register for all of K, else one per 128; `promote`: sums in FP32, else in FP22
void hopper_gemm(Span a, int a_format, Span a_scales, int64_t M, int64_t K, Span packed, int b_format, Span b_scales, int64_t N,
                 Span out, bool accumulate, Span offsets, bool whole, bool promote) {
  constexpr const char* op = "hopperGemm";
  check_format(op, a_format);
  check_format(op, b_format);
  check_sizes(op, M, K);
  check_sizes(op, M, N);
  if (a_format == kF32 || b_format == kF32) fail(op, "f32 operands do not pass through FP8 units");
  const int64_t groups = offsets ? static_cast<int64_t>(offsets.length) - 1 : 1, tiles = (K + kTile - 1) / kTile;
  const int64_t padded = round_up(N, 16), depth = packed_depth<bf16>(K), group_elements = packed_elements<bf16>(N, K);
  const int32_t* bounds = checked_offsets(op, offsets, M);
  a.require(op, "a", M * K, storage_of(a_format));
  const bf16* weight = packed.as<bf16>(op, "packed", groups * group_elements);
  const float* row_scales = a_scales.optional<float>(op, "aScales", tiles * M);
  const float* column_scales = b_scales.optional<float>(op, "bScales", groups * tiles * padded);
  const std::vector<Task> tasks = tasks_of(M, N, bounds, groups);
  with_float_type(out, op, "out", M * N, [&](auto* to) {
    parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
      const Task& t = tasks[static_cast<size_t>(i)];
      const int64_t columns = std::min(kTaskColumns, N - t.column);
      const bf16* panels = weight + t.group * group_elements + t.column / 16 * panel_elements<bf16>(K);
      const float* of_columns = column_scales ? column_scales + t.group * tiles * padded + t.column : kOnes;
      const HopperOperands o{nullptr, nullptr, depth, row_scales ? row_scales + t.row : kOnes, of_columns, row_scales ? M : 0,
                             column_scales ? padded : 0, whole ? depth : kTile, promote};
      run_block(o, widen_rows(a.data, a_format, t.row, t.row_end - t.row, K, depth), widen_panels(panels, (columns + 15) / 16, depth),
                t.row_end - t.row, columns, accumulate, to + t.row * N + t.column, N);
    });
  });
}

// ---- dw (+)= dyᵀ · x -----------------------------------------------------------------------------------------

/// Columns [column, column + width) of a source, a multiple of 128 from its first.
Source columns_of(Source s, int64_t column, int64_t width) {
  s.data = static_cast<const char*>(s.data) + column * s.element_bytes();
  s.columns = width;
  if (s.scales) s.scales += column / kTile * s.M;
  return s;
}

/// The left side of a chunk, tiles [N / 32][rows / 32][2][16][32], to [columns][depth].
Widened widen_tiles(const Chunk<bf16>& chunk, int64_t columns, int64_t depth) {
  float* to = scratch<float>(kRowsSlot, columns * depth);
  Widened result{to, {}};
  for (int64_t n = 0; n < columns; ++n) {
    const bf16* row = chunk.left + n / 32 * chunk.steps() * 1024 + n / 16 % 2 * 512 + n % 16 * 32;
    for (int64_t m = 0; m < depth; m += 16, to += 16) {
      const f32x16 x = load(row + m / 32 * 1024 + m % 32);
      store(to, x);
      result.range.add(x);
    }
  }
  return result;
}

/// The part of dw that rows [row, row_end) and these columns of dy and x give.
struct WgradTask {
  int64_t row, row_end;
  Source dy, x;
  float* out;
  int64_t ldo;

  void run(bool accumulate, bool whole, bool promote) const {
    const int64_t rows = row_end - row, depth = packed_depth<bf16>(rows), tiles = (rows + kTile - 1) / kTile;
    const int64_t left_columns = round_up(dy.columns, kBlock), right_columns = round_up(x.columns, kBlock);
    float* scales = scratch<float>(kScaleSlot, tiles * (left_columns + right_columns));
    std::fill(scales, scales + tiles * (left_columns + right_columns), 1.0f);
    const Chunk<bf16> chunk{rows, scratch<bf16>(kLeftSlot, left_columns * depth), scratch<bf16>(kRightSlot, packed_elements<bf16>(x.columns, rows)),
                            scales, scales + tiles * left_columns};
    turn(dy, chunk, Side::left, row, rows);
    turn(x, chunk, Side::right, row, rows);
    const HopperOperands o{nullptr, nullptr, depth, chunk.left_scales, chunk.right_scales, left_columns,
                           right_columns, whole ? depth : kTile, promote};
    run_block(o, widen_tiles(chunk, dy.columns, depth), widen_panels(chunk.right, (x.columns + 15) / 16, depth), dy.columns, x.columns,
              accumulate, out, ldo);
  }
};

std::vector<WgradTask> wgrad_tasks(const Source& dy, const Source& x, const int32_t* offsets, int64_t groups, float* dw) {
  std::vector<WgradTask> tasks;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = offsets ? offsets[g] : 0, end = offsets ? offsets[g + 1] : dy.M;
    for (int64_t n = 0; n < dy.columns; n += kTaskRows) {
      for (int64_t k = 0; k < x.columns; k += kTaskColumns) {
        const Source left = columns_of(dy, n, std::min(kTaskRows, dy.columns - n));
        const Source right = columns_of(x, k, std::min(kTaskColumns, x.columns - k));
        tasks.push_back({begin, end, left, right, dw + (g * dy.columns + n) * x.columns + k, x.columns});
      }
    }
  }
  return tasks;
}

/// hopperWgrad(dy, x codes, xFormat, xScales|null, M, N, K, dyFormat, dyMode, xFormat2, xMode2, dw, offsets|null, accumulate,
/// whole, promote): as gemmWgrad and hopperGemm
void hopper_wgrad(Span dy, Span x, int x_stored, Span x_scales, int64_t M, int64_t N, int64_t K, int dy_format, int dy_mode, int x_format,
                  int x_mode, Span dw, Span offsets, bool accumulate, bool whole, bool promote) {
  constexpr const char* op = "hopperWgrad";
  for (int format : {x_stored, dy_format, x_format}) check_format(op, format);
  check_sizes(op, M, N);
  check_sizes(op, M, K);
  if (dy_format == kF32 || x_format == kF32) fail(op, "f32 operands do not pass through FP8 units");
  const int64_t groups = offsets ? static_cast<int64_t>(offsets.length) - 1 : 1;
  const int32_t* bounds = checked_offsets(op, offsets, M);
  dy.require(op, "dy", M * N, dy.dtype == DType::bf16 ? DType::bf16 : DType::f32);
  x.require(op, "x", M * K, storage_of(x_stored));
  const float* scales = x_scales.optional<float>(op, "xScales", (K + kTile - 1) / kTile * M);
  Source left{dy.data, dy.dtype == DType::bf16 ? kBf16 : kF32, nullptr, M, N, N, dy_format, {}};
  Source right{x.data, x_stored, scales, M, K, K, x_format, {}};
  left.rule = rule_of(dy_mode, left);
  right.rule = rule_of(x_mode, right);
  std::vector<WgradTask> tasks = wgrad_tasks(left, right, bounds, groups, dw.as<float>(op, "dw", groups * N * K));
  // The longest first, as in gemmWgrad.
  std::stable_sort(tasks.begin(), tasks.end(), [](const WgradTask& a, const WgradTask& b) { return a.row_end - a.row > b.row_end - b.row; });
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) { tasks[static_cast<size_t>(i)].run(accumulate, whole, promote); });
}

}  // namespace

void register_hopper(const Exports& exports) {
  bind(exports, "hopperGemm", hopper_gemm);
  bind(exports, "hopperWgrad", hopper_wgrad);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
