// out = a · packed weight, dense or per expert group.
//
// Bytes, operations and floor, dense [M, K] x [K, N] in BF16: 2 M N K operations; a is read once and out written
// once (plus read for ownership), the packed weight stays in L2. At M 4096, N = K = 256: 0.54 GFLOP (0.155 ms of AMX)
// against 6 MB (0.14 ms at 29 GB/s into a reading core); both must overlap to reach either. Hence:
//   - a task is a run of rows; the weight's columns of the task fit in half of L2;
//   - 32 rows of a are in L1 while all columns pass; the next 32 rows are prefetched between tile products;
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

/// Bytes of packed weight that a task keeps in L2 (2 MB per core here; 1 MB and up elsewhere).
constexpr int64_t kWeightBytes = 1 << 20;
/// Longest piece of an unscaled BF16 contraction: 32 rows of it are 32 KB, within an L1 of 48 KB.
constexpr int64_t kPiece = 512;
/// Columns whose FP32 sums (32 rows, 32 KB) are kept between the pieces of a long contraction.
constexpr int64_t kSumColumns = 256;

/// One call: a [M, K] in `a_format`, packed B [G][K, N], out [M, N].
struct Problem {
  const void* a;
  int a_format;
  const float* a_scales;  // [ceil(K / 128)][M] or null
  int64_t M, K, N;
  const void* b;
  const float* b_scales;  // [G][ceil(K / 128)][round_up(N, 16)] or null
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

/// Runs one task, 32 rows at a time.
template <class T, class Out, bool Scaled>
class TaskRunner {
 public:
  TaskRunner(const Problem& p, const Task& t) : p_(p), t_(t) {
    pieces_ = Scaled ? p.tiles() : std::is_same_v<T, float> ? 1 : (p.K + kPiece - 1) / kPiece;
    piece_ = Scaled ? kTile : round_up((p.K + pieces_ - 1) / pieces_, 32);
    group_columns_ = !Scaled && pieces_ > 1 ? kSumColumns : kBlock;
    sums_ = scratch<float>(kSumSlot, group_columns_ * kBlock);
    tiles_ = scratch<T>(kTilesSlot, round_up(p.K, 32) * kBlock);
    b_ = static_cast<const T*>(p.b) + t.group * packed_elements<T>(p.N, p.K);
    b_scales_ = p.b_scales ? p.b_scales + t.group * p.tiles() * p.padded_columns() : nullptr;
    for (float& one : ones_) one = 1;
    begin_products();
  }

  void run() {
    for (int64_t row = t_.row; row < t_.row_end; row += kBlock) run_rows(row);
    chain_.drain();
  }

 private:
  int64_t rows_from(int64_t row) const { return std::min(kBlock, t_.row_end - row); }

  /// 32 rows of a: where they lie if the block product can read them there, else turned into tiles.
  Left<bf16> left(int64_t row, const bf16*) const {
    if (p_.a_format == kBf16 && rows_from(row) == kBlock && p_.K % 32 == 0 && p_.K <= kPiece) {
      return row_major(static_cast<const bf16*>(p_.a) + row * p_.K, p_.K);
    }
    fill_tiles(tiles_, p_.a, p_.a_format, row, rows_from(row), p_.K);
    return in_tiles(tiles_);
  }
  Left<float> left(int64_t row, const float*) const {
    const float* from = static_cast<const float*>(p_.a) + row * p_.K;
    if (rows_from(row) == kBlock) return row_major(from, p_.K);
    std::memset(tiles_, 0, static_cast<size_t>(kBlock * p_.K) * 4);
    std::memcpy(tiles_, from, static_cast<size_t>(rows_from(row) * p_.K) * 4);
    return row_major(static_cast<const float*>(tiles_), p_.K);
  }

  /// The fetch of the rows from `row`, spread over the products of those before.
  Prefetch next_rows(int64_t row) const {
    if (row >= t_.row_end) return {};
    const int64_t element = std::is_same_v<T, float> ? 4 : is_byte(p_.a_format) ? 1 : 2;
    const int64_t steps = (t_.column_end - t_.column + 31) / 32 * ((p_.K + 31) / 32);
    return {static_cast<const char*>(p_.a) + row * p_.K * element, rows_from(row) * p_.K * element, steps};
  }

  void run_rows(int64_t row) {
    const Left<T> a = left(row, static_cast<const T*>(nullptr));
    Prefetch next = next_rows(row + kBlock);
    for (int64_t from = t_.column; from < t_.column_end; from += group_columns_) {
      const int64_t to = std::min(t_.column_end, from + group_columns_);
      for (int64_t piece = 0; piece < pieces_; piece += kTogether) {
        for (int64_t column = from; column < to; column += kBlock) {
          describe(chain_.block(), row, column, piece, sums_ + (column - from) * kBlock);
          chain_.multiply(operands(a, column, piece), next);
        }
      }
    }
  }

  /// Pieces that one block takes.
  static constexpr int64_t kTogether = Scaled ? 2 : 1;

  Operands<T> operands(Left<T> a, int64_t column, int64_t piece) const {
    const int64_t k = piece * piece_;
    a.data += std::is_same_v<T, float> ? k : k / 32 * a.step;
    const T* b0 = b_ + column / 16 * panel_elements<T>(p_.K) + k * 16;
    const T* b1 = column + 16 < p_.N ? b0 + panel_elements<T>(p_.K) : b0;
    return {a, b0, b1, {steps_of_piece(piece), steps_of_piece(piece + 1)}};
  }
  int64_t steps_of_piece(int64_t piece) const { return steps_of<T>(std::min(p_.K - piece * piece_, piece_)); }

  /// How the block of these rows and columns is finished after the pieces from `piece`.
  void describe(Finish<Out, Scaled>& f, int64_t row, int64_t column, int64_t piece, float* sum) {
    f.sum = sum;
    f.pieces = std::min(kTogether, pieces_ - piece);
    for (int64_t i = 0; i < f.pieces; ++i) {
      f.row_scale[i] = p_.a_scales ? p_.a_scales + (piece + i) * p_.M + row : ones_;
      f.column_scale[i] = b_scales_ ? column_scales(b_scales_ + (piece + i) * p_.padded_columns(), column) : ones_;
    }
    f.out = static_cast<Out*>(p_.out) + row * p_.N + column;
    f.ldo = p_.N;
    f.rows = rows_from(row);
    f.columns = std::min(kBlock, p_.N - column);
    f.first = piece == 0;
    f.last = piece + f.pieces == pieces_;
    f.accumulate = p_.accumulate;
  }

  /// 32 scales; those of a lone last panel are copied to where 32 can be read. Four copies alternate, as some are pending.
  const float* column_scales(const float* scales, int64_t column) {
    if (column + kBlock <= p_.padded_columns()) return scales + column;
    float* copy = padded_scales_[turn_++ % 4];
    store(copy, load(scales + column));
    return copy;
  }

  const Problem& p_;
  const Task& t_;
  int64_t pieces_, piece_, group_columns_;
  float* sums_;
  T* tiles_;
  const T* b_;
  const float* b_scales_;
  BlockChain<T, Out, Scaled> chain_;
  uint32_t turn_ = 0;
  float ones_[kBlock];
  float padded_scales_[4][kBlock] = {};
};

/// Cuts the groups' rows and the columns into tasks; the same weight columns stay together.
std::vector<Task> tasks_of(const Problem& p, const int32_t* offsets, int64_t groups, int64_t element_bytes) {
  const int64_t fitting = std::max<int64_t>(kBlock, kWeightBytes / (p.K * element_bytes) / kBlock * kBlock);
  const int64_t wanted = 4 * threads();  // tasks, so that threads end together
  const int64_t row_step = std::min<int64_t>(512, std::max<int64_t>(64, round_up((p.M + wanted - 1) / wanted, kBlock)));
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
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    if constexpr (std::is_same_v<T, bf16>) {
      if (p.scaled()) return TaskRunner<T, Out, true>(p, tasks[i]).run();
    }
    TaskRunner<T, Out, false>(p, tasks[i]).run();
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
  const std::vector<Task> tasks = tasks_of(p, bounds, groups, b_format == kF32 ? 4 : 2);
  if (b_format == kF32) run_problem<float>(p, tasks, out.dtype);
  else run_problem<bf16>(p, tasks, out.dtype);
}

}  // namespace

void register_gemm(const Exports& exports) { bind(exports, "gemm", gemm); }

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
