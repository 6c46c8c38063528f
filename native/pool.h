// A persistent thread pool with one operation: run fn(0) … fn(count - 1), each once, on any thread.
#pragma once

#include <cstdint>

namespace fathom {

/// CPUs that this process may run on (affinity mask on Linux).
int available_cpus();

/// Threads that parallel_for uses, the caller included. Default: available_cpus().
int threads();

/// Sets threads(); at least 1, at most 1024. Waits for running work.
void set_threads(int count);

/// Type-erased parallel_for.
void parallel_run(int64_t count, void (*call)(void* context, int64_t index), void* context);

/// Runs fn(index) for every index below count, and returns when all are done. Indices are claimed one by one in
/// ascending order, so results must not depend on which thread runs which. A nested call, or a call while
/// another JavaScript thread uses the pool, runs inline on the caller. fn must not throw.
template <class Fn>
void parallel_for(int64_t count, const Fn& fn) {
  auto call = [](void* context, int64_t index) { (*static_cast<const Fn*>(context))(index); };
  parallel_run(count, call, const_cast<void*>(static_cast<const void*>(&fn)));
}

/// Splits [0, total) into ranges of `grain` and runs fn(begin, end) for each.
template <class Fn>
void parallel_ranges(int64_t total, int64_t grain, const Fn& fn) {
  parallel_for((total + grain - 1) / grain, [&](int64_t index) {
    const int64_t begin = index * grain;
    fn(begin, begin + grain < total ? begin + grain : total);
  });
}

}  // namespace fathom
