// One thread owns MPI: it issues what JavaScript asks for, keeps messages moving while kernels run, and tells every
// other rank once a second that it is alive. JavaScript only ever waits.
//
// Where the network has planes, a rank tells its neighbours in the node and the ranks with its place in other nodes, four times
// a second, and what it has heard of all others goes along: so each rank knows of all by any path, and of the links on
// its own plane whether they work both ways.
#pragma once

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace fathom {

/// A count in memory that the ranks of a node share, and behind it the number of those who sleep until it changes.
struct Counter {
  int32_t* value = nullptr;

  int32_t* sleepers() const { return value + 1; }

  void add(int32_t delta) const;
  /// Sleeps until the count has reached `target` or `milliseconds` have passed; says which (counts may wrap).
  bool wait(int32_t target, int milliseconds) const;
};

/// What happens to a counter when a request is done.
struct Signal {
  Counter counter;
  int32_t delta = 0;
};

/// Calls one non-blocking MPI function. @returns its error code
using Start = std::function<int(MPI_Request*)>;

class Engine {
 public:
  static Engine& get();

  /// Starts the thread and MPI, once. @throws std::runtime_error
  void start();
  /// Finishes what is under way and ends MPI. Later calls do nothing.
  void finish();

  /// Queues a non-blocking call; returns a handle for `wait`.
  /// @param background of requests that may stay open at the end, and that nobody is in a hurry for unless somebody waits
  int64_t submit(Start start, Signal signal = {}, bool background = false);
  /// Sleeps until the request is done; returns the bytes that a receive got. @throws std::runtime_error naming what failed
  int64_t wait(int64_t id);
  bool done(int64_t id);
  /// Sleeps until a shared count has reached `target`. @throws as `wait`
  void wait_counter(const Counter& counter, int32_t target);
  /// The same for so long at most; says whether it was reached.
  bool wait_counter(const Counter& counter, int32_t target, int milliseconds);
  /// Requests done so far.
  int64_t news();
  /// Sleeps until there are more than `since`, for so long at most. @throws as `wait`
  void wait_news(int64_t since, int milliseconds);
  /// From now on beats go as on a network of planes (see above). @param per_node ranks of a node
  void use_planes(int per_node) { per_node_ = per_node; }
  /// Seconds since anything was heard of `peer`, by any path.
  double silent_seconds(int peer);
  /// Seconds since a message of this rank or of `peer` last reached the other straight.
  double link_silence_seconds(int peer);
  /// Runs a blocking call on MPI's thread and waits for it. @throws std::runtime_error
  void run(const char* what, const std::function<int()>& call);

  MPI_Comm comm(int id);
  int add_comm(MPI_Comm comm);
  /// Ends every rank, this one included.
  [[noreturn]] void abort(int code);

  /// Ranks that have been silent for longer than this are taken for lost. 0: never.
  std::atomic<double> silence_limit_seconds{15};
  int rank = 0, size = 1;
  std::vector<std::string> hosts;
  std::string library;

 private:
  using Clock = std::chrono::steady_clock;
  struct Request {
    int64_t id;
    MPI_Request handle;
    Signal signal;
    bool background;
  };
  struct Outcome {
    bool done = false;
    int64_t bytes = 0;
  };
  struct Queued {
    int64_t id;
    Start start;
    Signal signal;
    bool background;
  };

  void loop();
  void initialise();
  void learn_hosts();
  bool issue();
  bool test();
  void complete(const Request& request, int64_t bytes);
  void nap(int idle);
  bool all_background() const;
  bool left_behind();
  void drop_requests();
  void beat();
  bool beats_to(int peer) const;
  void send_beat(int peer);
  void receive_beat();
  void hear(int from, int count);
  void forgive();
  void report(const std::string& message);
  void check();
  std::string error_text(const char* what, int code);

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_, changed_;
  std::deque<Queued> queue_;
  std::deque<std::function<void()>> calls_;
  std::unordered_map<int64_t, Outcome> outcomes_;
  std::vector<Request> active_;
  std::vector<MPI_Comm> comms_;
  std::string failure_;
  int64_t next_ = 1;
  bool started_ = false, ready_ = false;
  std::atomic<bool> stop_{false};

  MPI_Comm beats_ = MPI_COMM_NULL;
  MPI_Request incoming_ = MPI_REQUEST_NULL;
  /// Milliseconds since the sender heard of each rank, and, last, since it heard of the receiver straight. Empty but for
  /// one number where there are no planes.
  std::vector<int32_t> beat_in_;
  std::vector<std::vector<int32_t>> beats_out_;
  std::vector<MPI_Request> outgoing_;
  /// When each rank was last heard of: by any path, straight, and it of this one straight.
  std::vector<std::atomic<int64_t>> heard_ns_, direct_ns_, answered_ns_;
  std::atomic<int> per_node_{0};
  /// JavaScript threads that wait.
  std::atomic<int> waiting_{0};
  int64_t news_ = 0;
  Clock::time_point stopped_at_{};
  Clock::time_point last_beat_{};
};

}  // namespace fathom
