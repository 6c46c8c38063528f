// Weights of inference where they lie: in mapped files or in memory of the backend, never copied for a call.
//
// A StoredWeight is G matrices [N, K] of one format (G > 1: experts, heads). Each is a list of pieces, runs of rows that
// lie together: gate_proj and up_proj, or q_a_proj and kv_a_proj, become one matrix without moving.
//
// A caller inside a task: prepare the tokens once, then take any rows of the matrix, on any thread.
//
//   Tokens tokens = prepare_tokens(w, x, ldx, rows, count, memory);      // memory: tokens_bytes(w, count), 64-byte aligned
//   project_rows(w, group, row, row_end, tokens, y, ldy, false);         // y[t * ldy + n] for n in [row, row_end)
//
// Both are single-threaded. A value y[t][n] depends on x[t] and row n alone: not on the other tokens, their number, or how the
// rows are cut, bit for bit. Cuts at multiples of kRowGrain of a piece cost nothing extra.
#pragma once

#include <vector>

#include "types.h"

namespace fathom {

/// As src/tensor/inference.ts numbers them. Layout of a piece with R rows:
///   fp32, bf16  [R, K]
///   fp8         E4M3 codes [R, K]; scales: f32 per 128 x 128 block of the tensor that the rows belong to [TR §3.3.2]
///   int8        codes -127..127 [R, K]; scales: f32 [R, ceil(K / 128)]
///   q4          panels [ceil(R / 16)][ceil(K / 64)] of kPanelBytes: 16 rows x 64 columns with their scales (below)
enum class WeightFormat : int { fp32, bf16, fp8, int8, q4 };

inline const char* weight_format_name(WeightFormat format) {
  static const char* names[] = {"fp32", "bf16", "fp8", "int8", "q4"};
  return names[static_cast<int>(format)];
}

/// Rows that the kernels take together.
constexpr int64_t kRowGrain = 16;

/// 16 rows by 64 columns of q4: codes 0 … 15, which stand for -8 … 7, then 2 x 16 scales. Byte i of line j (64 bytes each, 8 lines)
/// holds row i / 4, column 8 j + i % 4 in its low half, and the column 4 further in its high half. Scales: BF16, those of the
/// rows for columns 0-31, then for 32-63.
constexpr int64_t kPanelBytes = 16 * 32 + 2 * 16 * 2;

/// Rows of a matrix that lie together.
struct WeightPiece {
  const uint8_t* codes;
  const uint8_t* scales;  // null where the format has none of its own
  int64_t begin, end;     // rows of the matrix
  int64_t first;          // row of the tensor that the piece's first row is; fp8 blocks count from the tensor's
};

struct StoredWeight {
  uint32_t magic = kMagic;
  WeightFormat format;
  int64_t groups, n, k;
  std::vector<WeightPiece> pieces;  // of group 0, 1, …
  std::vector<int64_t> starts;      // [groups + 1]: where in `pieces` a group begins

  static constexpr uint32_t kMagic = 0x46575457;

  /// Bytes from one row of codes to the next; of q4, from one panel of 16 rows to the next.
  int64_t row_bytes() const {
    switch (format) {
      case WeightFormat::fp32: return 4 * k;
      case WeightFormat::bf16: return 2 * k;
      case WeightFormat::q4: return (k + 63) / 64 * kPanelBytes;
      default: return k;
    }
  }
};

/// Tokens in the form that the kernels of one format and instruction-set level read: blocks of 16, the last of what is left.
struct Tokens {
  int64_t count;
  const uint8_t* blocks;  // each 64-byte aligned
};

/// Tokens of a block.
constexpr int64_t kTokenBlock = 16;

namespace FATHOM_ISA_NS {

/// Bytes that prepare_tokens fills for `count` tokens; block i starts at i times the bytes of 16.
int64_t tokens_bytes(const StoredWeight& w, int64_t count);

/// Tokens x[rows[i] * ldx ...] (rows null: the first `count` rows), k values each, for project_rows of w or of any weight of the
/// same format and k. T: float, bf16. int8 and q4 quantise them to 8 bits, one scale per 128 columns.
/// @param memory tokens_bytes(w, count), 64-byte aligned
template <class T>
Tokens prepare_tokens(const StoredWeight& w, const T* x, int64_t ldx, const int32_t* rows, int64_t count, void* memory);

/// y[t * ldy + n] (+)= x[t] · W_group[n] for rows n in [row, row_end). T: float, bf16.
template <class T>
void project_rows(const StoredWeight& w, int64_t group, int64_t row, int64_t row_end, const Tokens& tokens, T* y, int64_t ldy,
                  bool accumulate);

/// Fetches the beginnings of rows [row, row_end) of a group, as project_rows will read them: call it before the rows that come
/// sooner are multiplied, so that memory has no pause between the two.
void fetch_rows(const StoredWeight& w, int64_t group, int64_t row, int64_t row_end);

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
