#include "engine.h"

#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

namespace fathom {

namespace {

using namespace std::chrono;

constexpr auto kBeatInterval = seconds(1);
/// Polls without news before the thread starts to sleep between them.
constexpr int kEagerPolls = 200;
constexpr auto kNap = microseconds(20);
/// How often a waiting JavaScript thread looks for lost ranks.
constexpr int kCheckMilliseconds = 200;

int64_t now_ns() { return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Engine& Engine::get() {
  static Engine* engine = new Engine;  // never destroyed: its thread may outlive static destructors
  return *engine;
}

void Engine::start() {
  std::unique_lock lock(mutex_);
  if (!started_) {
    started_ = true;
    thread_ = std::thread([this] { loop(); });
  }
  changed_.wait(lock, [this] { return ready_ || !failure_.empty(); });
  if (!failure_.empty()) throw std::runtime_error(failure_);
}

void Engine::finish() {
  {
    std::lock_guard lock(mutex_);
    if (!started_ || stop_) return;
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

int64_t Engine::submit(Start start, Signal signal) {
  std::lock_guard lock(mutex_);
  if (!failure_.empty()) throw std::runtime_error(failure_);
  const int64_t id = next_++;
  outcomes_.emplace(id, Outcome{});
  queue_.push_back({id, std::move(start), signal});
  wake_.notify_one();
  return id;
}

int64_t Engine::wait(int64_t id) {
  std::unique_lock lock(mutex_);
  const auto found = outcomes_.find(id);
  if (found == outcomes_.end()) throw std::runtime_error("MPI request " + std::to_string(id) + " was waited for before");
  while (!found->second.done) {
    const auto news = [&] { return found->second.done || !failure_.empty(); };
    if (changed_.wait_for(lock, milliseconds(kCheckMilliseconds), news) && !found->second.done) throw std::runtime_error(failure_);
    if (found->second.done) break;
    lock.unlock();
    check();
    lock.lock();
  }
  const int64_t bytes = found->second.bytes;
  outcomes_.erase(found);
  return bytes;
}

bool Engine::done(int64_t id) {
  std::lock_guard lock(mutex_);
  const auto found = outcomes_.find(id);
  return found == outcomes_.end() || found->second.done;
}

void Engine::wait_counter(const Counter& counter, int32_t target) {
  while (!counter.wait(target, kCheckMilliseconds)) check();
}

void Engine::run(const char* what, const std::function<int()>& call) {
  std::unique_lock lock(mutex_);
  bool finished = false;
  int code = MPI_SUCCESS;
  calls_.push_back([&] {
    code = call();
    std::lock_guard inner(mutex_);
    finished = true;
    changed_.notify_all();
  });
  wake_.notify_one();
  changed_.wait(lock, [&] { return finished || !failure_.empty(); });
  if (!finished) throw std::runtime_error(failure_);
  lock.unlock();
  if (code != MPI_SUCCESS) throw std::runtime_error(error_text(what, code));
}

MPI_Comm Engine::comm(int id) {
  std::lock_guard lock(mutex_);
  if (id < 0 || id >= static_cast<int>(comms_.size())) throw std::runtime_error("no communicator " + std::to_string(id));
  return comms_[static_cast<size_t>(id)];
}

int Engine::add_comm(MPI_Comm comm) {
  std::lock_guard lock(mutex_);
  comms_.push_back(comm);
  return static_cast<int>(comms_.size()) - 1;
}

void Engine::abort(int code) {
  // MPI's own thread may be stuck in a call: the process ends in any case.
  std::thread([] {
    std::this_thread::sleep_for(seconds(3));
    _exit(1);
  }).detach();
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);
}

void Engine::initialise() {
  int level = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS) throw std::runtime_error("MPI does not start");
  if (level < MPI_THREAD_FUNNELED) throw std::runtime_error("this MPI was built without threads (MPI_THREAD_FUNNELED)");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_dup(MPI_COMM_WORLD, &beats_);
  MPI_Comm_set_errhandler(beats_, MPI_ERRORS_RETURN);
  learn_hosts();
  heard_ns_ = std::vector<std::atomic<int64_t>>(static_cast<size_t>(size));
  for (auto& heard : heard_ns_) heard = now_ns();
  outgoing_.assign(static_cast<size_t>(size), MPI_REQUEST_NULL);
  if (size > 1) receive_beat();
  comms_.push_back(MPI_COMM_WORLD);
}

void Engine::learn_hosts() {
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  MPI_Get_processor_name(name, &length);
  std::vector<char> all(static_cast<size_t>(size) * MPI_MAX_PROCESSOR_NAME);
  MPI_Allgather(name, MPI_MAX_PROCESSOR_NAME, MPI_CHAR, all.data(), MPI_MAX_PROCESSOR_NAME, MPI_CHAR, MPI_COMM_WORLD);
  for (int r = 0; r < size; ++r) hosts.emplace_back(all.data() + static_cast<size_t>(r) * MPI_MAX_PROCESSOR_NAME);
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  MPI_Get_library_version(version, &length);
  library = version;
}

void Engine::loop() {
  try {
    initialise();
  } catch (const std::exception& error) {
    report(error.what());
    return;
  }
  {
    std::lock_guard lock(mutex_);
    ready_ = true;
  }
  changed_.notify_all();
  int idle = 0;
  while (true) {
    const bool issued = issue();
    const bool progressed = test();
    beat();
    if (issued || progressed) {
      idle = 0;
      continue;
    }
    std::unique_lock lock(mutex_);
    if (!queue_.empty() || !calls_.empty()) continue;
    if (active_.empty()) {
      if (stop_) break;
      wake_.wait_for(lock, milliseconds(100));
    } else if (++idle < kEagerPolls) {
      lock.unlock();
      std::this_thread::yield();
    } else {
      wake_.wait_for(lock, kNap);
    }
  }
  if (incoming_ != MPI_REQUEST_NULL) {
    MPI_Cancel(&incoming_);
    MPI_Request_free(&incoming_);
  }
  MPI_Finalize();
}

bool Engine::issue() {
  std::deque<Queued> queue;
  std::deque<std::function<void()>> calls;
  {
    std::lock_guard lock(mutex_);
    queue.swap(queue_);
    calls.swap(calls_);
  }
  for (Queued& queued : queue) {
    Request request{queued.id, MPI_REQUEST_NULL, queued.signal};
    const int code = queued.start(&request.handle);
    if (code != MPI_SUCCESS) report(error_text("a message", code));
    active_.push_back(request);
  }
  for (auto& call : calls) call();
  return !queue.empty() || !calls.empty();
}

bool Engine::test() {
  bool any = false;
  for (size_t i = 0; i < active_.size();) {
    int flag = 0;
    MPI_Status status;
    const int code = MPI_Test(&active_[i].handle, &flag, &status);
    if (code != MPI_SUCCESS) {
      report(error_text("a message", code));
      flag = 1;
    }
    if (!flag) {
      ++i;
      continue;
    }
    int bytes = 0;
    if (code == MPI_SUCCESS) MPI_Get_count(&status, MPI_BYTE, &bytes);
    complete(active_[i], bytes);
    active_.erase(active_.begin() + static_cast<int64_t>(i));
    any = true;
  }
  return any;
}

void Engine::complete(const Request& request, int64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    outcomes_[request.id] = {true, bytes == MPI_UNDEFINED ? 0 : bytes};
  }
  changed_.notify_all();
  if (request.signal.counter.value) request.signal.counter.add(request.signal.delta);
}

void Engine::receive_beat() {
  MPI_Irecv(&beat_in_, 1, MPI_INT, MPI_ANY_SOURCE, 0, beats_, &incoming_);
}

void Engine::beat() {
  if (size == 1) return;
  const auto now = Clock::now();
  if (last_beat_ != Clock::time_point{} && now - last_beat_ > kBeatInterval * 4) {
    // This rank itself was stopped: it knows nothing about the others' silence.
    for (auto& heard : heard_ns_) heard = now_ns();
  }
  for (int flag = 1; flag;) {
    MPI_Status status;
    if (MPI_Test(&incoming_, &flag, &status) != MPI_SUCCESS) return;
    if (!flag) break;
    heard_ns_[static_cast<size_t>(status.MPI_SOURCE)] = now_ns();
    receive_beat();
  }
  if (now - last_beat_ < kBeatInterval) return;
  last_beat_ = now;
  for (int peer = 0; peer < size; ++peer) {
    MPI_Request& out = outgoing_[static_cast<size_t>(peer)];
    int flag = 1;
    if (out != MPI_REQUEST_NULL) MPI_Test(&out, &flag, MPI_STATUS_IGNORE);
    if (peer != rank && flag) MPI_Isend(&beat_out_, 1, MPI_INT, peer, 0, beats_, &out);
  }
}

double Engine::silent_seconds(int peer) {
  return static_cast<double>(now_ns() - heard_ns_[static_cast<size_t>(peer)].load()) * 1e-9;
}

void Engine::check() {
  {
    std::lock_guard lock(mutex_);
    if (!failure_.empty()) throw std::runtime_error(failure_);
  }
  const double limit = silence_limit_seconds;
  if (limit <= 0) return;
  std::string lost;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank || silent_seconds(peer) < limit) continue;
    lost += (lost.empty() ? "rank " : ", rank ") + std::to_string(peer) + " on " + hosts[static_cast<size_t>(peer)];
  }
  if (lost.empty()) return;
  report("nothing was heard for " + std::to_string(static_cast<int>(limit)) + " s from " + lost +
         ": stopped, dead or cut off from the network");
  throw std::runtime_error(failure_);
}

void Engine::report(const std::string& message) {
  {
    std::lock_guard lock(mutex_);
    if (failure_.empty()) failure_ = message;
  }
  changed_.notify_all();
}

std::string Engine::error_text(const char* what, int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(what) + " failed in MPI: " + text;
}

}  // namespace fathom
