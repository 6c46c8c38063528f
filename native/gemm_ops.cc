// out = a · packed weight, dense or per expert group.
//
// Bytes, operations and floor, dense [M, K] x [K, N] in BF16: 2 M N K operations; a is read once and out written
// once (plus read for ownership), the packed weight stays in L2. At M 4096, N = K = 256: 0.54 GFLOP (0.155 ms of AMX)
// against 6 MB (0.14 ms at 29 GB/s into a reading core); both must overlap to reach either. Hence:
//   - a task is a run of rows; the weight's columns of the task fit in half of L2;
//   - 32 rows of a are in L1 while all columns pass; the next 32 rows are fetched beside the tile products, and so is
//     the weight of the task that this thread will probably get next;
//   - a finished block is scaled, summed and converted to the output type while the next one multiplies.
// 8-bit operands are widened to BF16 tiles, 32 rows at a time; their products are taken in pieces of 128 of the
// contraction, and each piece is scaled and added to an FP32 sum ("promotion", [TR §3.3.2]).
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "kernels.h"
#include "memory.h"
#include "operands.h"
#include "pipeline.h"
#include "pool.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

constexpr const char* kOp = "gemm";

// Scratch slots of this file.
constexpr int kTilesSlot = 0, kSumSlot = 1;

/// Bytes of packed weight that a task keeps in L2 (2 MB per core here; 1 MB and up elsewhere), and of which as much is
/// fetched for the task after it.
constexpr int64_t kWeightBytes = 1 << 20, kNextWeightBytes = 1 << 19;
/// Longest stage of a BF16 contraction: 32 rows of it are 32 KB, within an L1 of 48 KB. A longer contraction is taken in
/// stages, each for all rows of the task, with the FP32 sums of kStageRows x kStageColumns (512 KB) in L2 between them.
constexpr int64_t kStageDepth = 512, kStageRows = 256, kStageColumns = 512;
/// Scaled contractions up to this depth are one stage: their sums then stay in L1.
constexpr int64_t kScaledDepth = 1024;

/// One call: a [M, K] in `a_format`, packed B [G][K, N], out [M, N].
struct Problem {
  const void* a;
  int a_format;
  const float* a_scales;  // [ceil(K / 128)][M] or null
  int64_t M, K, N;
  const void* b;
  const float* b_scales;  // [G][ceil(K / 128)][round_up(N, 16)] or null; one value per 128 columns
  void* out;
  bool accumulate;

  int64_t tiles() const { return (K + kTile - 1) / kTile; }
  int64_t padded_columns() const { return round_up(N, 16); }
  bool scaled() const { return a_scales || b_scales; }
};

/// Rows [row, row_end) times columns [column, column_end) of group `group`.
struct Task {
  int64_t group, row, row_end, column, column_end;
};

/// How the contraction of a problem is cut: stages of whole pieces; a piece is what one block product takes.
struct Cut {
  int64_t stages, stage_depth, piece_depth;

  Cut(const Problem& p, bool float_product) {
    const bool short_enough = float_product || p.K <= (p.scaled() ? kScaledDepth : kStageDepth);
    stages = short_enough ? 1 : (p.K + kStageDepth - 1) / kStageDepth;
    const int64_t unit = p.scaled() ? kTile : 32;
    stage_depth = stages == 1 ? p.K : round_up((p.K + stages - 1) / stages, unit);
    stages = (p.K + stage_depth - 1) / stage_depth;
    piece_depth = p.scaled() ? kTile : stage_depth;
  }
};

/// Runs one task, 32 rows at a time. `next` is the task that this thread will probably run after it, or null.
template <class T, class Out, bool Scaled>
class TaskRunner {
  using Chain = BlockChain<T, Out, Scaled ? Scaling::rows : Scaling::none>;

 public:
  TaskRunner(const Problem& p, const Task& t, const Task* next) : p_(p), t_(t), next_(next), cut_(p, std::is_same_v<T, float>) {
    sums_ = scratch<float>(kSumSlot, cut_.stages == 1 ? kBlock * kBlock : round_up(t.row_end - t.row, kBlock) * row_of_sums());
    tiles_ = scratch<T>(kTilesSlot, round_up(cut_.stage_depth, 32) * kBlock);
    b_ = weight(t);
    b_scales_ = p.b_scales ? p.b_scales + t.group * p.tiles() * p.padded_columns() : nullptr;
    begin_products();
  }

  void run() {
    for (int64_t k = 0; k < p_.K; k += cut_.stage_depth) {
      prefetch_.second = next_weight(k + cut_.stage_depth);
      for (int64_t row = t_.row; row < t_.row_end; row += kBlock) run_rows(row, k, std::min(p_.K, k + cut_.stage_depth));
    }
    chain_.drain();
  }

 private:
  int64_t rows_from(int64_t row) const { return std::min(kBlock, t_.row_end - row); }
  int64_t row_of_sums() const { return round_up(t_.column_end - t_.column, kBlock); }
  const T* weight(const Task& t) const { return static_cast<const T*>(p_.b) + t.group * packed_elements<T>(p_.N, p_.K); }

  /// Whether the block product can read rows of a where they lie. Not if they are 2 KB or a multiple apart: their lines
  /// would share few sets of L1.
  bool readable(int64_t row) const {
    return p_.a_format == kBf16 && rows_from(row) == kBlock && p_.K % 32 == 0 && p_.K % 1024 != 0 && cut_.stage_depth <= kStageDepth;
  }

  /// The part [k, k_end) of 32 rows of a: where it lies if the block product can read it there, else turned into tiles.
  Left<bf16> left(int64_t row, int64_t k, int64_t k_end, const bf16*) const {
    if (readable(row)) return row_major(static_cast<const bf16*>(p_.a) + row * p_.K + k, p_.K);
    fill_tiles(tiles_, p_.a, p_.a_format, row * p_.K + k, p_.K, rows_from(row), k_end - k);
    return in_tiles(tiles_);
  }
  Left<float> left(int64_t row, int64_t, int64_t, const float*) const {
    const float* from = static_cast<const float*>(p_.a) + row * p_.K;
    if (rows_from(row) == kBlock) return row_major(from, p_.K);
    std::memset(tiles_, 0, static_cast<size_t>(kBlock * p_.K) * 4);
    std::memcpy(tiles_, from, static_cast<size_t>(rows_from(row) * p_.K) * 4);
    return row_major(static_cast<const float*>(tiles_), p_.K);
  }

  /// Block steps that `rows` rows and a depth take.
  int64_t steps(int64_t rows, int64_t depth) const {
    return (rows + 31) / 32 * ((t_.column_end - t_.column + 31) / 32) * ((depth + 31) / 32);
  }

  /// The fetch of the part [k, k_end) of the 32 rows after `row`; after the last rows, of the next task's first.
  Stream next_rows(int64_t row, int64_t k, int64_t k_end) const {
    const int64_t element = std::is_same_v<T, float> ? 4 : is_byte(p_.a_format) ? 1 : 2;
    const bool last = row + kBlock >= t_.row_end;
    if (last && !next_) return {};
    const int64_t from = last ? next_->row : row + kBlock, end = last ? next_->row_end : t_.row_end;
    const char* at = static_cast<const char*>(p_.a) + (from * p_.K + k) * element;
    return {at, std::min(kBlock, end - from), (k_end - k) * element, p_.K * element, steps(kBlock, k_end - k)};
  }

  /// The fetch of the weight's next stage, from depth k; after the last stage, of the first that the next task reads, if
  /// it is another weight.
  Stream next_weight(int64_t k) const {
    const Task* t = k < p_.K ? &t_ : next_;
    if (!t || (k >= p_.K && t->group == t_.group && t->column == t_.column && cut_.stages == 1)) return {};
    const int64_t from = k < p_.K ? k : 0, depth = std::min(cut_.stage_depth, p_.K - from);
    const int64_t bytes = packed_depth<T>(depth) * 16 * static_cast<int64_t>(sizeof(T));
    const int64_t panels = std::min((t->column_end - t->column + 15) / 16, std::max<int64_t>(1, kNextWeightBytes / bytes));
    const T* at = weight(*t) + t->column / 16 * panel_elements<T>(p_.K) + from * 16;
    const int64_t pitch = panel_elements<T>(p_.K) * static_cast<int64_t>(sizeof(T));
    return {at, panels, bytes, pitch, steps(t_.row_end - t_.row, depth)};
  }

  void run_rows(int64_t row, int64_t k, int64_t k_end) {
    const Left<T> a = left(row, k, k_end, static_cast<const T*>(nullptr));
    prefetch_.first = next_rows(row, k, k_end);
    float* sum = sums_;
    if (cut_.stages > 1) sum += (row - t_.row) * row_of_sums();
    for (int64_t column = t_.column; column < t_.column_end; column += kBlock) {
      for (int64_t piece = k; piece < k_end; piece += kTogether * cut_.piece_depth) {
        describe(chain_.block(), row, column, piece, k_end, sum);
        chain_.multiply(operands(a, column, k, piece, k_end), prefetch_);
      }
      if (cut_.stages > 1) sum += kBlock * kBlock;
    }
  }

  /// Pieces that one block takes.
  static constexpr int64_t kTogether = Scaled ? 2 : 1;

  /// Operands of the pieces from depth `piece`; `a` starts at depth k.
  Operands<T> operands(Left<T> a, int64_t column, int64_t k, int64_t piece, int64_t k_end) const {
    a.data += std::is_same_v<T, float> ? piece - k : (piece - k) / 32 * a.step;
    const T* b0 = b_ + column / 16 * panel_elements<T>(p_.K) + piece * 16;
    const T* b1 = column + 16 < p_.N ? b0 + panel_elements<T>(p_.K) : b0;
    const int64_t first = std::min(cut_.piece_depth, k_end - piece);
    return {a, b0, b1, {steps_of<T>(first), steps_of<T>(std::min(cut_.piece_depth, k_end - piece - first))}};
  }

  /// How the block of these rows and columns is finished after the pieces from depth `piece`.
  void describe(typename Chain::Block& f, int64_t row, int64_t column, int64_t piece, int64_t k_end, float* sum) {
    f.sum = sum;
    f.pieces = piece + cut_.piece_depth < k_end ? kTogether : 1;
    f.out = static_cast<Out*>(p_.out) + row * p_.N + column;
    f.ldo = p_.N;
    f.rows = rows_from(row);
    f.columns = std::min(kBlock, p_.N - column);
    f.first = piece == 0;
    f.last = piece + f.pieces * cut_.piece_depth >= p_.K;
    f.accumulate = p_.accumulate;
    if constexpr (Scaled) scale(f, row, column, piece / kTile);
  }

  /// The scales of up to two tiles of the contraction: those of the rows times that of the weight, which is one for the
  /// whole block, as blocks of 128 columns have one.
  void scale(typename Chain::Block& f, int64_t row, int64_t column, int64_t tile) {
    turn_ ^= 1;  // those of the block before are still needed
    for (int64_t i = 0; i < f.pieces; ++i, ++tile) {
      const float weight = b_scales_ ? b_scales_[tile * p_.padded_columns() + column] : 1.0f;
      float* to = scales_[turn_][i];
      for (int64_t r = 0; r < f.rows; r += 16) {
        const f32x16 rows = p_.a_scales ? load(p_.a_scales + tile * p_.M + row + r, f.rows - r) : broadcast(1.0f);
        store(to + r, rows * weight);
      }
      f.row_scale[i] = to;
    }
  }

  const Problem& p_;
  const Task& t_;
  const Task* const next_;
  const Cut cut_;
  float* sums_;
  T* tiles_;
  const T* b_;
  const float* b_scales_;
  Prefetch prefetch_;
  Chain chain_;
  int turn_ = 0;
  float scales_[2][2][kBlock];
};

/// Cuts the groups' rows and the columns into tasks; the same weight columns stay together.
std::vector<Task> tasks_of(const Problem& p, const int32_t* offsets, int64_t groups, bool float_product) {
  const Cut cut(p, float_product);
  const int64_t column_bytes = cut.stage_depth * (float_product ? 4 : 2);
  const int64_t fitting = cut.stages > 1 ? kStageColumns : std::max<int64_t>(kBlock, kWeightBytes / column_bytes / kBlock * kBlock);
  const int64_t most_rows = cut.stages > 1 ? kStageRows : 512;
  const int64_t wanted = 4 * threads();  // tasks, so that threads end together
  const int64_t row_step = std::min(most_rows, std::max<int64_t>(64, round_up((p.M + wanted - 1) / wanted, kBlock)));
  int64_t columns = std::min(round_up(p.N, kBlock), fitting);
  const int64_t row_tasks = (p.M + row_step - 1) / row_step;
  if (row_tasks < wanted) columns = std::min(columns, std::max<int64_t>(kBlock, round_up(p.N * row_tasks / wanted, kBlock)));
  std::vector<Task> tasks;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = offsets ? offsets[g] : 0, end = offsets ? offsets[g + 1] : p.M;
    for (int64_t column = 0; column < p.N; column += columns) {
      for (int64_t row = begin; row < end; row += row_step) {
        tasks.push_back({g, row, std::min(end, row + row_step), column, std::min(p.N, column + columns)});
      }
    }
  }
  return tasks;
}

template <class T, class Out>
void run_tasks(const Problem& p, const std::vector<Task>& tasks) {
  const int64_t count = static_cast<int64_t>(tasks.size()), stride = threads();
  parallel_for(count, [&](int64_t i) {
    // Threads at one speed take every stride-th task.
    const Task* next = i + stride < count ? &tasks[i + stride] : nullptr;
    if constexpr (std::is_same_v<T, bf16>) {
      if (p.scaled()) return TaskRunner<T, Out, true>(p, tasks[i], next).run();
    }
    TaskRunner<T, Out, false>(p, tasks[i], next).run();
  });
}

template <class T>
void run_problem(const Problem& p, const std::vector<Task>& tasks, DType out) {
  if (out == DType::bf16) run_tasks<T, bf16>(p, tasks);
  else run_tasks<T, float>(p, tasks);
}

/// gemm(aCodes, aFormat, aScales|null, M, K, packed, bFormat, bScales|null, N, out, accumulate, offsets|null)
void gemm(Span a, int a_format, Span a_scales, int64_t M, int64_t K, Span packed, int b_format, Span b_scales, int64_t N,
          Span out, bool accumulate, Span offsets) {
  check_format(kOp, a_format);
  check_format(kOp, b_format);
  if ((a_format == kF32) != (b_format == kF32)) fail(kOp, "an f32 operand multiplies only with another f32 operand");
  if (M < 0 || K < 1 || N < 1) fail(kOp, "sizes must be positive: M " + std::to_string(M) + ", K " + std::to_string(K) + ", N " + std::to_string(N));
  const int64_t groups = offsets ? static_cast<int64_t>(offsets.length) - 1 : 1;
  const int32_t* bounds = checked_offsets(kOp, offsets, M);
  a.require(kOp, "a", M * K, storage_of(a_format));
  const DType element = b_format == kF32 ? DType::f32 : DType::bf16;
  packed.require(kOp, "packed", groups * (b_format == kF32 ? packed_elements<float>(N, K) : packed_elements<bf16>(N, K)), element);
  if (out.dtype != DType::bf16) out.require(kOp, "out", M * N, DType::f32);
  out.require(kOp, "out", M * N);
  Problem p{a.data, a_format, nullptr, M, K, N, packed.data, nullptr, out.data, accumulate};
  p.a_scales = a_scales.optional<float>(kOp, "aScales", p.tiles() * M);
  p.b_scales = b_scales.optional<float>(kOp, "bScales", groups * p.tiles() * p.padded_columns());
  if (p.scaled() && b_format == kF32) fail(kOp, "f32 operands have no scales");
  const std::vector<Task> tasks = tasks_of(p, bounds, groups, b_format == kF32);
  if (b_format == kF32) run_problem<float>(p, tasks, out.dtype);
  else run_problem<bf16>(p, tasks, out.dtype);
}

}  // namespace

void register_gemm(const Exports& exports) { bind(exports, "gemm", gemm); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
