// dw[n, k] (+)= sum over m of dy[m, n] x[m, k], dense or per expert group.
//
// Both operands contract over their rows, so both are turned: dy into A tiles (dyᵀ), x into B panels. Narrow formats
// are quantised on the way in tiles of 128 x 1 along m, from each group's first row [TR §3.3.2]; what the forward pass
// saved is dequantised first. Quantising costs 0.8 cycles an element (AVX-512), more than the AMX multiplication where N
// and K are a few hundred, so every element is turned once: a task owns a slice of rows, all of N and K.
//
// A task takes its rows in chunks whose turned operands stay in L2, and adds each chunk's product to the FP32 output; the
// next chunk's rows are fetched beside the products. Floor at M 4096, N = K = 256, BF16: 4 MB read (0.14 ms at 29 GB/s) and
// 0.54 GFLOP (0.14 ms of AMX).
// Several slices of one group sum into buffers of their own, which are added in the order of the slices.
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "kernels.h"
#include "memory.h"
#include "pipeline.h"
#include "pool.h"
#include "turn.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr const char* kOp = "gemmWgrad";

constexpr int kLeftSlot = 3, kRightSlot = 4, kScaleSlot = 5;

/// Rows of a chunk: four tiles of 128, or one piece of an unscaled contraction (32 x 512 BF16 = 32 KB of L1).
constexpr int64_t kChunk = 512;
/// A slice has at least this many rows, so that its own sums pay, a part at least this many columns of dy.
constexpr int64_t kSliceRows = 1024, kPartColumns = 128;

struct Problem {
  Source dy, x;
  float* dw;  // [G][N][K]
  bool accumulate;

  int64_t N() const { return dy.columns; }
  int64_t K() const { return x.columns; }
  bool scaled() const { return is_narrow(dy.format) || is_narrow(x.format); }
};

/// Rows [row, row_end) of a group and columns [column, column_end) of dy; their product goes to these rows of out
/// [N][K], added to them unless `fresh`.
struct Slice {
  int64_t row, row_end, column, column_end;
  float* out;
  bool fresh;
};

template <class T, bool Scaled>
class SliceRunner {
  using Chain = BlockChain<T, float, Scaled ? Scaling::rows_and_columns : Scaling::none>;

 public:
  SliceRunner(const Problem& p, const Slice& slice) : slice_(slice), dy_(p.dy), x_(p.x) {
    dy_.data = static_cast<const char*>(dy_.data) + slice.column * dy_.element_bytes();
    dy_.columns = slice.column_end - slice.column;
    out_ = slice.out + slice.column * x_.columns;
  }

  void run() {
    begin_products();
    bool fresh = slice_.fresh;
    for (int64_t m = slice_.row; m < slice_.row_end; m += kChunk) {
      const Chunk<T> chunk = turned(m, std::min(kChunk, slice_.row_end - m));
      multiply(chunk, m + chunk.rows, fresh);
      fresh = false;
    }
    if (fresh) std::fill(out_, out_ + dy_.columns * x_.columns, 0.0f);
  }

 private:
  Chunk<T> turned(int64_t m, int64_t rows) const {
    const int64_t left_columns = round_up(dy_.columns, kBlock), right_columns = round_up(x_.columns, kBlock);
    const int64_t depth = packed_depth<T>(rows), tiles = (rows + kTile - 1) / kTile;
    float* scales = scratch<float>(kScaleSlot, tiles * (left_columns + right_columns));
    // Unscaled operands keep ones; of a lone last panel the missing columns too.
    std::fill(scales, scales + tiles * (left_columns + right_columns), 1.0f);
    Chunk<T> chunk{rows, scratch<T>(kLeftSlot, left_columns * depth), scratch<T>(kRightSlot, packed_elements<T>(x_.columns, rows)),
                   scales, scales + tiles * left_columns};
    if (left_columns > round_up(dy_.columns, 16) || std::is_same_v<T, float>) std::memset(static_cast<void*>(chunk.left), 0, static_cast<size_t>(left_columns * depth) * sizeof(T));
    turn(dy_, chunk, Side::left, m, rows);
    turn(x_, chunk, Side::right, m, rows);
    return chunk;
  }

  Left<bf16> left(const Chunk<bf16>& chunk, int64_t n, int64_t m) const {
    return in_tiles(chunk.left + n / 32 * chunk.steps() * 1024 + m / 32 * 1024);
  }
  Left<float> left(const Chunk<float>& chunk, int64_t n, int64_t m) const {
    return row_major(static_cast<const float*>(chunk.left + n * chunk.rows + m), chunk.rows);
  }

  /// The fetch of a source's rows from m, as many as a chunk has.
  Stream next_rows(const Source& s, int64_t m, int64_t steps) const {
    const int64_t bytes = s.element_bytes(), rows = std::min(kChunk, slice_.row_end - m);
    return {static_cast<const char*>(s.data) + m * s.pitch * bytes, rows, s.columns * bytes, s.pitch * bytes, steps};
  }

  /// Adds the chunk's product to the output and fetches the rows from `next_row` meanwhile.
  void multiply(const Chunk<T>& chunk, int64_t next_row, bool fresh) {
    const int64_t piece = Scaled ? kTile : kChunk;
    const int64_t all_steps = (dy_.columns + 31) / 32 * ((x_.columns + 31) / 32) * chunk.steps();
    Prefetch next{next_rows(dy_, next_row, all_steps), next_rows(x_, next_row, all_steps)};
    for (int64_t n = 0; n < dy_.columns; n += kBlock) {
      for (int64_t k = 0; k < x_.columns; k += kBlock) {
        for (int64_t m = 0; m < chunk.rows; m += piece * kTogether) {
          const T* b0 = chunk.right + k / 16 * panel_elements<T>(chunk.rows) + m * 16;
          const T* b1 = k + 16 < x_.columns ? b0 + panel_elements<T>(chunk.rows) : b0;
          const int64_t steps = steps_of<T>(std::min(piece, chunk.rows - m));
          const int64_t steps_after = chunk.rows > m + piece ? steps_of<T>(std::min(piece, chunk.rows - m - piece)) : 0;
          describe(chain_.block(), chunk, n, k, m, piece, fresh);
          chain_.multiply({left(chunk, n, m), b0, b1, {steps, steps_after}}, next);
        }
      }
    }
    chain_.drain();
  }

  /// Pieces that one block takes.
  static constexpr int64_t kTogether = Scaled ? 2 : 1;

  void describe(typename Chain::Block& f, const Chunk<T>& chunk, int64_t n, int64_t k, int64_t m, int64_t piece, bool fresh) {
    f.sum = sum_;
    f.pieces = m + piece < chunk.rows ? kTogether : 1;
    for (int64_t i = 0; i < f.pieces; ++i) {
      f.row_scale[i] = chunk.left_scales + (m / kTile + i) * round_up(dy_.columns, kBlock) + n;
      f.column_scale[i] = chunk.right_scales + (m / kTile + i) * round_up(x_.columns, kBlock) + k;
    }
    f.out = out_ + n * x_.columns + k;
    f.ldo = x_.columns;
    f.rows = std::min(kBlock, dy_.columns - n);
    f.columns = std::min(kBlock, x_.columns - k);
    f.first = m == 0;
    f.last = m + piece * kTogether >= chunk.rows;
    f.accumulate = !fresh;
  }

  const Slice& slice_;
  Source dy_, x_;
  float* out_;
  Chain chain_;
  alignas(64) float sum_[kBlock * kBlock];
};

/// How one call is cut into tasks.
struct Cut {
  std::vector<Slice> slices;
  /// Slices of rows per group. The first writes to dw, the others to buffers [per_group - 1][G][N][K] that are added to it.
  int64_t per_group = 1;
};

/// One task per group where there are enough groups. Else a group is cut into slices of rows, so that results depend on the
/// number of threads there and nowhere else; and if its rows are too few, into parts of columns too, which leaves every
/// sum as it was but turns x once per part (measured on four shapes: parts alone take up to 35 % longer).
Cut cut(const Problem& p, const int32_t* offsets, int64_t groups, std::vector<float>& buffers) {
  const int64_t wanted = (threads() + groups - 1) / groups;
  Cut result;
  result.per_group = std::max<int64_t>(1, std::min(wanted, p.dy.M / kSliceRows));
  const int64_t parts = std::max<int64_t>(1, std::min((wanted + result.per_group - 1) / result.per_group, p.N() / kPartColumns));
  const int64_t size = p.N() * p.K(), width = round_up((p.N() + parts - 1) / parts, kBlock);
  buffers.resize(static_cast<size_t>(groups * (result.per_group - 1) * size));
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = offsets ? offsets[g] : 0, end = offsets ? offsets[g + 1] : p.dy.M;
    const int64_t step = round_up((end - begin + result.per_group - 1) / result.per_group, kTile);
    for (int64_t i = 0; i < result.per_group; ++i) {
      float* out = i == 0 ? p.dw + g * size : buffers.data() + ((i - 1) * groups + g) * size;
      const int64_t row = std::min(end, begin + i * step), row_end = std::min(end, row + step);
      for (int64_t column = 0; column < p.N(); column += width) {
        result.slices.push_back({row, row_end, column, std::min(p.N(), column + width), out, i > 0 || !p.accumulate});
      }
    }
  }
  return result;
}

/// Adds the slices' sums to dw in order.
void add_slices(const Problem& p, const std::vector<float>& buffers, int64_t groups) {
  const int64_t size = groups * p.N() * p.K(), count = static_cast<int64_t>(buffers.size()) / size;
  parallel_ranges(size, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 16) {
      f32x16 sum = load(p.dw + i, end - i);
      for (int64_t s = 0; s < count; ++s) sum += load(buffers.data() + s * size + i, end - i);
      store(p.dw + i, sum, end - i);
    }
  });
}

/// The longest slices first: experts differ in size, and a long one started last would leave the other threads idle.
template <class T, bool Scaled>
void run_slices(const Problem& p, const Cut& cut) {
  std::vector<const Slice*> order;
  for (const Slice& slice : cut.slices) order.push_back(&slice);
  std::stable_sort(order.begin(), order.end(), [](const Slice* a, const Slice* b) { return a->row_end - a->row > b->row_end - b->row; });
  parallel_for(static_cast<int64_t>(order.size()), [&](int64_t i) { SliceRunner<T, Scaled>(p, *order[i]).run(); });
}

/// gemmWgrad(dy, x codes, xFormat, xScales|null, M, N, K, dyFormat, dyMode, xFormat2, xMode2, dw, offsets|null, accumulate)
void gemm_wgrad(Span dy, Span x, int x_stored, Span x_scales, int64_t M, int64_t N, int64_t K, int dy_format, int dy_mode,
                int x_format, int x_mode, Span dw, Span offsets, bool accumulate) {
  for (int format : {x_stored, dy_format, x_format}) check_format(kOp, format);
  check_sizes(kOp, M, N);
  check_sizes(kOp, M, K);
  if ((dy_format == kF32) != (x_format == kF32)) fail(kOp, "an f32 operand multiplies only with another f32 operand");
  const int64_t groups = offsets ? static_cast<int64_t>(offsets.length) - 1 : 1;
  const int32_t* bounds = checked_offsets(kOp, offsets, M);
  dy.require(kOp, "dy", M * N, dy.dtype == DType::bf16 ? DType::bf16 : DType::f32);
  x.require(kOp, "x", M * K, storage_of(x_stored));
  const float* scales = x_scales.optional<float>(kOp, "xScales", (K + kTile - 1) / kTile * M);
  Problem p{{dy.data, dy.dtype == DType::bf16 ? kBf16 : kF32, nullptr, M, N, N, dy_format, {}},
                  {x.data, x_stored, scales, M, K, K, x_format, {}},
                  dw.as<float>(kOp, "dw", groups * N * K),
                  accumulate};
  p.dy.rule = rule_of(dy_mode, p.dy);
  p.x.rule = rule_of(x_mode, p.x);
  std::vector<float> buffers;
  const Cut parts = cut(p, bounds, groups, buffers);
  if (dy_format == kF32) run_slices<float, false>(p, parts);
  else if (p.scaled()) run_slices<bf16, true>(p, parts);
  else run_slices<bf16, false>(p, parts);
  if (parts.per_group > 1) add_slices(p, buffers, groups);
}

}  // namespace

void register_wgrad(const Exports& exports) { bind(exports, "gemmWgrad", gemm_wgrad); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
