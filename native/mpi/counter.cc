// Counts in shared memory: C++ atomics, and futexes to sleep on where Linux has them.
#include <ctime>

#include "engine.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fathom {

namespace {

/// How long a thread looks before it goes to sleep: waking costs 50 to 100 microseconds here, and whoever is waited for is usually
/// nearly as far. After so many looks, under a microsecond, it lets others have the core, ranks that share it above all.
constexpr auto kLookFor = std::chrono::microseconds(200);
constexpr int kLooksATurn = 16;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Whether the count has reached `target` on a circle of 2^32.
bool reached(const int32_t* value, int32_t target) {
  const int32_t seen = __atomic_load_n(value, __ATOMIC_ACQUIRE);
  return static_cast<int32_t>(static_cast<uint32_t>(seen) - static_cast<uint32_t>(target)) >= 0;
}

/// Looks for a while without sleeping; says whether the count has reached `target`.
bool look(const int32_t* value, int32_t target) {
  const auto until = std::chrono::steady_clock::now() + kLookFor;
  do {
    for (int i = 0; i < kLooksATurn; ++i, relax()) {
      if (reached(value, target)) return true;
    }
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

}  // namespace

void Counter::add(int32_t delta) const {
  __atomic_add_fetch(value, delta, __ATOMIC_SEQ_CST);
#if defined(__linux__)
  // Who goes to sleep says so first and looks once more, so that either sees the other.
  if (__atomic_load_n(sleepers(), __ATOMIC_SEQ_CST) != 0) syscall(SYS_futex, value, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
#endif
}

bool Counter::wait(int32_t target, int milliseconds) const {
  if (look(value, target)) return true;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (true) {
    const int32_t seen = __atomic_load_n(value, __ATOMIC_ACQUIRE);
    if (reached(&seen, target)) return true;
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
#if defined(__linux__)
    const timespec limit{left / 1000000000, left % 1000000000};
    __atomic_add_fetch(sleepers(), 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, value, FUTEX_WAIT, seen, &limit, nullptr, 0);
    __atomic_sub_fetch(sleepers(), 1, __ATOMIC_SEQ_CST);
#else
    std::this_thread::sleep_for(std::chrono::microseconds(20));
#endif
  }
}

}  // namespace fathom
