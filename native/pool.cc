#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fathom {

namespace {

thread_local bool inside_pool = false;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// How long an idle worker polls before it sleeps. Kernels of one training step follow each other within
/// microseconds; a futex wake-up costs about 50 us on a virtual machine.
constexpr auto kSpin = std::chrono::microseconds(50);

/// A worker that has run so long without a pause offers its core to others between two jobs: less than a slice of the system's
/// scheduler, which would otherwise take the core in the middle of an index, and the caller would wait for it.
constexpr auto kTurn = std::chrono::microseconds(1000);

/// The pool. One job at a time. `open_` holds the ticket of the job that may be joined (number * 2048 + helpers
/// wanted) or 0. A worker announces itself in `active_`, checks that its ticket is still open, and claims indices
/// until none is left. The caller closes the ticket when it finds no index left and waits for `active_` to
/// fall to 0, so a worker that is still asleep is never waited for.
class Pool {
 public:
  int size() const { return size_.load(std::memory_order_relaxed); }

  void resize(int count) {
    std::lock_guard<std::mutex> job(job_mutex_);
    size_.store(count < 1 ? 1 : count > 1024 ? 1024 : count);
    while (started_ < size() - 1) std::thread([this, id = ++started_] { work(id); }).detach();
  }

  void run(int64_t count, void (*call)(void*, int64_t), void* context) {
    std::unique_lock<std::mutex> job(job_mutex_, std::defer_lock);
    if (count <= 1 || inside_pool || size() == 1 || !job.try_lock()) {
      for (int64_t i = 0; i < count; ++i) call(context, i);
      return;
    }
    inside_pool = true;
    publish(count, call, context);
    claim();
    open_.store(0);
    for (int turn = 0; active_.load() != 0; ++turn) turn < 4096 ? pause() : std::this_thread::yield();
    inside_pool = false;
  }

 private:
  void publish(int64_t count, void (*call)(void*, int64_t), void* context) {
    call_ = call;
    context_ = context;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    open_.store(++jobs_ * 2048 + static_cast<uint64_t>(size() - 1));
    if (sleepers_.load() == 0) return;
    std::lock_guard<std::mutex> lock(sleep_mutex_);
    wake_.notify_all();
  }

  void claim() {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(context_, i);
  }

  void work(int id) {
    inside_pool = true;
    auto turn_began = std::chrono::steady_clock::now();
    for (uint64_t ticket = 0;;) {
      offer_core(turn_began);
      ticket = await_ticket(ticket);
      if (static_cast<uint64_t>(id) > ticket % 2048) continue;
      active_.fetch_add(1);
      if (open_.load() == ticket) claim();
      active_.fetch_sub(1);
    }
  }

  static void offer_core(std::chrono::steady_clock::time_point& turn_began) {
    if (std::chrono::steady_clock::now() - turn_began < kTurn) return;
    std::this_thread::yield();
    turn_began = std::chrono::steady_clock::now();
  }

  bool changed(uint64_t seen, uint64_t& now) const {
    now = open_.load();
    return now != 0 && now != seen;
  }

  uint64_t await_ticket(uint64_t seen) {
    uint64_t now = 0;
    const auto start = std::chrono::steady_clock::now();
    for (int turn = 0;; ++turn) {
      if (changed(seen, now)) return now;
      pause();
      if (turn % 64 == 63 && std::chrono::steady_clock::now() - start > kSpin) break;
    }
    std::unique_lock<std::mutex> lock(sleep_mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return changed(seen, now); });
    sleepers_.fetch_sub(1);
    return now;
  }

  std::mutex job_mutex_, sleep_mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> open_{0};
  std::atomic<int> sleepers_{0}, active_{0}, size_{1};
  std::atomic<int64_t> next_{0};
  int64_t count_ = 0;
  void (*call_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  uint64_t jobs_ = 0;
  int started_ = 0;
};

/// Never destroyed: its detached threads may outlive static destructors at process exit.
Pool& pool() {
  static Pool* const instance = [] {
    auto* created = new Pool();
    created->resize(available_cpus());
    return created;
  }();
  return *instance;
}

}  // namespace

int available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count ? static_cast<int>(count) : 1;
}

int threads() { return pool().size(); }

void set_threads(int count) { pool().resize(count); }

void parallel_run(int64_t count, void (*call)(void*, int64_t), void* context) { pool().run(count, call, context); }

}  // namespace fathom
