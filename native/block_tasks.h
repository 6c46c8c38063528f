// What the ops that compute a whole block of a decoder layer share: rows of stored weights cut into tasks, and tokens that
// every thread prepares for itself.
//
// A block on few tokens is a chain of phases of some microseconds each. A phase is one parallel_for; what must stand
// before it and is small (a norm, tokens quantised for a weight) is not a phase of its own but done by every thread alone.
#pragma once

#include <algorithm>
#include <atomic>

#include "memory.h"
#include "pool.h"
#include "row_kernels.h"
#include "stored_weight.h"

namespace fathom {
namespace FATHOM_ISA_NS {

/// Scratch slots: of a call, owned by its thread and read by all; of each thread in a phase.
constexpr int kBlockSlot = 11, kOwnTokensSlot = 10, kOwnRowsSlot = 12;

/// Weights of one task at most, in bytes: long runs of memory. Tasks of 512 KB read 15 % faster than those of 128 KB (measured,
/// docs/performance.md); an expert is two or three of them.
constexpr int64_t kBlockTaskBytes = 1 << 19;

/// Rows [0, rows) in tasks of `step`, a multiple of kRowGrain; one for each thread at least where there are rows for it.
struct RowCut {
  RowCut(int64_t all_rows, int64_t bytes_of_row) : rows(all_rows) {
    const auto grains = [](int64_t n) { return n / kRowGrain * kRowGrain; };
    const int64_t fair = grains((rows + threads() - 1) / threads() + kRowGrain - 1);
    step = std::max(kRowGrain, std::min(fair, grains(kBlockTaskBytes / std::max<int64_t>(1, bytes_of_row))));
    tasks = (rows + step - 1) / step;
  }
  int64_t begin(int64_t task) const { return task * step; }
  int64_t end(int64_t task) const { return std::min(rows, (task + 1) * step); }
  int64_t rows, step, tasks;
};

/// Bytes of one row of codes.
inline int64_t weight_row_bytes(const StoredWeight& w) {
  return w.format == WeightFormat::q4 ? w.row_bytes() / kRowGrain : w.row_bytes();
}

/// Memory of a call in 64-byte aligned pieces; sized by a dry run of the same takes.
class BlockMemory {
 public:
  template <class T>
  T* take(int64_t count) {
    char* mine = base_ + used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return reinterpret_cast<T*>(mine);
  }
  int64_t used() const { return used_; }
  void use(void* base) {
    base_ = static_cast<char*>(base);
    used_ = 0;
  }

 private:
  char* base_ = nullptr;
  int64_t used_ = 0;
};

/// What each thread prepares once in a phase: make one before the phase and call `get` in its tasks.
class OncePerThread {
 public:
  OncePerThread() : id_(next().fetch_add(1) + 1) {}
  /// prepare(), or what it gave this thread in this phase already.
  template <class Prepare>
  const std::invoke_result_t<Prepare>& get(const Prepare& prepare) const {
    static thread_local uint64_t done = 0;
    static thread_local std::invoke_result_t<Prepare> result;
    if (done != id_) {
      result = prepare();
      done = id_;
    }
    return result;
  }

 private:
  static std::atomic<uint64_t>& next() {
    static std::atomic<uint64_t> counter{0};
    return counter;
  }
  const uint64_t id_;
};

/// The norm of rows x [M, D] as tokens of `w`, in memory of the calling thread.
inline Tokens normed_tokens(const StoredWeight& w, const float* x, int64_t ldx, int64_t M, const float* weight, int64_t width, float eps) {
  float* rows = scratch<float>(kOwnRowsSlot, M * width);
  for (int64_t m = 0; m < M; ++m) rms_norm_row(x + m * ldx, weight, width, eps, rows + m * width);
  return prepare_tokens(w, rows, width, nullptr, M, scratch_bytes(kOwnTokensSlot, tokens_bytes(w, M)));
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
