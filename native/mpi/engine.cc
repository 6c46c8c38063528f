#include "engine.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace fathom {

namespace {

using namespace std::chrono;

constexpr auto kBeatInterval = milliseconds(1000);
/// On a network of planes, where a link is taken for cut after a second of silence.
constexpr auto kPlaneBeatInterval = milliseconds(250);
/// Polls without news before the thread starts to sleep between them.
constexpr int kEagerPolls = 200;
constexpr auto kNap = microseconds(20);
/// Where nobody waits, kernels have the core: a link takes up what is behind one look in a few of them.
constexpr auto kBusyNap = microseconds(100);
/// Polls without news, about half a second of them, before naps become long: a rank of a server may wait for hours.
constexpr int kPatientPolls = 10000;
constexpr auto kPatientNap = microseconds(2500);
/// Where nothing but receives in the background is open, and nobody waits.
constexpr auto kLongNap = microseconds(500);
/// How long messages to a link that was cut may hold up the end, where there are planes.
constexpr auto kLeaveAfter = seconds(1);
/// How often a waiting JavaScript thread looks for lost ranks.
constexpr int kCheckMilliseconds = 200;

/// Counts a thread that waits while it is in scope.
struct Waiting {
  std::atomic<int>& count;
  explicit Waiting(std::atomic<int>& c) : count(c) { ++count; }
  ~Waiting() { --count; }
};

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
    stopped_at_ = Clock::now();
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

int64_t Engine::submit(Start start, Signal signal, bool background) {
  std::lock_guard lock(mutex_);
  if (!failure_.empty()) throw std::runtime_error(failure_);
  const int64_t id = next_++;
  outcomes_.emplace(id, Outcome{});
  queue_.push_back({id, std::move(start), signal, background});
  wake_.notify_one();
  return id;
}

int64_t Engine::wait(int64_t id) {
  const Waiting waiting(waiting_);
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
  const Waiting waiting(waiting_);
  while (!counter.wait(target, kCheckMilliseconds)) check();
}

bool Engine::wait_counter(const Counter& counter, int32_t target, int milliseconds) {
  const Waiting waiting(waiting_);
  if (counter.wait(target, milliseconds)) return true;
  check();
  return false;
}

int64_t Engine::news() {
  std::lock_guard lock(mutex_);
  return news_;
}

void Engine::wait_news(int64_t since, int limit) {
  const Waiting waiting(waiting_);
  std::unique_lock lock(mutex_);
  wake_.notify_one();
  const auto any = [&] { return news_ != since || !failure_.empty(); };
  const bool found = changed_.wait_for(lock, milliseconds(limit), any);
  if (!failure_.empty()) throw std::runtime_error(failure_);
  lock.unlock();
  if (!found) check();
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
  for (auto* times : {&heard_ns_, &direct_ns_, &answered_ns_}) *times = std::vector<std::atomic<int64_t>>(static_cast<size_t>(size));
  forgive();
  beat_in_.resize(static_cast<size_t>(size) + 1);
  beats_out_.resize(static_cast<size_t>(size));
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
    if (left_behind()) break;
    nap(++idle);
  }
  drop_requests();
  if (incoming_ != MPI_REQUEST_NULL) {
    MPI_Cancel(&incoming_);
    MPI_Request_free(&incoming_);
  }
  MPI_Finalize();
}

/// Whether the rank has finished, and nothing is open that it must still see done.
bool Engine::left_behind() {
  std::lock_guard lock(mutex_);
  if (!stop_ || !queue_.empty() || !calls_.empty()) return false;
  return all_background() || (per_node_ > 0 && Clock::now() - stopped_at_ > kLeaveAfter);
}

bool Engine::all_background() const {
  for (const Request& request : active_) {
    if (!request.background) return false;
  }
  return true;
}

void Engine::nap(int idle) {
  std::unique_lock lock(mutex_);
  if (!queue_.empty() || !calls_.empty()) return;
  if (active_.empty()) {
    wake_.wait_for(lock, milliseconds(stop_ ? 1 : 100));
  } else if (waiting_ > 0 && idle < kEagerPolls) {
    lock.unlock();
    std::this_thread::yield();
  } else {
    const auto busy = waiting_ > 0 ? kNap : kBusyNap;
    const auto short_nap = waiting_ == 0 && all_background() ? kLongNap : busy;
    wake_.wait_for(lock, idle < kPatientPolls ? short_nap : kPatientNap);
  }
}

/// What is still open at the end: receives are called off, sends are left to MPI.
void Engine::drop_requests() {
  for (Request& request : active_) {
    if (request.background) MPI_Cancel(&request.handle);
    MPI_Request_free(&request.handle);
  }
  active_.clear();
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
    Request request{queued.id, MPI_REQUEST_NULL, queued.signal, queued.background};
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
    ++news_;
  }
  changed_.notify_all();
  if (request.signal.counter.value) request.signal.counter.add(request.signal.delta);
}

void Engine::receive_beat() {
  MPI_Irecv(beat_in_.data(), static_cast<int>(beat_in_.size()), MPI_INT, MPI_ANY_SOURCE, 0, beats_, &incoming_);
}

void Engine::beat() {
  if (size == 1) return;
  const auto now = Clock::now();
  const auto interval = per_node_ > 0 ? kPlaneBeatInterval : kBeatInterval;
  // This rank itself was stopped: it knows nothing about the others' silence.
  if (last_beat_ != Clock::time_point{} && now - last_beat_ > interval * 4) forgive();
  for (int flag = 1; flag;) {
    MPI_Status status;
    if (MPI_Test(&incoming_, &flag, &status) != MPI_SUCCESS) return;
    if (!flag) break;
    int count = 0;
    MPI_Get_count(&status, MPI_INT, &count);
    hear(status.MPI_SOURCE, count);
    receive_beat();
  }
  if (now - last_beat_ < interval) return;
  last_beat_ = now;
  for (int peer = 0; peer < size; ++peer) {
    MPI_Request& out = outgoing_[static_cast<size_t>(peer)];
    int flag = 1;
    if (out != MPI_REQUEST_NULL) MPI_Test(&out, &flag, MPI_STATUS_IGNORE);
    if (flag && beats_to(peer)) send_beat(peer);
  }
}

void Engine::forgive() {
  for (auto* times : {&heard_ns_, &direct_ns_, &answered_ns_}) {
    for (auto& time : *times) time = now_ns();
  }
}

bool Engine::beats_to(int peer) const {
  const int per_node = per_node_;
  return peer != rank && (per_node == 0 || peer / per_node == rank / per_node || peer % per_node == rank % per_node);
}

void Engine::send_beat(int peer) {
  std::vector<int32_t>& out = beats_out_[static_cast<size_t>(peer)];
  out.assign(1, 0);
  if (per_node_ > 0) {
    const auto age = [](int64_t time) { return static_cast<int32_t>((now_ns() - time) / 1000000); };
    out.clear();
    for (int other = 0; other < size; ++other) out.push_back(other == rank ? 0 : age(heard_ns_[static_cast<size_t>(other)]));
    out.push_back(age(direct_ns_[static_cast<size_t>(peer)]));
  }
  MPI_Isend(out.data(), static_cast<int>(out.size()), MPI_INT, peer, 0, beats_, &outgoing_[static_cast<size_t>(peer)]);
}

void Engine::hear(int from, int count) {
  const int64_t now = now_ns();
  heard_ns_[static_cast<size_t>(from)] = direct_ns_[static_cast<size_t>(from)] = now;
  if (count != size + 1) return;
  for (int other = 0; other < size; ++other) {
    auto& heard = heard_ns_[static_cast<size_t>(other)];
    heard = std::max(heard.load(), now - beat_in_[static_cast<size_t>(other)] * int64_t{1000000});
  }
  answered_ns_[static_cast<size_t>(from)] = now - beat_in_.back() * int64_t{1000000};
}

double Engine::link_silence_seconds(int peer) {
  const auto at = static_cast<size_t>(peer);
  return static_cast<double>(now_ns() - std::min(direct_ns_[at].load(), answered_ns_[at].load())) * 1e-9;
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
