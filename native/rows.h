// Splitting row-wise and element-wise work into tasks and vectors.
#pragma once

#include <string>
#include <type_traits>

#include "pool.h"
#include "types.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Elements of one task: 128 KiB of f32, many times the cost of claiming a task and small enough to share out.
constexpr int64_t kTaskElements = int64_t{1} << 15;

/// Runs fn(begin, end) over ranges of rows that hold about kTaskElements elements each.
template <class Fn>
void parallel_rows(int64_t rows, int64_t width, const Fn& fn) {
  const int64_t grain = width < kTaskElements ? kTaskElements / (width > 0 ? width : 1) : 1;
  parallel_ranges(rows, grain, fn);
}

/// Runs body(i, n) for i = 0, 16, 32 … with n = 16 known at compile time, and once for what is left.
template <class Body>
FATHOM_INLINE void each16(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) body(i, std::integral_constant<int64_t, 16>{});
  if (i < count) body(i, count - i);
}

/// The number of rows of `span` as a matrix of `width` columns. @throws if it does not divide
inline int64_t rows_of(const Span& span, int64_t width, const char* op, const char* name) {
  const auto length = static_cast<int64_t>(span.length);
  if (width < 1 || length % width != 0) {
    fail(op, std::string(name) + " has " + std::to_string(length) + " elements, not a multiple of " + std::to_string(width));
  }
  return length / width;
}

/// Checks low <= index < high for all, so that a wrong index is an error and never a stray memory access.
inline void check_indices(const int32_t* index, int64_t count, int64_t low, int64_t high, const char* op, const char* name) {
  int32_t smallest = INT32_MAX, largest = INT32_MIN;
  for (int64_t i = 0; i < count; ++i) {
    smallest = index[i] < smallest ? index[i] : smallest;
    largest = index[i] > largest ? index[i] : largest;
  }
  if (count == 0 || (smallest >= low && largest < high)) return;
  fail(op, std::string(name) + " holds " + std::to_string(smallest < low ? smallest : largest) + ", outside [" +
               std::to_string(low) + ", " + std::to_string(high) + ")");
}

/// Checks that bounds [count] ascend within [0, high].
inline void check_bounds(const int32_t* bounds, int64_t count, int64_t high, const char* op, const char* name) {
  check_indices(bounds, count, 0, high + 1, op, name);
  for (int64_t i = 1; i < count; ++i) {
    if (bounds[i] < bounds[i - 1]) fail(op, std::string(name) + " descends at " + std::to_string(i));
  }
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
