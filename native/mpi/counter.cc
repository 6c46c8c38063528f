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

/// Looks before a thread goes to sleep: about a microsecond, as two ranks may share a core.
constexpr int kLooks = 200;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Whether `value` has reached `target` on a circle of 2^32.
bool reached(int32_t value, int32_t target) { return static_cast<int32_t>(static_cast<uint32_t>(value) - static_cast<uint32_t>(target)) >= 0; }

}  // namespace

void Counter::add(int32_t delta) const {
  __atomic_add_fetch(value, delta, __ATOMIC_ACQ_REL);
#if defined(__linux__)
  syscall(SYS_futex, value, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
#endif
}

bool Counter::wait(int32_t target, int milliseconds) const {
  for (int look = 0; look < kLooks; ++look, relax()) {
    if (reached(__atomic_load_n(value, __ATOMIC_ACQUIRE), target)) return true;
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (true) {
    const int32_t seen = __atomic_load_n(value, __ATOMIC_ACQUIRE);
    if (reached(seen, target)) return true;
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
#if defined(__linux__)
    const timespec limit{left / 1000000000, left % 1000000000};
    syscall(SYS_futex, value, FUTEX_WAIT, seen, &limit, nullptr, 0);
#else
    std::this_thread::sleep_for(std::chrono::microseconds(20));
#endif
  }
}

}  // namespace fathom
